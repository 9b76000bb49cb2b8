//! The lock of one container's backup.
//!
//! Programs that a backup runs get it as their standard input: it is held until the last of them has
//! ended, also when the backup was killed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;

use rustix::fs::FlockOperation;
use snapkeep_api::Result;

use super::life::Life;
use super::limits::PROCESSES_MAX;
use super::place::{Place, cannot};
use crate::process::identity;

/// A lock names its holder in so many bytes at most.
const HOLDER_BYTES_MAX: u64 = 512;

/// The lock of one container. It is free when this, its clones and the programs that got it are gone.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// Why it does not name its holder.
    unnamed: Option<io::Error>,
}

impl Lock {
    /// Takes it; `None` if somebody has it.
    ///
    /// One that cannot be written to, such as on a full disk, is taken all the same: see
    /// [`check_named`](Self::check_named).
    pub(super) fn take(place: &Place) -> Result<Option<Self>> {
        let path = place.lock();
        let failed = |e| cannot("lock", &path, e);
        let open = |writing: bool| {
            let mut options = OpenOptions::new();
            options.read(true).append(writing).create(writing);
            options.mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
            options.open(&path)
        };
        let (file, unwritable) = match open(true) {
            Ok(file) => (file, None),
            Err(e) => match open(false) {
                Ok(file) => (file, Some(e)),
                Err(_) => return Err(failed(e)),
            },
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(failed(e.into())),
        }
        let holder = Life::own().and_then(|life| serde_json::to_vec(&life).ok());
        let named = (file.set_len(0)).and_then(|()| (&file).write_all(&holder.unwrap_or_default()));
        // That it could not be opened for writing says more than that it then cannot be written to.
        let unnamed = named.err().map(|e| unwritable.unwrap_or(e));
        Ok(Some(Self { file, unnamed }))
    }

    /// Fails if others could not see who has it. Whoever only takes back what was changed need not
    /// mind; whoever is about to change something must.
    pub(super) fn check_named(&self, place: &Place) -> Result<()> {
        let copy = |e: &io::Error| {
            e.raw_os_error()
                .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
        };
        (self.unnamed.as_ref()).map_or(Ok(()), |e| Err(cannot("lock", &place.lock(), copy(e))))
    }

    /// Who took it last.
    pub(super) fn holder(place: &Place) -> Option<Life> {
        let file = File::open(place.lock()).ok()?;
        let mut text = Vec::new();
        file.take(HOLDER_BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// For a program that is run under the lock: it reads nothing from it.
    pub(super) fn stdin(&self) -> Stdio {
        // Without it the program runs all the same, but a later backup does not see it.
        self.file
            .try_clone()
            .map_or_else(|_| Stdio::null(), Stdio::from)
    }

    /// Frees it, whoever still has it: at the end of a backup of which no program runs any more. A
    /// process that is just being started has copies of everything for a moment.
    pub(super) fn release(self) {
        // Dropping it frees it, too, only later.
        rustix::fs::flock(&self.file, FlockOperation::Unlock).ok();
    }

    /// The processes that have it as their standard input, apart from this one.
    pub(super) fn users(place: &Place) -> Vec<u32> {
        let Ok(lock) = std::fs::metadata(place.lock()) else {
            return Vec::new();
        };
        let lock = Some((lock.dev(), lock.ino()));
        let same = |id: &u32| identity(Path::new(&format!("/proc/{id}/fd/0"))) == lock;
        std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .take(PROCESSES_MAX)
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|id| *id != std::process::id())
            .filter(same)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_until_the_last_program_that_got_it_has_ended() {
        let folder = tempfile::TempDir::new().unwrap();
        let place = Place::new(folder.path(), "web", Path::new("/a")).unwrap();
        let lock = Lock::take(&place).unwrap().unwrap();
        assert!(Lock::take(&place).unwrap().is_none());
        assert_eq!(Lock::holder(&place), Life::own());
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(lock.stdin())
            .spawn()
            .unwrap();
        drop(lock);
        assert!(Lock::take(&place).unwrap().is_none());
        assert_eq!(Lock::users(&place), [child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        // Other tests start processes, which have copies of it until they are what they shall be.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while Lock::take(&place).unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "it is held");
            std::thread::yield_now();
        }
        let other = Place::new(folder.path(), "web", Path::new("/b")).unwrap();
        assert_ne!(other.stem(), place.stem());
    }

    #[test]
    fn a_lock_that_cannot_name_its_holder_is_taken_and_says_so() {
        let folder = tempfile::TempDir::new().unwrap();
        let place = Place::new(folder.path(), "web", Path::new("/a")).unwrap();
        // A file of whatever kind that can be locked and not written to.
        std::fs::create_dir(place.lock()).unwrap();
        let lock = Lock::take(&place).unwrap().unwrap();
        assert!(Lock::take(&place).unwrap().is_none());
        let said = lock.check_named(&place).unwrap_err().chain();
        assert!(said.contains(".lock: Is a directory"), "{said}");
        std::fs::remove_dir(place.lock()).unwrap();
        let lock = Lock::take(&place).unwrap().unwrap();
        lock.check_named(&place).unwrap();
    }
}
