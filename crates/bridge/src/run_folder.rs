//! Folders for what is mounted, each of a process that lives.

use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits;
use crate::process::start_time;

/// A folder of this process, for root alone, with folders to mount at.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    next: u64,
}

impl RunFolder {
    /// Makes one, and removes those of processes that are gone, with what they left mounted.
    pub(crate) fn new(base: &Path) -> Result<Self> {
        let failed = |e: io::Error| {
            let what = format!("no folder can be made in {}", base.display());
            Error::with_source(ErrorKind::Target, what, e)
        };
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        match builder.create(base) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => check(base)?,
        }
        remove_stale(base).map_err(failed)?;
        let own = std::process::id();
        let start = start_time(own).ok_or_else(|| failed(io::Error::other("/proc is missing")))?;
        let mut random = [0; 8];
        let urandom = fs::File::open("/dev/urandom");
        urandom
            .and_then(|mut file| file.read_exact(&mut random))
            .map_err(failed)?;
        let random = u64::from_le_bytes(random);
        let path = base.join(format!("{own}-{start}-{random:016x}"));
        builder.create(&path).map_err(failed)?;
        Ok(Self { path, next: 0 })
    }

    /// Makes a folder to mount at.
    pub(crate) fn mount_point(&mut self) -> Result<PathBuf> {
        let path = self.path.join(self.next.to_string());
        self.next += 1;
        DirBuilder::new().mode(0o700).create(&path).map_err(|e| {
            let what = format!("{} cannot be made", path.display());
            Error::with_source(ErrorKind::Target, what, e)
        })?;
        Ok(path)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Whoever makes the next one removes what is left.
        fs::remove_dir(&self.path).ok();
    }
}

/// Others must not be able to put anything in the way.
fn check(base: &Path) -> Result<()> {
    let unusable = |why: &str| {
        let what = format!("{} cannot be used: {why}", base.display());
        Error::new(ErrorKind::Invalid, what)
    };
    let found = fs::symlink_metadata(base).map_err(|e| {
        let what = format!("{} cannot be looked at", base.display());
        let kind = if e.kind() == io::ErrorKind::NotFound {
            ErrorKind::NotFound
        } else {
            ErrorKind::Target
        };
        Error::with_source(kind, what, e)
    })?;
    if !found.is_dir() {
        return Err(unusable("it is no folder"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(unusable("it is another user's"));
    }
    if found.mode() & 0o022 != 0 {
        return Err(unusable("others may write in it"));
    }
    Ok(())
}

/// A folder of a process that served the plugin for Proxmox VE.
#[derive(Clone, Debug)]
pub struct FoundFolder {
    /// Where it is.
    pub path: PathBuf,
    /// The process, as the folder's name tells.
    pub process: u32,
    /// Whether that process lives.
    pub lives: bool,
}

/// The folders in the run folder of a storage, of the living and the dead. `Invalid` if others could
/// have put something in the way; `NotFound` if there is no such folder.
pub fn run_folders(base: &Path) -> Result<Vec<FoundFolder>> {
    check(base)?;
    found(base).map_err(|e| {
        let what = format!("{} cannot be looked at", base.display());
        Error::with_source(ErrorKind::Target, what, e)
    })
}

/// Removes the folder of a process that is gone, with what it left mounted. Only empty folders and
/// mounts that nobody serves are removed: an error names what is left.
pub fn remove_run_folder(folder: &FoundFolder) -> Result<()> {
    let path = &folder.path;
    let failed = |e: io::Error| {
        let what = format!("{} is not removed", path.display());
        Error::with_source(ErrorKind::Target, what, e)
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let owner = name.and_then(owner);
    if owner.is_none_or(|(id, start)| start_time(id) == Some(start)) {
        return Err(failed(io::Error::other("it is of a process that lives")));
    }
    let inside = fs::read_dir(path).map_err(failed)?;
    let mut first = None;
    for target in inside.take(limits::RUN_FOLDERS_MAX) {
        let target = target.map_err(failed)?.path();
        let removed =
            snapkeep_mount::cleanup(&target).and_then(|_| fs::remove_dir(target).map_err(failed));
        first = first.or(removed.err());
    }
    match first {
        Some(e) => Err(e),
        None => fs::remove_dir(path).map_err(failed),
    }
}

fn found(base: &Path) -> io::Result<Vec<FoundFolder>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(base)?.take(limits::RUN_FOLDERS_MAX) {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner);
        if let Some((process, start)) = owner {
            found.push(FoundFolder {
                path: entry.path(),
                process,
                lives: start_time(process) == Some(start),
            });
        }
    }
    Ok(found)
}

fn remove_stale(base: &Path) -> io::Result<()> {
    for folder in found(base)?.iter().filter(|folder| !folder.lives) {
        // What is still in use in some way is tried again the next time.
        remove_run_folder(folder).ok();
    }
    Ok(())
}

/// The process that a folder is named after, and its start.
fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.split('-');
    let owner = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (parts.next()?.len() == 16 && parts.next().is_none()).then_some(owner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("run");
        drop(RunFolder::new(&base).unwrap());
        assert_eq!(fs::metadata(&base).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
        for mode in [0o777, 0o770, 0o702] {
            fs::set_permissions(&base, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                RunFolder::new(&base).unwrap_err().kind(),
                ErrorKind::Invalid
            );
        }
        let link = folder.path().join("link");
        symlink(folder.path(), &link).unwrap();
        assert!(RunFolder::new(&link).is_err());
    }

    #[test]
    fn folders_of_the_dead_are_removed_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("run");
        let mut living = RunFolder::new(&base).unwrap();
        living.mount_point().unwrap();
        let own = std::process::id();
        let random = "0011223344556677";
        let dead = [format!("{own}-1-{random}"), format!("4194305-1-{random}")];
        for name in &dead {
            fs::create_dir_all(base.join(name).join("0")).unwrap();
        }
        for name in ["other", "1-2", &format!("{own}-1-{random}-1")] {
            fs::create_dir(base.join(name)).unwrap();
        }
        let full = base.join(format!("4194305-2-{random}"));
        fs::create_dir(&full).unwrap();
        fs::write(full.join("file"), "somebody's").unwrap();
        drop(RunFolder::new(&base).unwrap());
        for name in &dead {
            assert!(!base.join(name).exists(), "{name}");
        }
        assert!(full.join("file").exists());
        assert_eq!(fs::read_dir(&base).unwrap().count(), 5);
        assert!(living.path.join("0").exists());
    }
}
