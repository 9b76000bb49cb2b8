//! A read-only snapshot of the Btrfs subvolume in which a root file system is.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use snapkeep_api::{Error, ErrorKind, Level, Result, TaskLog};

use crate::container::command::run;
use crate::container::limits::{NESTED_TOLD_MAX, Timeouts};
use crate::container::lines::{shown, shown_path};

use super::{PREFIX, is_roots, mount};

/// `BTRFS_SUPER_MAGIC` of Linux.
const MAGIC: i64 = 0x9123_683E;
/// The inode of every subvolume's root (`BTRFS_FIRST_FREE_OBJECTID`).
const ROOT_INODE: u64 = 256;

/// A snapshot of one subvolume.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::container) struct Btrfs {
    /// The subvolume.
    subvolume: PathBuf,
    /// Its UUID, which the snapshot has as its parent's.
    uuid: String,
    /// Where the snapshot is.
    path: PathBuf,
    /// The root file system in the subvolume.
    below: PathBuf,
}

impl Btrfs {
    /// The snapshot to make of a root file system; why not, if it cannot be.
    pub(in crate::container) fn new(
        rootfs: &Path,
        id: &str,
        stdin: Stdio,
        times: &Timeouts,
    ) -> Result<Self> {
        let cannot = |why: &str| {
            let what = format!("no Btrfs snapshot of {}: {why}", shown_path(rootfs));
            Error::new(ErrorKind::Unsupported, what)
        };
        let rootfs = super::real(rootfs).map_err(|e| cannot(&e.to_string()))?;
        if rootfs.to_str().is_none() {
            return Err(cannot("its path is not UTF-8"));
        }
        let is_btrfs = rustix::fs::statfs(&rootfs).is_ok_and(|about| about.f_type == MAGIC);
        if !is_btrfs {
            return Err(cannot("it is on another file system"));
        }
        let Some(subvolume) = (rootfs.ancestors()).find(|path| inode(path) == Some(ROOT_INODE))
        else {
            return Err(cannot("it is in no subvolume that can be seen"));
        };
        if device(subvolume) != device(&rootfs) {
            return Err(cannot("something else is mounted on its subvolume"));
        }
        // The container's root may do what it wants in its root folder: no snapshot is kept there.
        let parent = if subvolume == rootfs {
            let parent = subvolume.parent().unwrap_or(subvolume);
            if parent == subvolume || mount(parent).is_none() || mount(parent) != mount(subvolume) {
                let why = "it is the root of a mount; a snapshot needs the folder above to be in the same mount";
                return Err(cannot(why));
            }
            parent
        } else {
            subvolume
        };
        if !is_roots(parent) {
            let why = format!("others than root may write to {}", shown_path(parent));
            return Err(cannot(&why));
        }
        let about = show(subvolume, stdin, times)?;
        let Some(uuid) = about.uuid else {
            return Err(cannot("its subvolume has no UUID"));
        };
        let name = id.trim_start_matches("snapkeep-");
        Ok(Self {
            path: parent.join(format!("{PREFIX}{name}")),
            below: rootfs
                .strip_prefix(subvolume)
                .unwrap_or(Path::new(""))
                .to_owned(),
            subvolume: subvolume.to_owned(),
            uuid,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn make(
        &self,
        stdin: Stdio,
        times: &Timeouts,
        log: &dyn TaskLog,
    ) -> Result<PathBuf> {
        let mut command = Command::new("btrfs");
        command
            .args(["subvolume", "snapshot", "-r"])
            .args([&self.subvolume, &self.path]);
        let ended = run(&mut command, stdin, times.program)?;
        if !ended.status.success() {
            let (of, why) = (shown_path(&self.subvolume), ended.why());
            let what = format!("cannot make a Btrfs snapshot of {of}: {why}");
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        self.tell_nested(times, log);
        Ok(self.path.join(&self.below))
    }

    /// Subvolumes in the subvolume are empty folders in its snapshot.
    fn tell_nested(&self, times: &Timeouts, log: &dyn TaskLog) {
        let mut command = Command::new("btrfs");
        command
            .args(["subvolume", "list", "-o"])
            .arg(&self.subvolume);
        let listed = run(&mut command, Stdio::null(), times.program);
        let Some(ended) = listed.ok().filter(|ended| ended.status.success()) else {
            let line = "cannot tell whether there are subvolumes in the container, which are not backed up";
            log.log(Level::Warn, line);
            return;
        };
        let nested = (ended.output.split(|byte| *byte == b'\n')).filter_map(|line| {
            let at = line.windows(6).position(|word| word == b" path ")?;
            Some(&line[at + 6..])
        });
        // They are told with paths from the file system's top.
        let below = shown_path(&self.below);
        let nested: Vec<String> = nested
            .map(shown)
            .filter(|path| path.contains(&below) && !path.contains(PREFIX))
            .collect();
        if !nested.is_empty() {
            let told = &nested[..nested.len().min(NESTED_TOLD_MAX)];
            let line = format!(
                "{} subvolumes in subvolume {} are not in its snapshot and not backed up: {}",
                nested.len(),
                shown_path(&self.subvolume),
                told.join(", ")
            );
            log.log(Level::Warn, &line);
        }
    }

    pub(super) fn delete(&self, stdin: Stdio, times: &Timeouts, log: &dyn TaskLog) -> Result<()> {
        let about = match std::fs::symlink_metadata(&self.path) {
            Ok(about) => about,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => {
                let what = format!("cannot look at snapshot {}", shown_path(&self.path));
                return Err(Error::with_source(ErrorKind::Unavailable, what, e));
            }
        };
        let ours = self.path.file_name().and_then(|name| name.to_str());
        let mut known = about.is_dir()
            && about.ino() == ROOT_INODE
            && ours.is_some_and(|name| name.starts_with(PREFIX));
        if known {
            let found = show(&self.path, Stdio::null(), times)?;
            known = found.parent.as_ref() == Some(&self.uuid) && found.readonly;
        }
        if !known {
            let line = format!(
                "{} is not the snapshot that a backup made there: it is let alone",
                shown_path(&self.path)
            );
            log.log(Level::Warn, &line);
            return Ok(());
        }
        let mut command = Command::new("btrfs");
        command.args(["subvolume", "delete"]).arg(&self.path);
        let ended = run(&mut command, stdin, times.program)?;
        if ended.status.success() {
            return Ok(());
        }
        let (path, why) = (shown_path(&self.path), ended.why());
        let what = format!("cannot delete snapshot {path}: {why}");
        Err(Error::new(ErrorKind::Unavailable, what))
    }
}

/// What Btrfs says of a subvolume.
#[derive(Debug, Default, Eq, PartialEq)]
struct About {
    uuid: Option<String>,
    parent: Option<String>,
    readonly: bool,
}

fn show(subvolume: &Path, stdin: Stdio, times: &Timeouts) -> Result<About> {
    let mut command = Command::new("btrfs");
    command.args(["subvolume", "show"]).arg(subvolume);
    let ended = run(&mut command, stdin, times.program)?;
    if ended.status.success() {
        return Ok(about(&String::from_utf8_lossy(&ended.output)));
    }
    let (path, why) = (shown_path(subvolume), ended.why());
    let what = format!("cannot ask about Btrfs subvolume {path}: {why}");
    Err(Error::new(ErrorKind::Unavailable, what))
}

fn about(text: &str) -> About {
    let value = |key: &str| {
        let mut values = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(key));
        values.next().map(str::trim)
    };
    let uuid = |key| {
        value(key)
            .filter(|text| text.len() == 36)
            .map(str::to_owned)
    };
    About {
        uuid: uuid("UUID:"),
        parent: uuid("Parent UUID:"),
        readonly: value("Flags:").is_some_and(|flags| flags.contains("readonly")),
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|about| about.ino())
}

fn device(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|about| about.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_btrfs_says_is_understood() {
        let text = "web\n\tName: \t\t\tweb\n\tUUID: \t\t\t2b3fd9a6-0000-4d44-8a3b-6dbd1f1a4bd1\n\
                    \tParent UUID: \t\t7b3fd9a6-0000-4d44-8a3b-6dbd1f1a4bd1\n\
                    \tReceived UUID: \t\t-\n\tFlags: \t\t\treadonly\n";
        let found = about(text);
        assert_eq!(found.uuid.unwrap(), "2b3fd9a6-0000-4d44-8a3b-6dbd1f1a4bd1");
        assert_eq!(
            found.parent.unwrap(),
            "7b3fd9a6-0000-4d44-8a3b-6dbd1f1a4bd1"
        );
        assert!(found.readonly);
        assert_eq!(
            about("\tUUID: -\n\tParent UUID: \t-\n\tFlags: \t-\n"),
            About::default()
        );
    }
}
