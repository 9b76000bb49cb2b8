//! The programs that are compared, and a repository of one of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::measure::{Cost, measure};
use crate::shell::{capture, succeeds};

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Snapkeep,
    Restic,
    Borg,
    Rustic,
    /// `tar` and `zstd`, which make an archive of their own each time.
    Tar,
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Snapkeep => "snapkeep",
            Self::Restic => "restic",
            Self::Borg => "borg",
            Self::Rustic => "rustic",
            Self::Tar => "tar and zstd",
        }
    }

    /// What is not there, in the words of a shell.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let there = |program: &mut Command, argument| succeeds(program.arg(argument));
        let named = |name| there(&mut Command::new(name), "--version");
        match self {
            Self::Snapkeep => None,
            Self::Restic => (!there(&mut Command::new("restic"), "version")).then_some("restic"),
            Self::Borg => (!named("borg")).then_some("borg"),
            Self::Rustic => (!there(&mut rustic(), "--version")).then_some("rustic"),
            Self::Tar => ["tar", "zstd", "bash"]
                .into_iter()
                .find(|name| !named(name)),
        }
    }

    /// What the program says of its version.
    pub(crate) fn version(self) -> Result<String> {
        let text = match self {
            Self::Snapkeep => {
                let mut git = Command::new("git");
                git.current_dir(crate::shell::root());
                let commit = capture(git.args(["describe", "--always", "--dirty", "--abbrev=12"]));
                format!("commit {}", commit.unwrap_or_else(|_| "unknown".to_owned()))
            }
            Self::Restic => capture(Command::new("restic").arg("version"))?,
            Self::Borg => capture(Command::new("borg").arg("--version"))?,
            Self::Rustic => capture(rustic().arg("--version"))?,
            Self::Tar => {
                let tar = capture(Command::new("tar").arg("--version"))?;
                let zstd = capture(Command::new("zstd").arg("--version"))?;
                let first = tar.lines().next().unwrap_or_default();
                format!("{first}; {}", zstd.trim().trim_matches(['*', ' ']))
            }
        };
        Ok(text.trim().to_owned())
    }
}

/// rustic, from where cargo installs it if it is there.
pub(crate) fn rustic() -> Command {
    let cargo = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(Path::new(&home).join(".cargo"))
        });
    let installed = cargo.map(|cargo| cargo.join("bin/rustic"));
    let program = installed.filter(|program| program.exists());
    Command::new(program.unwrap_or_else(|| "rustic".into()))
}

/// A program's repository with its keys, in a folder of its own.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    program: Program,
    /// Where our programs are.
    programs: &'a Path,
    folder: PathBuf,
}

impl<'a> Place<'a> {
    /// Makes an empty repository, encrypted where the program can.
    pub(crate) fn create(program: Program, programs: &'a Path, folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(folder.join("place"))?;
        std::fs::write(folder.join("password"), "benchmark\n")?;
        let made = Self {
            program,
            programs,
            folder,
        };
        let mut command = made.command();
        match program {
            Program::Snapkeep => {
                command.env_remove("SNAPKEEP_KEY_FILE").arg("init");
                command.arg("--new-key-file").arg(made.folder.join("key"));
                let kit = made.folder.join("kit");
                command.arg("--write-recovery-kit").arg(kit);
            }
            Program::Restic | Program::Rustic => {
                command.arg("init");
            }
            Program::Borg => {
                command.args(["init", "-e", "repokey-blake2"]);
            }
            Program::Tar => return Ok(made),
        }
        made.measure(&command)?;
        Ok(made)
    }

    /// A copy of it that is in another folder.
    pub(crate) fn at(&self, folder: PathBuf) -> Self {
        Self { folder, ..*self }
    }

    /// One of our programs.
    pub(crate) fn ours(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The repository itself.
    pub(crate) fn repository(&self) -> PathBuf {
        self.folder.join("place")
    }

    /// The program, told where its repository and its key are.
    pub(crate) fn command(&self) -> Command {
        let mut command = match self.program {
            Program::Snapkeep => Command::new(self.ours("snapkeep")),
            Program::Restic => Command::new("restic"),
            Program::Borg => Command::new("borg"),
            Program::Rustic => rustic(),
            Program::Tar => Command::new("bash"),
        };
        let folder = |name: &str| self.folder.join(name);
        command
            .env("SNAPKEEP_REPOSITORY", self.repository())
            .env("SNAPKEEP_KEY_FILE", folder("key"))
            .env("RESTIC_REPOSITORY", self.repository())
            .env("RESTIC_PASSWORD_FILE", folder("password"))
            .env("RESTIC_CACHE_DIR", folder("cache"))
            .env("RUSTIC_REPOSITORY", self.repository())
            .env("RUSTIC_PASSWORD_FILE", folder("password"))
            .env("RUSTIC_CACHE_DIR", folder("cache"))
            .env("RUSTIC_NO_PROGRESS", "true")
            .env("BORG_REPO", self.repository())
            .env("BORG_PASSPHRASE", "")
            .env("BORG_BASE_DIR", folder("base"))
            // A copy is at another place, and that is no attack.
            .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes");
        command
    }

    /// Runs one of its commands; the cost and what was printed.
    pub(crate) fn measure(&self, command: &Command) -> Result<(Cost, String)> {
        measure(command, &self.folder)
    }

    /// Bytes in the repository's files.
    pub(crate) fn stored(&self) -> Result<u64> {
        let mut du = Command::new("du");
        du.args(["-sb", "--apparent-size"]).arg(self.repository());
        let text = capture(&mut du)?;
        let number = (text.split_whitespace().next()).context("du printed nothing")?;
        Ok(number.parse()?)
    }
}
