//! The tools side by side: how each does what the benchmark asks for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::export::Export;
use super::guest::Guest;
use crate::bench::measure::Cost;
use crate::bench::programs::{Place, Program};
use crate::shell::run;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tool {
    /// Ours, backing up the disk of a QEMU.
    Snapkeep,
    /// Ours, reading the image by a file handle, as the others do.
    SnapkeepFile,
    Restic,
    Borg,
    /// borg with chunks of a fixed size, as its documentation advises for disk images.
    BorgFixed,
}

impl Tool {
    pub(crate) const ALL: [Self; 5] = [
        Self::Snapkeep,
        Self::SnapkeepFile,
        Self::Restic,
        Self::Borg,
        Self::BorgFixed,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Snapkeep => "snapkeep",
            Self::SnapkeepFile => "snapkeep, file handle",
            Self::Restic => "restic",
            Self::Borg => "borg",
            Self::BorgFixed => "borg, fixed chunks",
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Snapkeep | Self::SnapkeepFile)
    }

    /// Whose program it is.
    pub(crate) fn program(self) -> Program {
        match self {
            Self::Snapkeep | Self::SnapkeepFile => Program::Snapkeep,
            Self::Restic => Program::Restic,
            Self::Borg | Self::BorgFixed => Program::Borg,
        }
    }
}

/// What a backup reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// A raw image; its name is the same in both generations.
    pub(crate) raw: &'a Path,
    pub(crate) size: u64,
}

/// One tool's repository, in a folder of its own.
#[derive(Debug)]
pub(crate) struct Repository<'a> {
    tool: Tool,
    place: Place<'a>,
    /// The name of each archive that was made, in order.
    archives: Vec<String>,
}

impl<'a> Repository<'a> {
    /// Makes an empty one.
    pub(crate) fn create(tool: Tool, programs: &'a Path, folder: PathBuf) -> Result<Self> {
        Ok(Self {
            tool,
            place: Place::create(tool.program(), programs, folder)?,
            archives: Vec::new(),
        })
    }

    /// A copy of one of ours that can be written to: its files are linked, for each is written
    /// only once.
    pub(crate) fn copy(&self, folder: PathBuf) -> Result<Self> {
        let mut copy = Command::new("cp");
        run(copy.arg("-al").args([self.place.folder(), &folder]))?;
        Ok(Self {
            tool: self.tool,
            place: self.place.at(folder),
            archives: self.archives.clone(),
        })
    }

    /// Removes it.
    pub(crate) fn remove(self) -> Result<()> {
        let folder = self.place.folder();
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("could not remove {}", folder.display()))
    }

    /// The tool's program, told where its repository and its key are.
    pub(crate) fn command(&self) -> Command {
        self.place.command()
    }

    /// Opens the repository and lists it: what every other figure includes, mostly the stretching
    /// of the passphrase where there is one.
    pub(crate) fn open(&self) -> Result<Cost> {
        let mut command = self.command();
        command.arg(match self.tool {
            Tool::Snapkeep | Tool::SnapkeepFile | Tool::Borg | Tool::BorgFixed => "list",
            Tool::Restic => "snapshots",
        });
        self.place.measure(&command).map(|(cost, _)| cost)
    }

    /// Backs up by reading the whole disk.
    pub(crate) fn back_up(&mut self, source: Source<'_>) -> Result<Cost> {
        let name = format!("archive-{}", self.archives.len());
        let mut command = self.command();
        match self.tool {
            Tool::Snapkeep => {
                let guest = Guest::start(source.raw, self.place.folder())?;
                let cost = self.back_up_guest(&guest, false)?;
                guest.quit()?;
                return Ok(cost);
            }
            Tool::SnapkeepFile => {
                return self
                    .back_up_ours("file", source.raw, source.size, None)
                    .map(|(cost, _)| cost);
            }
            Tool::Restic => {
                // Without --force a file with an old date is not read.
                command
                    .args(["backup", "--quiet", "--force"])
                    .arg(source.raw);
            }
            Tool::Borg | Tool::BorgFixed => {
                command.args(["create", "--files-cache=disabled"]);
                if self.tool == Tool::BorgFixed {
                    command.args(["--chunker-params", "fixed,262144"]);
                }
                command.arg(format!("::{name}")).arg(source.raw);
            }
        }
        let (cost, _) = self.place.measure(&command)?;
        self.archives.push(name);
        Ok(cost)
    }

    /// Backs up a QEMU's disk, all of it or only what changed since the last backup.
    pub(crate) fn back_up_guest(&mut self, guest: &Guest, incremental: bool) -> Result<Cost> {
        let mut command = self.command();
        command.args(["--json", "backup", "vm", "--guest", "100", "--fleecing"]);
        command
            .arg(self.place.folder())
            .arg("--qmp")
            .arg(guest.socket());
        let before = guest.processor_seconds()?;
        let (mut cost, printed) = self.place.measure(&command)?;
        cost.served_s = guest.processor_seconds()? - before;
        let report: serde_json::Value = serde_json::from_str(&printed)?;
        ensure!(
            report["disks"][0]["incremental"] == incremental,
            "the backup was not what is measured: {printed}"
        );
        let archive = report["archive"].as_str();
        self.archives
            .push(archive.context("no archive is named")?.to_owned());
        Ok(cost)
    }

    /// Backs up an image: all of it, or what its dirty bitmap names relative to the last archive.
    /// Also what the program printed.
    pub(crate) fn back_up_image(
        &mut self,
        image: &Path,
        size: u64,
        bitmap: Option<&str>,
    ) -> Result<(Cost, String)> {
        let export = Export::serve(image, "qcow2", bitmap, self.place.folder())?;
        let done = self.back_up_ours("nbd", export.socket(), size, bitmap)?;
        export.finish()?;
        Ok(done)
    }

    /// The name of the last archive.
    pub(crate) fn last(&self) -> Result<&str> {
        let last = self.archives.last().context("there is no archive")?;
        Ok(last)
    }

    fn back_up_ours(
        &mut self,
        mechanism: &str,
        place: &Path,
        size: u64,
        bitmap: Option<&str>,
    ) -> Result<(Cost, String)> {
        let mut command = Command::new(self.place.ours("examples/back_up"));
        command
            .arg(self.place.repository())
            .arg(self.place.folder().join("key"));
        command.arg(mechanism).arg(place).arg(size.to_string());
        if let Some(bitmap) = bitmap {
            let base = self
                .archives
                .last()
                .context("an incremental backup needs a base")?;
            command.arg(base).arg(bitmap);
        }
        let (cost, printed) = self.place.measure(&command)?;
        let archive = printed
            .lines()
            .find_map(|line| line.strip_prefix("archive "))
            .context("back_up names no archive")?;
        self.archives.push(archive.to_owned());
        Ok((cost, printed))
    }

    /// Restores the last archive's disk to a file in a new folder; the file.
    pub(crate) fn restore(&self, source: Source<'_>, to: &Path) -> Result<(Cost, PathBuf)> {
        std::fs::create_dir_all(to)?;
        let last = self
            .archives
            .last()
            .context("there is nothing to restore")?;
        let inside = source.raw.strip_prefix("/").unwrap_or(source.raw);
        let mut file = to.join(inside);
        let mut command = self.command();
        match self.tool {
            Tool::Snapkeep | Tool::SnapkeepFile => {
                file = to.join("disk.raw");
                command.args(["restore", "vm", last, "--to"]).arg(&file);
            }
            Tool::Restic => {
                command
                    .args(["restore", "--quiet", "latest", "--target"])
                    .arg(to);
            }
            Tool::Borg | Tool::BorgFixed => {
                command
                    .arg("extract")
                    .arg(format!("::{last}"))
                    .current_dir(to);
            }
        }
        let (cost, _) = self.place.measure(&command)?;
        Ok((cost, file))
    }

    /// Reads and checks everything that is stored.
    pub(crate) fn verify(&self) -> Result<Cost> {
        let mut command = self.command();
        match self.tool {
            Tool::Snapkeep | Tool::SnapkeepFile => command.arg("verify"),
            Tool::Restic => command.args(["check", "--read-data"]),
            Tool::Borg | Tool::BorgFixed => command.args(["check", "--verify-data"]),
        };
        self.place.measure(&command).map(|(cost, _)| cost)
    }

    /// Bytes in the repository's files.
    pub(crate) fn stored(&self) -> Result<u64> {
        self.place.stored()
    }
}
