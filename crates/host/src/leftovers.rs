//! The folders that dead backups left: the one of a QEMU that still has something of its backup, and
//! those of which backup and QEMU are dead, so that nothing else leads to them.
//!
//! They may be another user's, QEMU's, who may be up to no good: nothing is followed, and nothing
//! removed that no backup makes.

use std::fs::File;
use std::io::{self, ErrorKind as IoKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use snapkeep_api::{Clock, Error, ErrorKind, Level, Result, SystemClock, TaskLog};

use crate::fleecing::{FOLDER, IMAGE, LOCK, SOCKET, open_folder};
use crate::limits::{BEGINNING_SECONDS, DISKS_MAX, FOLDERS_TOLD_MAX, SWEEP_ENTRIES_MAX, SWEPT_MAX};
use crate::process::{self, Owner};
use crate::restore::lock::is_in_use;

/// The longest content of a lock, in bytes.
const LINE_MAX: u64 = 128;

/// Whether the backup that a folder belongs to still runs, which this QEMU has something of. The lock
/// of one that has it is returned to keep others out.
pub(crate) fn claim(folder: &Path, qemu: Owner) -> Result<Option<File>> {
    let failed = |e: io::Error| {
        let what = format!(
            "cannot tell whether the backup that uses {} still runs; if none does, remove that folder",
            folder.display()
        );
        Error::with_source(ErrorKind::Unavailable, what, e)
    };
    match open_folder(folder).and_then(|handle| lock(&handle)) {
        Ok(lock) => Ok(Some(lock)),
        Err(e) if e.kind() == IoKind::NotFound => check_gone(folder, qemu).map(|()| None),
        Err(e) if e.kind() == IoKind::WouldBlock => {
            let what = format!(
                "another backup of this guest is running (it uses {}): wait until it is over",
                folder.display()
            );
            Err(Error::new(ErrorKind::Unavailable, what))
        }
        Err(e) => Err(failed(e)),
    }
}

/// Fails if a folder that is not here may be there for this QEMU, and for the backup that uses it: whoever
/// has a /tmp of its own, or is in a container, does not see theirs.
pub(crate) fn check_gone(folder: &Path, qemu: Owner) -> Result<()> {
    // What is here and has no lock was almost removed.
    if folder.symlink_metadata().is_ok() {
        return Ok(());
    }
    let unavailable = |why: &str| {
        let what = format!(
            "cannot tell whether the backup that uses {} still runs: {why}; if none does, make an empty folder \
             there, and try again",
            folder.display()
        );
        Error::new(ErrorKind::Unavailable, what)
    };
    match qemu.sees(folder) {
        Some(Ok(false)) => Ok(()),
        Some(Ok(true)) => Err(unavailable(
            "QEMU sees that folder, and this program, which has other file systems, does not",
        )),
        Some(Err(e)) => Err(unavailable(&format!(
            "it is not here, and what QEMU sees is closed to this user ({e})"
        ))),
        None => Err(unavailable(
            "it is not here, and which process is QEMU, that may see it, is not known",
        )),
    }
}

/// Removes the folder of a backup that was killed, and that QEMU has nothing of any more.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    let name = folder.file_name().and_then(|name| name.to_str());
    if !name.is_some_and(|name| name.starts_with(FOLDER)) {
        return Err(io::Error::other("it is no folder of a backup"));
    }
    let handle = open_folder(folder)?;
    let files = files(&handle)?;
    empty(&handle, &files)?;
    Ok(rustix::fs::rmdir(folder)?)
}

/// Removes from a fleecing folder what backups left there that died together with their QEMU.
pub(crate) fn sweep(parent: &Path, log: &dyn TaskLog) {
    // If it cannot be read, the backup that is to use it fails later, and tells why.
    let entries = std::fs::read_dir(parent).into_iter().flatten();
    let mut swept = 0;
    for entry in entries.take(SWEEP_ENTRIES_MAX).filter_map(io::Result::ok) {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with(FOLDER)) {
            continue;
        }
        if swept == SWEPT_MAX {
            let line = format!(
                "more than {SWEPT_MAX} killed backups left something in {}: the next backup removes more",
                parent.display()
            );
            log.log(Level::Warn, &line);
            return;
        }
        let folder = entry.path();
        match sweep_one(&folder) {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                swept += 1;
                let line = format!(
                    "removed {}, with {bytes} bytes, of a backup that was killed together with its QEMU",
                    folder.display()
                );
                log.log(Level::Info, &line);
            }
            Err(e) => {
                let line = format!(
                    "{} looks like what a killed backup left, and is not removed: {e}",
                    folder.display()
                );
                log.log(Level::Warn, &line);
            }
        }
    }
}

/// What a folder with the name of a backup's is.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is gone, or no folder.
    Nothing,
    /// A backup that runs has it.
    Running {
        process: Option<u32>,
        /// What names its QEMU.
        of: String,
    },
    /// Its backup is dead, and a QEMU that lives may use it.
    OfQemu { process: Option<u32> },
    /// A dead backup left it, and nobody uses it.
    Left(Left),
}

/// Whether a folder's lock is taken while it is looked at. Whoever is to remove the folder must; who
/// only looks must not, for a backup that needs it at that moment would fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Look {
    Only,
    ToRemove,
}

/// A folder that a dead backup left.
#[derive(Debug)]
pub(crate) struct Left {
    folder: PathBuf,
    handle: OwnedFd,
    /// None is there before one is made, and after it was removed.
    lock: Option<File>,
    files: Vec<String>,
    blocks: u64,
}

impl Left {
    /// Bytes of disk space that its images have.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks * 512
    }

    /// Whether a backup may be about to begin with it: it has no lock yet, and is young.
    pub(crate) fn may_begin(&self) -> bool {
        let made = rustix::fs::fstat(&self.handle).map(|about| about.st_mtime);
        let now = SystemClock::new().now().0;
        self.lock.is_none() && made.is_ok_and(|made| now.saturating_sub(made) < BEGINNING_SECONDS)
    }

    /// Removes it, if it was looked at for that; whether it was there.
    pub(crate) fn remove(self) -> io::Result<bool> {
        if self.lock.is_none() {
            return remove_without_lock(&self.handle, &self.folder);
        }
        empty(&self.handle, &self.files)?;
        rustix::fs::rmdir(&self.folder)?;
        Ok(true)
    }
}

/// The folders in a fleecing folder that have names of backups'; a few of very many.
pub(crate) fn folders(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(parent)?.take(SWEEP_ENTRIES_MAX) {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(FOLDER)) {
            folders.push(entry.path());
        }
        if folders.len() == FOLDERS_TOLD_MAX {
            break;
        }
    }
    folders.sort();
    Ok(folders)
}

/// Looks what a folder is; changes nothing. `PermissionDenied` if it is closed to this user.
pub(crate) fn look(folder: &Path, how: Look) -> io::Result<Found> {
    let handle = match open_folder(folder) {
        Ok(handle) => handle,
        Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        Err(e) => return Err(e),
    };
    let mut left = Left {
        folder: folder.to_owned(),
        handle,
        lock: None,
        files: Vec::new(),
        blocks: 0,
    };
    let lock = match open_regular(&left.handle, LOCK) {
        Ok(lock) => lock,
        Err(e) if e.kind() == IoKind::NotFound => return Ok(Found::Left(left)),
        Err(e) => return Err(e),
    };
    let is_held = match how {
        Look::Only => process::is_locked(&lock)?,
        Look::ToRemove => {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => false,
                Err(Errno::WOULDBLOCK) => true,
                Err(e) => return Err(e.into()),
            }
        }
    };
    let mut line = Vec::new();
    (&lock).take(LINE_MAX).read_to_end(&mut line)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    if is_held {
        let process = process::lock_holder(&lock);
        return Ok(Found::Running { process, of: line });
    }
    if process::lives(&line) {
        let process = process::named(&line);
        return Ok(Found::OfQemu { process });
    }
    left.lock = Some(lock);
    left.files = files(&left.handle)?;
    for name in left.files.iter().filter(|name| name.starts_with(IMAGE)) {
        let image = open_regular(&left.handle, name)?;
        if is_in_use(&image)? {
            return Ok(Found::OfQemu { process: None });
        }
        left.blocks += u64::try_from(rustix::fs::fstat(&image)?.st_blocks).unwrap_or(0);
    }
    Ok(Found::Left(left))
}

/// Removes one folder, unless a backup or a QEMU uses it, or it is somebody else's. How many bytes
/// it had.
fn sweep_one(folder: &Path) -> io::Result<Option<u64>> {
    match look(folder, Look::ToRemove) {
        Ok(Found::Left(left)) => {
            let bytes = left.bytes();
            Ok(left.remove()?.then_some(bytes))
        }
        Ok(Found::Nothing | Found::Running { .. } | Found::OfQemu { .. }) => Ok(None),
        // It is another user's, who sweeps it.
        Err(e) if e.kind() == IoKind::PermissionDenied => Ok(None),
        Err(e) => Err(e),
    }
}

/// What has no lock is just being made, or was almost removed: then it is empty.
fn remove_without_lock(handle: &OwnedFd, folder: &Path) -> io::Result<bool> {
    match rustix::fs::rmdir(folder) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(_) if rustix::fs::accessat(handle, LOCK, Access::EXISTS, AtFlags::empty()).is_ok() => {
            Ok(false)
        }
        Err(Errno::NOTEMPTY) => Err(io::Error::other("it has files and no lock")),
        Err(e) => Err(e.into()),
    }
}

/// The names of the files in a folder, if all of them are what a backup makes.
fn files(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        let number = name.strip_prefix(IMAGE);
        let is_image = number.is_some_and(|n| n.parse::<usize>().is_ok_and(|n| n < DISKS_MAX));
        if name != LOCK && name != SOCKET && !is_image {
            let what = format!("it has {name:?}, which no backup makes");
            return Err(io::Error::other(what));
        }
        files.push(name);
    }
    Ok(files)
}

/// Removes these files, the lock last: by it others know that nobody is at work here.
fn empty(folder: &OwnedFd, files: &[String]) -> io::Result<()> {
    let (locks, others): (Vec<_>, Vec<_>) = files.iter().partition(|name| *name == LOCK);
    for name in others.into_iter().chain(locks) {
        rustix::fs::unlinkat(folder, name.as_str(), AtFlags::empty())?;
    }
    Ok(())
}

/// The lock of a folder, locked; `WouldBlock` if somebody has it.
fn lock(folder: &OwnedFd) -> io::Result<File> {
    let lock = open_regular(folder, LOCK)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

/// Opens a file without waiting for anybody, if it is one.
fn open_regular(folder: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind != FileType::RegularFile {
        let what = format!("its {name} is no regular file");
        return Err(io::Error::other(what));
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::fleecing::Folder;

    /// Changes a folder; knows another one that must not be touched.
    type Change = fn(&Path, &Path);

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl TaskLog for Lines {
        fn log(&self, level: Level, message: &str) {
            self.0.lock().unwrap().push(format!("{level:?}: {message}"));
        }
    }

    /// What a backup for no known QEMU left.
    fn left(parent: &Path, name: &str) -> PathBuf {
        let folder = parent.join(format!("{FOLDER}{name}"));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(LOCK), "").unwrap();
        fs::write(folder.join("fleece-0"), [1; 5000]).unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.join(SOCKET)).unwrap());
        folder
    }

    /// What a sweep said.
    fn swept(parent: &Path) -> String {
        let lines = Lines::default();
        sweep(parent, &lines);
        lines.0.into_inner().unwrap().join("\n")
    }

    #[test]
    fn what_a_dead_backup_left_is_removed_and_told() {
        let parent = tempfile::TempDir::new().unwrap();
        let folder = left(parent.path(), "a");
        let half_removed = parent.path().join("snapkeep-run-b");
        fs::create_dir(&half_removed).unwrap();
        let other = parent.path().join("snapkeep");
        fs::create_dir(&other).unwrap();
        let said = swept(parent.path());
        assert!(!folder.exists() && !half_removed.exists() && other.exists());
        assert!(
            said.contains("removed ") && said.contains("snapkeep-run-a, with"),
            "{said}"
        );
        assert_eq!(swept(parent.path()), "");
    }

    #[test]
    fn a_folder_whose_lock_is_held_stays() {
        let parent = tempfile::TempDir::new().unwrap();
        let folder = left(parent.path(), "a");
        let held = lock(&open_folder(&folder).unwrap()).unwrap();
        assert_eq!(swept(parent.path()), "");
        assert!(folder.join("fleece-0").exists());
        drop(held);
        swept(parent.path());
        assert!(!folder.exists());
    }

    #[test]
    fn nothing_is_followed_and_nothing_foreign_removed() {
        let parent = tempfile::TempDir::new().unwrap();
        let elsewhere = parent.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let victim = left(&elsewhere, "victim");
        std::os::unix::fs::symlink(&victim, parent.path().join("snapkeep-run-link")).unwrap();
        fs::write(parent.path().join("snapkeep-run-file"), "").unwrap();
        assert_eq!(swept(parent.path()), "");
        let changes: [(&str, Change, &str); 5] = [
            (
                "a",
                |folder, _| fs::write(folder.join("x"), "").unwrap(),
                "\"x\"",
            ),
            (
                "b",
                |folder, _| fs::write(folder.join("fleece-256"), "").unwrap(),
                "\"fleece-256\"",
            ),
            (
                "c",
                |folder, victim| {
                    fs::remove_file(folder.join(LOCK)).unwrap();
                    std::os::unix::fs::symlink(victim.join(LOCK), folder.join(LOCK)).unwrap();
                },
                "symbolic",
            ),
            (
                "d",
                |folder, victim| {
                    fs::remove_file(folder.join("fleece-0")).unwrap();
                    let image = victim.join("fleece-0");
                    std::os::unix::fs::symlink(image, folder.join("fleece-0")).unwrap();
                },
                "symbolic",
            ),
            (
                "e",
                |folder, _| fs::remove_file(folder.join(LOCK)).unwrap(),
                "no lock",
            ),
        ];
        for (name, change, words) in changes {
            let folder = left(parent.path(), name);
            change(&folder, &victim);
            let said = swept(parent.path());
            assert!(said.starts_with("Warn: ") && said.contains(words), "{said}");
            assert!(folder.join(SOCKET).exists(), "{name}");
            assert!(victim.join("fleece-0").exists() && victim.join(LOCK).exists());
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn one_backup_removes_no_more_than_the_limit() {
        let parent = tempfile::TempDir::new().unwrap();
        for number in 0..=SWEPT_MAX {
            left(parent.path(), &number.to_string());
        }
        let said = swept(parent.path());
        assert!(said.contains("the next backup removes more"), "{said}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        swept(parent.path());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_swept_while_it_is_made_is_made_again() {
        let parent = tempfile::TempDir::new().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    swept(parent.path());
                }
            });
            for _ in 0..500 {
                let made = Folder::make(parent.path(), Owner::default());
                let there = made
                    .as_ref()
                    .is_ok_and(|made| made.path().join(LOCK).exists());
                if !there {
                    over.store(true, Ordering::SeqCst);
                    panic!("{made:?}");
                }
            }
            over.store(true, Ordering::SeqCst);
        });
    }
}
