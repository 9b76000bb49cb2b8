//! Running other programs, and where the project is.
//!
//! A failed program is an error that names it; its own words have already gone
//! to the terminal, or are part of the error when they were captured.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The top folder of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the manifest's folder is a folder of the workspace")
}

/// The cargo that started this, at the top of the project.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Builds the programs of the project and gives the folder they are in.
pub(crate) fn build_programs() -> Result<String> {
    run(cargo().args(["build", "--locked", "--package", "snapkeep", "--bins"]))?;
    Ok(format!("{}/debug", target_folder()?))
}

/// Builds what a user would run, and the programs that are measured, for speed.
pub(crate) fn build_release() -> Result<PathBuf> {
    let folder = build_for_users()?;
    let build = ["build", "--locked", "--release"];
    run(cargo()
        .args(build)
        .args(["--package", "snapkeep-provider", "--examples"]))?;
    Ok(folder)
}

/// Builds what a user would run.
pub(crate) fn build_for_users() -> Result<PathBuf> {
    let build = ["build", "--locked", "--release", "--package", "snapkeep"];
    run(cargo().args(build).arg("--bins"))?;
    Ok(PathBuf::from(target_folder()?).join("release"))
}

/// Builds the program for a package: for speed, and without the names of this machine's folders,
/// in a folder of its own because all is compiled otherwise than elsewhere.
pub(crate) fn build_without_paths() -> Result<PathBuf> {
    let target = PathBuf::from(target_folder()?).join("deb/build");
    let (crates, project) = (sources_of_crates()?, root().display());
    let crates = crates.display();
    let flags = [
        format!("--remap-path-prefix={crates}=/crates"),
        format!("--remap-path-prefix={project}=/snapkeep"),
    ];
    let build = [
        "build",
        "--locked",
        "--release",
        "--package",
        "snapkeep",
        "--bins",
    ];
    run(cargo()
        .args(build)
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // Bundled libraries are in C.
        .env(
            "CFLAGS",
            format!("-ffile-prefix-map={crates}=/crates -ffile-prefix-map={project}=/snapkeep"),
        ))?;
    Ok(target.join("release"))
}

/// Where cargo keeps the sources of crates.
pub(crate) fn sources_of_crates() -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let default = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let home = home
        .or_else(default)
        .context("neither CARGO_HOME nor HOME is set")?;
    Ok(home.join("registry/src"))
}

pub(crate) fn target_folder() -> Result<String> {
    let metadata = capture(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let folder = metadata["target_directory"].as_str();
    folder
        .map(str::to_owned)
        .context("cargo names no target folder")
}

/// Runs `command` with its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("could not start {}", command.get_program().display()))?;
    ensure!(
        status.success(),
        "{} failed: {status}",
        command.get_program().display()
    );
    Ok(())
}

/// Runs `command` and gives its standard output.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start {}", command.get_program().display()))?;
    ensure!(
        output.status.success(),
        "{} failed: {}: {}",
        command.get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} did not write UTF-8", command.get_program().display()))
}

/// Whether `command` can be started and succeeds, in silence.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A new folder of our own under the system's temporary one, removed at the end.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        for attempt in 0..100 {
            let name = format!("snapkeep-{purpose}-{}-{attempt}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("could not create {}", path.display()));
                }
            }
        }
        anyhow::bail!(
            "no free name for a folder in {}",
            std::env::temp_dir().display()
        )
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("warning: {} stays behind: {error}", self.0.display());
        }
    }
}
