//! Snapshots of a container's root file system: by Btrfs, or by a hook program.

mod btrfs;
mod hook;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use snapkeep_api::{Cancel, Result, TaskLog};

use super::limits::Timeouts;

pub(super) use btrfs::Btrfs;
pub(super) use hook::Hook;

/// A snapshot that is to be made, or is there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub(super) enum Snapshot {
    Btrfs(Btrfs),
    Hook(Hook),
}

impl Snapshot {
    /// Makes it; where the root file system is in it.
    pub(super) fn make(
        &self,
        stdin: Stdio,
        times: &Timeouts,
        log: &dyn TaskLog,
        cancel: &Cancel,
    ) -> Result<PathBuf> {
        match self {
            Self::Btrfs(btrfs) => btrfs.make(stdin, times, log),
            Self::Hook(hook) => hook.make(stdin, times, cancel),
        }
    }

    /// Deletes it, if it is there. What is not what was made is let alone.
    pub(super) fn delete(&self, stdin: Stdio, times: &Timeouts, log: &dyn TaskLog) -> Result<()> {
        match self {
            Self::Btrfs(btrfs) => btrfs.delete(stdin, times, log),
            Self::Hook(hook) => hook.delete(stdin, times),
        }
    }

    /// For messages.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Btrfs(btrfs) => format!("snapshot {}", super::lines::shown_path(btrfs.path())),
            Self::Hook(hook) => format!("snapshot {}, of the hook", hook.id()),
        }
    }
}

/// A name that no other snapshot has.
pub(super) fn new_id() -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("snapkeep-{:016x}", u64::from_be_bytes(bytes)))
}

/// The folder that the hook or the mount of a container shows, without symbolic links.
fn real(path: &Path) -> std::io::Result<PathBuf> {
    path.canonicalize()
}
