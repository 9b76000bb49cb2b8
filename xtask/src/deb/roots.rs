//! Small Debians to install the package in, made by debootstrap once and kept, and copies of
//! them to work in.
//!
//! The mirror is the one that apt on this machine is configured with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::os_release;
use crate::setup::os_release_field;
use crate::shell::{Scratch, capture, run};

/// The releases the package is for, the oldest first.
const RELEASES: &[&str] = &["bookworm", "trixie"];

/// What the smallest system lacks to look at the package with.
const INCLUDED: &str = "libjson-perl,man-db,perl,systemd";

/// The file in a kept root that says what it was made with.
const MADE_WITH: &str = "made-with";

/// A kept root.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) release: &'static str,
    root: PathBuf,
}

/// A root for the release of this machine, and for each newer one that the mirror has; kept in
/// `folder`.
pub(super) fn kept(folder: &Path) -> Result<Vec<Kept>> {
    let own = os_release();
    let own = os_release_field(&own, "VERSION_CODENAME").unwrap_or_default();
    let Some(first) = RELEASES.iter().position(|release| *release == own) else {
        bail!(
            "a package is checked on Debian {}, and this is none",
            RELEASES.join(" or ")
        );
    };
    let mut roots = Vec::new();
    for release in &RELEASES[first..] {
        let root = folder.join(release);
        match keep(release, &root) {
            Ok(()) => roots.push(Kept { release, root }),
            Err(error) if *release != own => {
                println!("SKIP: deb on {release}: there is no root of it: {error:#}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(roots)
}

fn keep(release: &str, root: &Path) -> Result<()> {
    let mark = root.with_extension(MADE_WITH);
    if fs::read_to_string(&mark).is_ok_and(|with| with == INCLUDED) && root.is_dir() {
        return Ok(());
    }
    println!("making a Debian {release} in {}", root.display());
    // What was begun and not finished has no mark.
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("could not remove {}", root.display()))?;
    }
    fs::create_dir_all(root)?;
    run(Command::new("debootstrap")
        .args([
            "--variant=minbase",
            &format!("--include={INCLUDED}"),
            release,
        ])
        .arg(root)
        .arg(mirror()?))?;
    fs::write(&mark, INCLUDED)?;
    Ok(())
}

/// Where apt gets Debian itself from.
fn mirror() -> Result<String> {
    let format = "$(REPO_URI) $(COMPONENT) $(ORIGIN) $(LABEL)";
    let targets = capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    let uri = targets
        .lines()
        .find_map(|line| line.strip_suffix(" main Debian Debian"));
    Ok(uri
        .context("apt has no list of Debian's packages: run `apt-get update`")?
        .to_owned())
}

/// A copy of a root, gone at the end.
#[derive(Debug)]
pub(super) struct Copy {
    root: PathBuf,
    _scratch: Scratch,
}

impl Kept {
    pub(super) fn copy(&self) -> Result<Copy> {
        let scratch = Scratch::new("root")?;
        let root = scratch.path().join("root");
        run(Command::new("cp")
            .args(["-a", "--reflink=auto"])
            .args([&self.root, &root]))?;
        Ok(Copy {
            root,
            _scratch: scratch,
        })
    }
}

impl Copy {
    /// The place of this path of the copy outside of it.
    pub(super) fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Runs a script in it; what it printed. What the script starts or mounts ends with it.
    pub(super) fn run(&self, script: &str) -> Result<String> {
        let proc = format!("--mount-proc={}", self.place("proc").display());
        let output = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                &proc,
                "chroot",
            ])
            .arg(&self.root)
            .args(["/bin/bash", "-euc", script])
            .env_clear()
            .envs([
                (
                    "PATH",
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                ),
                ("HOME", "/root"),
                ("LC_ALL", "C.UTF-8"),
                ("DEBIAN_FRONTEND", "noninteractive"),
            ])
            .output()
            .context("could not start unshare")?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{}: {}\n{told}\n{}",
            output.status,
            script.trim(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(told)
    }
}
