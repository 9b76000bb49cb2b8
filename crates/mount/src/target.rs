//! The folder that something is mounted at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::mountinfo::mounted_at;

/// What our mounts are called in the kernel's list.
pub(crate) const FILE_SYSTEM: &str = "fuse.snapkeep";

/// The target's true path, if something can be mounted there: an empty folder, and no mount.
pub(crate) fn check(target: &Path) -> Result<PathBuf> {
    let path = true_path(target)?;
    if mounted_at(&path)
        .map_err(|e| unlisted(target, e))?
        .is_some()
    {
        return Err(invalid(
            target,
            if is_stale(&path) {
                "a mount whose program is gone is still there; it can be removed by umount"
            } else {
                "something is mounted there already"
            },
        ));
    }
    let unusable = |error: io::Error| {
        let what = format!("{} cannot be mounted at", shown(target));
        Error::with_source(ErrorKind::Invalid, what, error)
    };
    if !fs::metadata(&path).map_err(unusable)?.is_dir() {
        return Err(invalid(target, "it is no folder"));
    }
    if fs::read_dir(&path).map_err(unusable)?.next().is_some() {
        return Err(invalid(target, "it is not empty"));
    }
    Ok(path)
}

/// Removes the mount that a program left at this folder when it was killed; `false` if nothing is
/// mounted there. `Invalid` if something else is, or the mount is in use by a program that runs.
pub fn cleanup(target: &Path) -> Result<bool> {
    let path = true_path(target)?;
    let Some(mount) = mounted_at(&path).map_err(|e| unlisted(target, e))? else {
        return Ok(false);
    };
    if mount.file_system != FILE_SYSTEM {
        let what = format!(
            "what is mounted there is no archive but {}",
            mount.file_system
        );
        return Err(invalid(target, &what));
    }
    if !is_stale(&path) {
        return Err(invalid(
            target,
            "the program that mounted an archive there still runs",
        ));
    }
    unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(|error| {
        let what = format!("{} cannot be unmounted", shown(target));
        Error::with_source(ErrorKind::Target, what, error)
    })?;
    Ok(true)
}

/// A path for a message: on one line.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    let escaped = text.chars().map(|c| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    });
    escaped.collect()
}

/// Whether there is a mount that nobody serves any more. What `stat` says of it may still be in
/// the kernel's memory; what `statfs` says is not.
pub(crate) fn is_stale(path: &Path) -> bool {
    rustix::fs::statfs(path).map(drop) == Err(Errno::NOTCONN)
}

/// The path without links. The last name is not followed if it cannot be: a mount that nobody
/// serves cannot be looked at, but what it is in can.
fn true_path(target: &Path) -> Result<PathBuf> {
    let failed = |error: io::Error| {
        let what = format!("{} is no folder to mount at", shown(target));
        Error::with_source(ErrorKind::Invalid, what, error)
    };
    match fs::canonicalize(target) {
        Ok(path) => Ok(path),
        Err(error) if error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            let (Some(above), Some(name)) = (target.parent(), target.file_name()) else {
                return Err(failed(error));
            };
            let above = if above.as_os_str().is_empty() {
                Path::new(".")
            } else {
                above
            };
            Ok(fs::canonicalize(above).map_err(failed)?.join(name))
        }
        Err(error) => Err(failed(error)),
    }
}

fn invalid(target: &Path, why: &str) -> Error {
    let what = format!("{} cannot be used: {why}", shown(target));
    Error::new(ErrorKind::Invalid, what)
}

fn unlisted(target: &Path, error: io::Error) -> Error {
    let what = format!(
        "whether something is mounted at {} is unknown",
        shown(target)
    );
    Error::with_source(ErrorKind::Target, what, error)
}
