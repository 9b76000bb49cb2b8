//! Snapshots of a container's root file system: by Btrfs, by a clone of its disk image, or by a hook
//! program.

mod btrfs;
mod hook;
mod image;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags};
use serde::{Deserialize, Serialize};
use snapkeep_api::{Cancel, Result, TaskLog};

use super::limits::Timeouts;
use super::lock::Lock;

pub(super) use btrfs::Btrfs;
pub(super) use hook::Hook;
pub(super) use image::Image;

/// How the names of our snapshots begin.
const PREFIX: &str = ".snapkeep-snapshot-";

/// A snapshot that is to be made, or is there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub(super) enum Snapshot {
    Btrfs(Btrfs),
    Hook(Hook),
    Image(Image),
}

impl Snapshot {
    /// Makes it; where the root file system is in it.
    pub(super) fn make(
        &self,
        lock: &Lock,
        times: &Timeouts,
        log: &dyn TaskLog,
        cancel: &Cancel,
    ) -> Result<PathBuf> {
        match self {
            Self::Btrfs(btrfs) => btrfs.make(lock.stdin(), times, log),
            Self::Hook(hook) => hook.make(lock.stdin(), times, cancel),
            Self::Image(image) => image.make(lock, times, log, cancel),
        }
    }

    /// Deletes it, if it is there. What is not what was made is let alone.
    pub(super) fn delete(&self, lock: &Lock, times: &Timeouts, log: &dyn TaskLog) -> Result<()> {
        match self {
            Self::Btrfs(btrfs) => btrfs.delete(lock.stdin(), times, log),
            Self::Hook(hook) => hook.delete(lock.stdin(), times),
            Self::Image(image) => image.delete(lock, times, log),
        }
    }

    /// Whether the container may stand still until this is taken back.
    pub(super) fn may_stand_still(&self) -> bool {
        matches!(self, Self::Image(image) if image.may_be_frozen())
    }

    /// For messages.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Btrfs(btrfs) => format!("snapshot {}", super::lines::shown_path(btrfs.path())),
            Self::Image(image) => format!("snapshot {}", super::lines::shown_path(image.path())),
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

/// Whether nobody else can move what is in a folder.
fn is_roots(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|about| {
        let group = about.gid() == 0 || about.mode() & 0o020 == 0;
        about.uid() == 0 && group && about.mode() & 0o002 == 0
    })
}

/// In which mount a folder is.
fn mount(path: &Path) -> Option<u64> {
    let flags = AtFlags::NO_AUTOMOUNT;
    let about = rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::MNT_ID).ok()?;
    (about.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(about.stx_mnt_id)
}
