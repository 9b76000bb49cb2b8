//! The newest commit: what a package's version and all its times are made of.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell::capture;

#[derive(Clone, Debug)]
pub(super) struct Commit {
    /// When, in seconds since 1970.
    pub(super) epoch: u64,
    /// When, as `20261130.061035`, in UTC.
    stamp: String,
    /// When, as a mail's header has it.
    pub(super) date: String,
}

impl Commit {
    pub(super) fn newest(project: &Path) -> Result<Self> {
        // A checkout may belong to somebody else than who makes the package.
        let format = "--format=%ct%n%cd";
        let told = capture(
            Command::new("git")
                .args([
                    "-c",
                    "safe.directory=*",
                    "log",
                    "-1",
                    "--date=format-local:%Y%m%d.%H%M%S",
                ])
                .arg(format)
                .env("TZ", "UTC")
                .current_dir(project),
        )
        .context(
            "a package is made from a checkout of Git, whose newest commit gives it its times",
        )?;
        let (epoch, stamp) = told
            .trim()
            .split_once('\n')
            .context("git log tells no time")?;
        let date = capture(
            Command::new("date")
                .args(["--utc", "--rfc-email", &format!("--date=@{epoch}")])
                .env("LC_ALL", "C"),
        )?;
        Ok(Self {
            epoch: epoch.parse().context("git log tells no time")?,
            stamp: stamp.to_owned(),
            date: date.trim().to_owned(),
        })
    }

    /// The package's version: that of the program, and a revision that is older than what Debian
    /// itself would have, and newer for each newer commit.
    pub(super) fn version(&self, program: &str) -> String {
        format!("{program}-0git{}", self.stamp)
    }
}
