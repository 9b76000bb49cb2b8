//! The program as a user runs it on a repository in a bucket, and a folder that it backs up.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::server::Endpoint;
use crate::bench::random::Random;
use crate::shell::{capture, run};

/// The guest.
const GUEST: &str = "web";

pub(crate) struct Client {
    programs: PathBuf,
    folder: PathBuf,
    endpoint: Endpoint,
    bucket: String,
    random: Random,
}

impl Client {
    /// Makes the repository in a bucket that is there and empty; keys and the tree are in `folder`,
    /// which is made.
    pub(crate) fn new(
        programs: &Path,
        folder: &Path,
        endpoint: &Endpoint,
        bucket: &str,
    ) -> Result<Self> {
        let client = Self {
            programs: programs.to_owned(),
            folder: folder.to_owned(),
            endpoint: endpoint.clone(),
            bucket: bucket.to_owned(),
            random: Random(1),
        };
        fs::create_dir_all(client.tree())?;
        let mut init = client.command(&["init", "--new-key-file", "key"]);
        capture(
            init.env_remove("SNAPKEEP_KEY_FILE")
                .args(["--write-recovery-kit", "kit"]),
        )?;
        Ok(client)
    }

    /// The program with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("snapkeep"));
        command
            .args(args)
            .current_dir(&self.folder)
            .env("SNAPKEEP_REPOSITORY", self.endpoint.location(&self.bucket))
            .env("SNAPKEEP_KEY_FILE", "key")
            .env("SNAPKEEP_CACHE", self.folder.join("cache"))
            .env("SNAPKEEP_STATE", self.folder.join("state"))
            .env("AWS_ACCESS_KEY_ID", self.endpoint.access)
            .env("AWS_SECRET_ACCESS_KEY", self.endpoint.secret);
        command
    }

    /// What it prints as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let printed = capture(&mut self.command(&[args, &["--json"]].concat()))?;
        serde_json::from_str(&printed).with_context(|| format!("no JSON: {printed}"))
    }

    fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Writes so many files of a mebibyte of bytes that nothing makes smaller.
    pub(crate) fn write_files(&mut self, numbers: std::ops::Range<usize>) -> Result<()> {
        for number in numbers {
            let mut bytes = Vec::with_capacity(1 << 20);
            while bytes.len() < 1 << 20 {
                bytes.extend_from_slice(&self.random.next().to_le_bytes());
            }
            fs::write(self.tree().join(format!("{number:05}")), bytes)?;
        }
        Ok(())
    }

    /// The command that backs the folder up.
    pub(crate) fn back_up(&self) -> Command {
        let backup = ["backup", "container", "--guest", GUEST];
        self.command(&[&backup[..], &["--directory", "tree", "--json"]].concat())
    }

    /// The command that restores the newest archive to a folder.
    pub(crate) fn restore(&self, to: &str) -> Command {
        self.command(&["restore", "container", GUEST, "--to", to])
    }

    /// Compares what was restored, and removes it.
    pub(crate) fn compare(&self, restored: &str) -> Result<()> {
        let restored = self.folder.join(restored);
        let mut diff = Command::new("diff");
        run(diff.arg("-r").arg(self.tree()).arg(&restored))
            .context("what was restored is not what was backed up")?;
        fs::remove_dir_all(restored)?;
        Ok(())
    }
}
