//! The tools side by side: how each does it with a bucket.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::bench::disk::guest::Guest;
use crate::bench::measure::{Cost, measure};
use crate::bench::programs::{Program, rustic};
use crate::s3::server::Endpoint;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tool {
    Snapkeep,
    Restic,
    Rustic,
}

impl Tool {
    pub(super) const ALL: [Self; 3] = [Self::Snapkeep, Self::Restic, Self::Rustic];

    pub(super) fn name(self) -> &'static str {
        self.program().name()
    }

    pub(super) fn program(self) -> Program {
        match self {
            Self::Snapkeep => Program::Snapkeep,
            Self::Restic => Program::Restic,
            Self::Rustic => Program::Rustic,
        }
    }

    /// What was set for it.
    pub(super) fn settings(self) -> &'static str {
        match self {
            Self::Snapkeep => "with the settings it comes with; of the disk of a QEMU",
            Self::Restic => "`-o s3.connections=32` instead of 5",
            Self::Rustic => "with the settings it comes with",
        }
    }
}

/// One tool's repository in a bucket of its own.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    tool: Tool,
    programs: &'a Path,
    folder: PathBuf,
    endpoint: Endpoint,
    bucket: String,
}

impl<'a> Repository<'a> {
    /// Makes an empty one in a bucket that is there.
    pub(super) fn create(
        tool: Tool,
        programs: &'a Path,
        folder: PathBuf,
        endpoint: &Endpoint,
        bucket: &str,
    ) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("password"), "benchmark\n")?;
        let made = Self {
            tool,
            programs,
            folder,
            endpoint: endpoint.clone(),
            bucket: bucket.to_owned(),
        };
        std::fs::write(made.folder.join("rustic.toml"), made.rustic_profile())?;
        let mut command = made.command();
        command.arg("init");
        if tool == Tool::Snapkeep {
            command.env_remove("SNAPKEEP_KEY_FILE");
            command.arg("--new-key-file").arg(made.folder.join("key"));
            let kit = made.folder.join("kit");
            command.arg("--write-recovery-kit").arg(kit);
        }
        made.measure(&command)?;
        Ok(made)
    }

    fn rustic_profile(&self) -> String {
        let Endpoint {
            address,
            region,
            access,
            secret,
        } = &self.endpoint;
        format!(
            "[repository]\nrepository = \"opendal:s3\"\n[repository.options]\nbucket = \"{}\"\nroot = \"/\"\n\
             endpoint = \"http://{address}\"\nregion = \"{region}\"\naccess_key_id = \"{access}\"\n\
             secret_access_key = \"{secret}\"\n",
            self.bucket
        )
    }

    fn command(&self) -> Command {
        let mut command = match self.tool {
            Tool::Snapkeep => Command::new(self.programs.join("snapkeep")),
            Tool::Restic => Command::new("restic"),
            Tool::Rustic => rustic(),
        };
        let folder = |name: &str| self.folder.join(name);
        let Endpoint {
            address,
            region,
            access,
            secret,
        } = &self.endpoint;
        command
            .env("AWS_ACCESS_KEY_ID", access)
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env("AWS_DEFAULT_REGION", region)
            .env("SNAPKEEP_REPOSITORY", self.endpoint.location(&self.bucket))
            .env("SNAPKEEP_KEY_FILE", folder("key"))
            .env("SNAPKEEP_CACHE", folder("cache"))
            .env("SNAPKEEP_STATE", folder("state"))
            .env(
                "RESTIC_REPOSITORY",
                format!("s3:http://{address}/{}", self.bucket),
            )
            .env("RESTIC_PASSWORD_FILE", folder("password"))
            .env("RESTIC_CACHE_DIR", folder("cache"))
            .env("RUSTIC_PASSWORD_FILE", folder("password"))
            .env("RUSTIC_CACHE_DIR", folder("cache"))
            .env("RUSTIC_NO_PROGRESS", "true");
        match self.tool {
            Tool::Snapkeep => {}
            Tool::Restic => {
                command.args(["-o", "s3.connections=32"]);
            }
            Tool::Rustic => {
                command.arg("--use-profile").arg(folder("rustic"));
            }
        }
        command
    }

    fn measure(&self, command: &Command) -> Result<(Cost, String)> {
        measure(command, &self.folder)
    }

    /// Backs up by reading the whole disk.
    pub(super) fn back_up(&self, raw: &Path) -> Result<Cost> {
        let mut command = self.command();
        match self.tool {
            Tool::Snapkeep => {
                let guest = self.guest(raw)?;
                let cost = self.back_up_guest(&guest, false)?;
                guest.quit()?;
                return Ok(cost);
            }
            Tool::Restic => {
                // Without --force a file with an old date is not read.
                command.args(["backup", "--quiet", "--force"]).arg(raw);
            }
            Tool::Rustic => {
                command.args(["backup", "--force"]).arg(raw);
            }
        }
        self.measure(&command).map(|(cost, _)| cost)
    }

    /// A QEMU that has this disk.
    pub(super) fn guest(&self, raw: &Path) -> Result<Guest> {
        Guest::start(raw, &self.folder)
    }

    /// Backs up a QEMU's disk, all of it or only what changed since the last backup.
    pub(super) fn back_up_guest(&self, guest: &Guest, incremental: bool) -> Result<Cost> {
        let mut command = self.command();
        command.args(["--json", "backup", "vm", "--guest", "100", "--fleecing"]);
        command.arg(&self.folder).arg("--qmp").arg(guest.socket());
        let (cost, printed) = self.measure(&command)?;
        let report: serde_json::Value = serde_json::from_str(&printed)?;
        ensure!(
            report["disks"][0]["incremental"] == incremental,
            "the backup was not what is measured: {printed}"
        );
        Ok(cost)
    }

    /// Restores the last archive's disk to a file in a new folder; the file.
    pub(super) fn restore(&self, raw: &Path, to: &Path) -> Result<(Cost, PathBuf)> {
        std::fs::create_dir_all(to)?;
        let inside = raw
            .strip_prefix("/")
            .context("the image has no whole path")?;
        let mut file = to.join(inside);
        let mut command = self.command();
        match self.tool {
            Tool::Snapkeep => {
                file = to.join("disk.raw");
                command.args(["restore", "vm", "100", "--to"]).arg(&file);
            }
            Tool::Restic => {
                command
                    .args(["restore", "--quiet", "latest", "--target"])
                    .arg(to);
            }
            Tool::Rustic => {
                command.args(["restore", "latest"]).arg(to);
            }
        }
        let (cost, _) = self.measure(&command)?;
        Ok((cost, file))
    }
}
