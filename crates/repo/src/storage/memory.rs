//! Files in memory, for tests.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{FileName, Storage, already_there};
use crate::{Error, ErrorKind, Result};

/// A storage that forgets everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    files: Mutex<BTreeMap<FileName, Stored>>,
    /// Seconds since 1970, as tests set them.
    clock: AtomicI64,
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Vec<u8>,
    modified: i64,
}

impl MemoryStorage {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what is stored now.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            files: Mutex::new(self.files().clone()),
            clock: AtomicI64::new(self.clock.load(Ordering::SeqCst)),
        }
    }

    /// Sets the clock that says when files are written; it stands still. A new storage's is at 0.
    pub fn set_time(&self, seconds: i64) {
        self.clock.store(seconds, Ordering::SeqCst);
    }

    /// Changes a file behind the repository's back, as a failing disk would.
    pub fn damage(&self, name: &FileName, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(stored) = self.files().get_mut(name) {
            change(&mut stored.bytes);
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<FileName, Stored>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(name: &FileName) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no file {name}"))
}

impl Storage for MemoryStorage {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        let stored = Stored {
            bytes: bytes.to_vec(),
            modified: self.clock.load(Ordering::SeqCst),
        };
        self.files().insert(name.clone(), stored);
        Ok(())
    }

    fn put_new(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        let stored = Stored {
            bytes: bytes.to_vec(),
            modified: self.clock.load(Ordering::SeqCst),
        };
        match self.files().entry(name.clone()) {
            Entry::Occupied(_) => Err(already_there(name)),
            Entry::Vacant(free) => {
                free.insert(stored);
                Ok(())
            }
        }
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.length(name).map(drop)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        let files = self.files();
        let Stored { bytes, .. } = files.get(name).ok_or_else(|| missing(name))?;
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        let end = usize::try_from(range.end).unwrap_or(usize::MAX);
        match bytes.get(start..end) {
            Some(found) => Ok(found.to_vec()),
            None => Err(Error::corrupt(format!("{name} ends before byte {end}"))),
        }
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.files()
            .get(name)
            .map(|stored| stored.bytes.len() as u64)
            .ok_or_else(|| missing(name))
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        let files = self.files();
        let stored = files.get(name).ok_or_else(|| missing(name))?;
        Ok(stored.modified)
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        self.list_dated(prefix, &mut |name, length, _| each(name, length))
    }

    fn list_dated(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<()> {
        let start = format!("{prefix}/");
        let found: Vec<_> = (self.files().iter())
            .filter(|(name, _)| name.as_str().starts_with(&start))
            .map(|(name, stored)| (name.clone(), stored.bytes.len() as u64, stored.modified))
            .collect();
        (found.iter()).try_for_each(|(name, length, time)| each(name, *length, *time))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.files().remove(name);
        Ok(())
    }
}
