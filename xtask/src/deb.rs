//! `cargo xtask deb`: the package for Debian, with `--check` also proof that it works.
//!
//! The program is built, says itself what its manual pages and completions are, and all is put
//! into one package by `dpkg-deb`. The same commit, toolchain and machine give the same bytes.

mod check;
mod commit;
mod control;
mod left;
mod notices;
mod pack;
mod roots;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use self::commit::Commit;
use self::tree::Parts;
use crate::setup;
use crate::shell::{
    Scratch, build_without_paths, capture, root, run as run_program, target_folder,
};

/// How the program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// What users get.
    Release,
    /// To work on the package: it is as large as slow, and has paths of this machine in it.
    Dev,
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let (profile, check) = wanted(args)?;
    setup::for_packages(check)?;
    let folder = PathBuf::from(target_folder()?).join("deb");
    let commit = Commit::newest(root())?;
    let version = commit.version(env!("CARGO_PKG_VERSION"));
    let scratch = Scratch::new("deb")?;
    let parts = parts(profile, scratch.path())?;
    let made = pack::make(&parts, &version, &commit, &folder)?;
    println!(
        "made {} ({} bytes)",
        made.display(),
        fs::metadata(&made)?.len()
    );
    println!(
        "{}",
        runs_on(&control::depends(&parts.program)?, &os_release())
    );
    if check {
        check::run(
            &parts,
            &version,
            &commit,
            &folder,
            profile == Profile::Release,
        )?;
    }
    Ok(())
}

fn wanted(args: &[String]) -> Result<(Profile, bool)> {
    let (mut profile, mut check) = (Profile::Release, false);
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match (
            arg,
            if arg == "--profile" {
                args.next()
            } else {
                None
            },
        ) {
            ("--check", _) => check = true,
            ("--profile", Some("dev")) => profile = Profile::Dev,
            ("--profile", Some("release")) => profile = Profile::Release,
            _ => bail!("the arguments are --check and --profile dev or release"),
        }
    }
    Ok((profile, check))
}

/// Builds the program, strips it, and has it write its pages and completions into `scratch`.
fn parts(profile: Profile, scratch: &Path) -> Result<Parts> {
    let built = match profile {
        Profile::Release => build_without_paths()?,
        Profile::Dev => PathBuf::from(crate::shell::build_programs()?),
    };
    let program = scratch.join("snapkeep");
    let strip = [
        "--strip-all",
        "--remove-section=.comment",
        "--remove-section=.note",
    ];
    run_program(
        Command::new("strip")
            .args(strip)
            .arg("-o")
            .args([&program, &built.join("snapkeep")]),
    )?;
    let generated = scratch.join("generated");
    run_program(Command::new(&program).arg("generate").arg(&generated))?;
    Ok(Parts { program, generated })
}

fn os_release() -> String {
    fs::read_to_string("/etc/os-release").unwrap_or_default()
}

/// On which systems the package can be installed: those whose C library has what the program
/// was linked with, so what was built on an old Debian runs on newer ones.
fn runs_on(depends: &str, os_release: &str) -> String {
    let here = (os_release.lines())
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or("an unknown system", |name| name.trim_matches('"'));
    format!("built on {here}: it can be installed there and on what is newer; it needs {depends}")
}

/// The machine's name for its processor.
fn architecture() -> Result<String> {
    let name = capture(Command::new("dpkg").arg("--print-architecture"))
        .context("which architecture is this?")?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Profile, runs_on, wanted};

    #[test]
    fn arguments_that_cannot_be_meant_are_refused() {
        let of =
            |args: &[&str]| wanted(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), (Profile::Release, false));
        assert_eq!(
            of(&["--profile", "dev", "--check"]).unwrap(),
            (Profile::Dev, true)
        );
        for wrong in [&["--profile"][..], &["--profile", "fast"], &["dev"]] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_system_it_was_built_on_is_told() {
        let told = runs_on(
            "libc6 (>= 2.34)",
            "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n",
        );
        assert!(told.starts_with("built on Debian GNU/Linux 12: "), "{told}");
    }
}
