//! `cargo xtask setup`: the programs the tests need, from the distribution.
//!
//! On Debian what is missing is installed, and never at the price of removing a
//! package. Elsewhere the missing programs are named. What is optional may stay
//! missing with a warning: the tests that need it say so themselves.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::{Scratch, capture, run as run_command, succeeds};

/// A Debian package and how to see, on any distribution, that it is there.
struct Package {
    name: &'static str,
    programs: &'static [&'static str],
    python_module: Option<&'static str>,
    optional: bool,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "qemu-utils",
        programs: &["qemu-img", "qemu-nbd", "qemu-storage-daemon"],
        python_module: None,
        optional: false,
    },
    Package {
        name: "libnbd-bin",
        programs: &["nbdinfo", "nbdcopy"],
        python_module: None,
        optional: false,
    },
    Package {
        name: "python3",
        programs: &["python3"],
        python_module: None,
        optional: false,
    },
    Package {
        name: "python3-cryptography",
        programs: &[],
        python_module: Some("cryptography"),
        optional: false,
    },
    Package {
        name: "python3-zstandard",
        programs: &[],
        python_module: Some("zstandard"),
        optional: false,
    },
    Package {
        name: SYSTEM,
        programs: &["qemu-system-x86_64"],
        python_module: None,
        optional: true,
    },
];

/// The one package that has to fit another one already installed.
const SYSTEM: &str = "qemu-system-x86";

impl Package {
    fn is_missing(&self) -> bool {
        !self
            .programs
            .iter()
            .all(|program| succeeds(Command::new(program).arg("--version")))
            || self.python_module.is_some_and(|module| {
                // Debian's modules belong to Debian's interpreter, which need not
                // be the first in PATH.
                let import = format!("import {module}");
                !["python3", "/usr/bin/python3"]
                    .iter()
                    .any(|python| succeeds(Command::new(python).args(["-c", &import])))
            })
    }
}

pub(crate) fn run(_args: &[String]) -> Result<()> {
    let (optional, required) = missing();
    if optional.is_empty() && required.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let all: Vec<&str> = required.iter().chain(&optional).copied().collect();
    if os_release_field(&release, "ID") != Some("debian") {
        println!(
            "setup: not Debian; missing (by Debian's names): {}",
            all.join(" ")
        );
    } else if !is_root()? {
        println!(
            "sudo apt-get install -y --no-install-recommends --no-remove {}",
            all.join(" ")
        );
        if !required.is_empty() {
            bail!("run the line above, then start again");
        }
    } else {
        let codename = os_release_field(&release, "VERSION_CODENAME").unwrap_or_default();
        install(&required, &optional, codename);
    }
    let (optional, required) = missing();
    if !optional.is_empty() {
        println!("warning: going on without {}", optional.join(" "));
    }
    if !required.is_empty() {
        bail!("missing: {}", required.join(" "));
    }
    Ok(())
}

/// The missing packages: the optional ones, the required ones.
fn missing() -> (Vec<&'static str>, Vec<&'static str>) {
    let (optional, required): (Vec<&Package>, Vec<&Package>) = PACKAGES
        .iter()
        .filter(|package| package.is_missing())
        .partition(|package| package.optional);
    let names = |packages: Vec<&Package>| packages.iter().map(|package| package.name).collect();
    (names(optional), names(required))
}

fn is_root() -> Result<bool> {
    Ok(capture(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Installs what can be had. Failures are told and left to the check afterwards:
/// a mirror that is away for a moment must not hide that everything is there.
fn install(required: &[&str], optional: &[&str], codename: &str) {
    let tell = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            println!("warning: {what}: {error:#}");
        }
    };
    tell("apt-get update", run_command(apt_get().arg("update")));
    if !required.is_empty() {
        tell(
            "required packages",
            run_command(apt_get().args(INSTALL).args(required)),
        );
    }
    for package in optional {
        let result = match needs_backports() {
            Ok(true) => install_from_backports(package, codename),
            Ok(false) => run_command(apt_get().args(INSTALL).arg(package)),
            Err(error) => Err(error),
        };
        tell(package, result);
    }
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

/// Whether the installed qemu-utils is newer than the emulator apt would take.
/// The two conflict across major versions, and apt would settle that by removing
/// qemu-utils; both have to come from the same place.
fn needs_backports() -> Result<bool> {
    let mut query = Command::new("dpkg-query");
    let Ok(installed) = capture(query.args(["-W", "-f", "${Version}", "qemu-utils"])) else {
        return Ok(false);
    };
    let mut query = Command::new("apt-cache");
    let policy = capture(query.env("LC_ALL", "C").args(["policy", SYSTEM]))?;
    let Some(candidate) = candidate_version(&policy) else {
        return Ok(true);
    };
    Ok(succeeds(Command::new("dpkg").args([
        "--compare-versions",
        &installed,
        "gt",
        candidate,
    ])))
}

/// Installs `package` from the release's backports through a list of sources, a
/// state and a cache of our own: the machine's configuration stays as it is.
fn install_from_backports(package: &str, codename: &str) -> Result<()> {
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
            .args(["-t", &format!("{codename}-backports"), package]),
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
