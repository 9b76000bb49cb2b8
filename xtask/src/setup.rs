//! `cargo xtask setup`: the programs the tests need, from the distribution.
//!
//! On Debian what is missing is installed, and never at the price of removing a
//! package; who may not install gets the one command to run. Elsewhere the
//! missing programs are named. It is an error when something stays missing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell::{Scratch, capture, cargo, run as run_command, succeeds};

/// A Debian package and how to see, on any distribution, that it is there.
struct Package {
    name: &'static str,
    proof: Proof,
}

enum Proof {
    Programs(&'static [&'static str]),
    PythonModule(&'static str),
}

use Proof::{Programs, PythonModule};

const UTILS: &str = "qemu-utils";
const SYSTEM: &str = "qemu-system-x86";

/// What the tests, the tour and the demo run.
const FOR_TESTS: &[Package] = &[
    Package::new("git", Programs(&["git"])),
    Package::new(
        UTILS,
        Programs(&["qemu-img", "qemu-nbd", "qemu-storage-daemon"]),
    ),
    Package::new(SYSTEM, Programs(&["qemu-system-x86_64"])),
    Package::new("libnbd-bin", Programs(&["nbdinfo", "nbdcopy"])),
    Package::new("nbdkit", Programs(&["nbdkit"])),
    Package::new("b3sum", Programs(&["b3sum"])),
    Package::new("python3", PythonModule("json")),
    Package::new("python3-cryptography", PythonModule("cryptography")),
    Package::new("python3-zstandard", PythonModule("zstandard")),
];

/// What the benchmark compares with, besides.
const FOR_BENCH: &[Package] = &[
    Package::new("restic", Programs(&["restic"])),
    Package::new("borgbackup", Programs(&["borg"])),
];

impl Package {
    const fn new(name: &'static str, proof: Proof) -> Self {
        Self { name, proof }
    }

    /// What of the package is not there, in the words of any distribution.
    fn missing(&self) -> Vec<String> {
        match self.proof {
            Programs(programs) => programs
                .iter()
                .filter(|program| !works(program))
                .map(|program| (*program).to_owned())
                .collect(),
            PythonModule(module) => {
                let import = format!("import {module}");
                if succeeds(Command::new(python()).args(["-c", &import])) {
                    Vec::new()
                } else {
                    vec![format!("{} with the module {module}", python())]
                }
            }
        }
    }
}

/// Installs what the tests need; with `--bench` also what the benchmark needs.
pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure_components()?;
    match args {
        [] => for_tests(),
        [flag] if flag == "--bench" => ensure_installed(FOR_TESTS.iter().chain(FOR_BENCH)),
        _ => bail!("the only argument is --bench"),
    }
}

/// What a verb that runs the tools calls first.
pub(crate) fn for_tests() -> Result<()> {
    ensure_installed(FOR_TESTS.iter())
}

/// The parts of the Rust toolchain that its smallest installation lacks; they belong
/// to whoever installed it, and not to the distribution.
fn ensure_components() -> Result<()> {
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(verb, _)| !succeeds(cargo().args([verb, "--version"])))
        .map(|(_, component)| component)
        .collect();
    ensure!(
        missing.is_empty(),
        "parts of the Rust toolchain are missing: run `rustup component add {}`, then start again",
        missing.join(" ")
    );
    Ok(())
}

fn ensure_installed(needed: impl Iterator<Item = &'static Package> + Clone) -> Result<()> {
    let missing: Vec<&str> = needed
        .clone()
        .filter(|package| !package.missing().is_empty())
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if os_release_field(&release, "ID") == Some("debian") {
        if !is_root()? {
            println!("{}", command_to_run(&missing)?);
            bail!("run the line above, then start again");
        }
        let codename = os_release_field(&release, "VERSION_CODENAME")
            .context("/etc/os-release names no release")?;
        install(&missing, codename)?;
    }
    let still: Vec<String> = needed.flat_map(Package::missing).collect();
    ensure!(still.is_empty(), "missing: {}", still.join(", "));
    Ok(())
}

/// The interpreter for the checks in Python. Debian's modules belong to Debian's
/// interpreter, which need not be the first in PATH.
fn python() -> &'static str {
    if Path::new("/usr/bin/python3").exists() {
        "/usr/bin/python3"
    } else {
        "python3"
    }
}

/// Whether a program of this name is in PATH and works. Most know the option,
/// some only a command of that name.
fn works(program: &str) -> bool {
    ["--version", "version"]
        .iter()
        .any(|argument| succeeds(Command::new(program).arg(argument)))
}

fn is_root() -> Result<bool> {
    Ok(capture(Command::new("id").arg("-u"))?.trim() == "0")
}

/// One line for a terminal that does what root would do here.
fn command_to_run(missing: &[&str]) -> Result<String> {
    for package in missing {
        if needs_backports(package)? {
            // apt-get alone would refuse: this program knows what to do.
            let program = std::env::current_exe().context("where is this program?")?;
            return Ok(format!("sudo {} setup", program.display()));
        }
    }
    let (install, missing) = (INSTALL.join(" "), missing.join(" "));
    Ok(format!(
        "sudo apt-get update && sudo apt-get {install} {missing}"
    ))
}

fn install(missing: &[&str], codename: &str) -> Result<()> {
    // An old list of packages may do, and when it does not, that is an error.
    if let Err(error) = run_command(apt_get().arg("update")) {
        println!("warning: {error:#}");
    }
    let mut plain = Vec::new();
    let mut newer = Vec::new();
    for package in missing {
        if needs_backports(package)? {
            newer.push(*package);
        } else {
            plain.push(*package);
        }
    }
    if !plain.is_empty() {
        run_command(apt_get().args(INSTALL).args(plain))?;
    }
    if !newer.is_empty() {
        install_from_backports(&newer, codename)?;
    }
    Ok(())
}

const INSTALL: &[&str] = &["install", "-y", "--no-install-recommends", "--no-remove"];

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    command.args(["-q", "-o", "Acquire::Retries=3"]);
    command
}

/// Whether another package of QEMU is installed and newer than what apt would
/// take for `package`. They conflict across major versions, and apt would settle
/// that by removing the newer one; both have to come from the same place.
fn needs_backports(package: &str) -> Result<bool> {
    let Some(other) = other_of_qemu(package) else {
        return Ok(false);
    };
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status} ${Version}", other]);
    let status = capture(&mut query).unwrap_or_default();
    let Some(installed) = status.strip_prefix("installed ") else {
        return Ok(false);
    };
    let mut query = Command::new("apt-cache");
    let policy = capture(query.env("LC_ALL", "C").args(["policy", package]))?;
    let Some(candidate) = candidate_version(&policy) else {
        return Ok(true);
    };
    Ok(succeeds(Command::new("dpkg").args([
        "--compare-versions",
        installed,
        "gt",
        candidate,
    ])))
}

/// The package `package` must fit.
fn other_of_qemu(package: &str) -> Option<&'static str> {
    match package {
        UTILS => Some(SYSTEM),
        SYSTEM => Some(UTILS),
        _ => None,
    }
}

/// Installs `packages` from the release's backports through a list of sources, a
/// state and a cache of our own: the machine's configuration stays as it is.
fn install_from_backports(packages: &[&str], codename: &str) -> Result<()> {
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)";
    let mut query = Command::new("apt-get");
    let targets =
        capture(query.args(["indextargets", "--format", format, "Created-By: Packages"]))?;
    let sources = private_sources(&targets, codename)
        .with_context(|| format!("no source of Debian {codename} is configured"))?;
    let folder = Scratch::new("apt")?;
    let path = |name: &str| folder.path().join(name);
    for name in ["lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(path(name))?;
    }
    std::fs::write(path("sources.list"), sources)?;
    let private = |command: &mut Command| {
        for (option, value) in [
            ("Dir::Etc::sourcelist", path("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State::lists", path("lists")),
            ("Dir::Cache", path("cache")),
            // The sandbox user may not enter a folder that is private to root.
            ("APT::Sandbox::User", "root".into()),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", value.display()));
        }
    };
    let mut update = apt_get();
    private(&mut update);
    run_command(update.arg("update"))?;
    let mut install = apt_get();
    private(&mut install);
    run_command(
        install
            .args(INSTALL)
            .args(["-t", &format!("{codename}-backports")])
            .args(packages),
    )
}

/// One field of os-release(5), without its quotes.
fn os_release_field<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == field)
        .map(|(_, value)| value.trim_matches('"'))
}

/// The version `apt-cache policy` would install.
fn candidate_version(policy: &str) -> Option<&str> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
}

/// The lines of a sources.list with the release's own sources and its backports,
/// from lines of `URI RELEASE COMPONENT ORIGIN`. None when the release is not
/// among them.
fn private_sources(targets: &str, codename: &str) -> Option<String> {
    const KEYS: &str = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let mut lines = Vec::new();
    let mut has_release = false;
    for target in targets.lines() {
        let mut words = target.split_whitespace();
        let (Some(uri), Some(release), Some("main"), Some("Debian")) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        lines.push(format!("deb {KEYS} {uri} {release} main"));
        if release == codename {
            has_release = true;
            lines.push(format!("deb {KEYS} {uri} {codename}-backports main"));
        }
    }
    lines.sort();
    lines.dedup();
    has_release.then(|| lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::{candidate_version, os_release_field, private_sources};

    #[test]
    fn backports_come_from_the_place_of_the_release_itself() {
        let targets = "http://a/debian/ bookworm main Debian\n\
                       http://a/security/ bookworm-security main Debian\n\
                       http://b/other/ bookworm main Somebody\n";
        let sources = private_sources(targets, "bookworm").unwrap();
        assert!(sources.contains("http://a/debian/ bookworm-backports main\n"));
        assert!(sources.contains("http://a/security/ bookworm-security main\n"));
        assert!(!sources.contains("http://b/"));
        assert_eq!(sources.lines().count(), 3);
    }

    #[test]
    fn without_the_release_there_is_no_private_list() {
        assert_eq!(
            private_sources("http://a/ trixie main Debian\n", "bookworm"),
            None
        );
    }

    #[test]
    fn a_package_apt_does_not_offer_has_no_candidate() {
        assert_eq!(
            candidate_version("p:\n  Installed: 1\n  Candidate: 1:7.2\n"),
            Some("1:7.2")
        );
        assert_eq!(candidate_version("p:\n  Candidate: (none)\n"), None);
    }

    #[test]
    fn fields_of_os_release_lose_their_quotes() {
        let text = "ID=debian\nVERSION_ID=\"12\"\n";
        assert_eq!(os_release_field(text, "VERSION_ID"), Some("12"));
        assert_eq!(os_release_field(text, "VERSION"), None);
    }
}
