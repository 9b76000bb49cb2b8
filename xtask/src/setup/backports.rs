//! The backports of a Debian release, whether or not the machine is configured for them.
//!
//! apt gets a list of sources, a state and a cache of our own: the machine's
//! configuration stays as it is.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::apt::{apt_cache, apt_get, candidate, is_at_least};
use crate::shell::{Scratch, capture, run};

pub(super) struct Backports {
    folder: Scratch,
    /// Its name as a release.
    name: String,
}

impl Backports {
    /// Reads the lists of packages.
    pub(super) fn open(codename: &str) -> Result<Self> {
        let format = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)";
        let targets =
            capture(apt_get().args(["indextargets", "--format", format, "Created-By: Packages"]))?;
        let name = format!("{codename}-backports");
        let sources = sources(&targets, codename, &name).with_context(|| {
            format!(
                "apt has no list of Debian {codename}'s packages: see that its sources are \
                 configured, and that `apt-get update` reaches them"
            )
        })?;
        let folder = Scratch::new("apt")?;
        for name in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(folder.path().join(name))?;
        }
        std::fs::write(folder.path().join("sources.list"), sources)?;
        let backports = Self { folder, name };
        let mut update = apt_get();
        // Without the option it succeeds when nothing was reached.
        let update = backports
            .private(&mut update)
            .args(["--error-on=any", "update"]);
        run(update).with_context(|| {
            format!(
                "could not read the lists of packages with those of {}; apt's own words above say why",
                backports.name
            )
        })?;
        Ok(backports)
    }

    /// Makes `command` one that prefers the backports.
    pub(super) fn at<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let release = format!("APT::Default-Release={}", self.name);
        self.private(command).args(["-o", &release])
    }

    /// Fails unless they have all `packages`, with this major version or a newer one.
    pub(super) fn require(&self, packages: &[&str], floor: u64) -> Result<()> {
        for package in packages {
            let mut query = apt_cache();
            let policy = capture(self.at(&mut query).args(["policy", package]))?;
            let version = candidate(&policy);
            ensure!(
                is_at_least(version, floor),
                "with {} the newest {package} is {}, and {floor}.0 is needed",
                self.name,
                version.unwrap_or("none")
            );
        }
        Ok(())
    }

    fn private<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let path = |name: &str| self.folder.path().join(name);
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
        command
    }
}

/// The lines of a sources.list with the release's own sources and its backports,
/// from lines of `URI RELEASE COMPONENT ORIGIN`. None when the release is not
/// among them.
fn sources(targets: &str, codename: &str, backports: &str) -> Option<String> {
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
            lines.push(format!("deb {KEYS} {uri} {backports} main"));
        }
    }
    lines.sort();
    lines.dedup();
    has_release.then(|| lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::sources;

    #[test]
    fn backports_come_from_the_place_of_the_release_itself() {
        let targets = "http://a/debian/ bookworm main Debian\n\
                       http://a/security/ bookworm-security main Debian\n\
                       http://b/other/ bookworm main Somebody\n";
        let sources = sources(targets, "bookworm", "bookworm-backports").unwrap();
        assert!(sources.contains("http://a/debian/ bookworm-backports main\n"));
        assert!(sources.contains("http://a/security/ bookworm-security main\n"));
        assert!(!sources.contains("http://b/"));
        assert_eq!(sources.lines().count(), 3);
    }

    #[test]
    fn without_the_release_there_is_no_private_list() {
        assert_eq!(
            sources(
                "http://a/ trixie main Debian\n",
                "bookworm",
                "bookworm-backports"
            ),
            None
        );
    }
}
