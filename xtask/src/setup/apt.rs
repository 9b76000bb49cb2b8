//! Installing with apt: what is missing, from where it is new enough.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::backports::Backports;
use super::packages::{FOR_TESTS, Package};
use super::qemu;
use crate::shell::{capture, run, succeeds};

const INSTALL: &[&str] = &["install", "-y", "--no-install-recommends", "--no-remove"];

/// One line for a terminal that does, as root, what [`install`] would do here; `setup` is
/// the verb of this program with its arguments.
pub(super) fn line(missing: &[&Package], setup: &str) -> Result<String> {
    let sudo = if succeeds(Command::new("sudo").arg("--version")) {
        "sudo "
    } else {
        ""
    };
    let Sources { plain, backports } = Sources::of(missing)?;
    if !backports.is_empty() {
        // apt-get alone would take what is too old: this program knows what to do.
        let program = std::env::current_exe().context("where is this program?")?;
        let program = quoted(&program.display().to_string());
        return Ok(format!("{sudo}{program} {setup}"));
    }
    let (install, plain) = (INSTALL.join(" "), plain.join(" "));
    Ok(format!(
        "{sudo}apt-get update && {sudo}apt-get {install} {plain}"
    ))
}

/// Installs `missing` on the Debian of this name.
pub(super) fn install(missing: &[&Package], codename: &str) -> Result<()> {
    // An old list of packages may do, and when it does not, that is an error.
    if let Err(error) = run(apt_get().arg("update")) {
        println!("warning: {error:#}");
    }
    let Sources { plain, backports } = Sources::of(missing)?;
    if !plain.is_empty() {
        run(apt_get().args(INSTALL).args(plain))?;
    }
    if !backports.is_empty() {
        install_from_backports(&backports, codename).with_context(|| {
            format!(
                "{} is in no source that apt is configured with, and could not be had from \
                 Debian {codename}'s backports (one that was installed by hand will do, if it is in PATH)",
                qemu::wanted()
            )
        })?;
    }
    Ok(())
}

fn install_from_backports(packages: &[&str], codename: &str) -> Result<()> {
    let backports = Backports::open(codename)?;
    backports.require(packages, floor()?)?;
    let mut command = apt_get();
    run(backports.at(&mut command).args(INSTALL).args(packages))
}

pub(super) fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command.args(["-q", "-o", "Acquire::Retries=3"]);
    command
}

pub(super) fn apt_cache() -> Command {
    let mut command = Command::new("apt-cache");
    command.env("LC_ALL", "C");
    command
}

/// Where packages come from.
#[derive(Debug, Default)]
struct Sources {
    /// The sources the machine has.
    plain: Vec<&'static str>,
    backports: Vec<&'static str>,
}

impl Sources {
    /// All of QEMU comes from the same place: its packages conflict across major versions.
    fn of(missing: &[&Package]) -> Result<Self> {
        let mut sources = Self::default();
        let mut qemu = Vec::new();
        for package in missing {
            if package.is_of_qemu() {
                qemu.push(package.name);
            } else {
                sources.plain.push(package.name);
            }
        }
        let floor = floor()?;
        for package in &qemu {
            let policy = capture(apt_cache().args(["policy", package]))?;
            if !is_at_least(candidate(&policy), floor) {
                sources.backports = qemu;
                return Ok(sources);
            }
        }
        sources.plain.extend(qemu);
        Ok(sources)
    }
}

/// The oldest major version of QEMU that will do: with an older one than what is installed,
/// apt would remove that.
fn floor() -> Result<u64> {
    let mut floor = qemu::OLDEST_MAJOR;
    for package in FOR_TESTS.iter().filter(|package| package.is_of_qemu()) {
        let policy = capture(apt_cache().args(["policy", package.name]))?;
        let installed = field(&policy, "Installed").and_then(qemu::major);
        floor = floor.max(installed.unwrap_or_default());
    }
    Ok(floor)
}

/// Whether a package of QEMU with this version, if there is one, is new enough.
pub(super) fn is_at_least(version: Option<&str>, floor: u64) -> bool {
    version
        .and_then(qemu::major)
        .is_some_and(|major| major >= floor)
}

/// The version apt would install, in the words of `apt-cache policy`.
pub(super) fn candidate(policy: &str) -> Option<&str> {
    field(policy, "Candidate")
}

fn field<'a>(policy: &'a str, name: &str) -> Option<&'a str> {
    policy
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .find(|(found, _)| *found == name)
        .map(|(_, version)| version)
        .filter(|version| *version != "(none)")
}

/// `path` as one word of a shell.
fn quoted(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if path.bytes().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{candidate, field, is_at_least, quoted};

    #[test]
    fn a_package_apt_does_not_offer_has_no_candidate() {
        let policy = "p:\n  Installed: (none)\n  Candidate: 1:7.2\n";
        assert_eq!(candidate(policy), Some("1:7.2"));
        assert_eq!(field(policy, "Installed"), None);
        assert_eq!(candidate("p:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn a_package_that_is_too_old_or_not_offered_does_not_do() {
        assert!(is_at_least(Some("1:9.0.0+ds-1"), 9));
        assert!(!is_at_least(Some("1:9.0.0+ds-1"), 10));
        assert!(!is_at_least(Some("1:7.2+dfsg-7"), 9));
        assert!(!is_at_least(None, 9));
    }

    #[test]
    fn a_path_stays_one_word_in_the_printed_line() {
        assert_eq!(quoted("/home/a/xtask"), "/home/a/xtask");
        assert_eq!(quoted("/home/it's a/xtask"), r"'/home/it'\''s a/xtask'");
    }
}
