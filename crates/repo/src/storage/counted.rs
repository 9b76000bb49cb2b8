//! A wrapper that counts what is asked of a storage: for measurements, and for tests that must
//! not judge by the clock.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{FileName, Storage};
use crate::format::pack::{self, Class};
use crate::{Error, Result};

/// What was asked since the last time anybody took the tally. Bytes are those of files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Files written.
    pub puts: u64,
    /// Ranges read.
    pub reads: u64,
    /// Everything else: lengths, times, lists, removals, files made durable.
    pub others: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written in packs of guests' data.
    pub data_bytes: u64,
    /// Bytes written in everything else: packs of nodes, index objects, snapshots, heads.
    pub metadata_bytes: u64,
}

impl Tally {
    /// All operations.
    pub fn operations(&self) -> u64 {
        self.puts + self.reads + self.others
    }
}

/// Passes everything on, and counts.
#[derive(Debug)]
pub struct Counted {
    inner: Arc<dyn Storage>,
    tally: Mutex<Tally>,
}

impl Counted {
    /// Wraps a storage.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            tally: Mutex::default(),
        }
    }

    /// What was asked since the last call.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally())
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Counted {
    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        let mut tally = self.tally();
        tally.puts += 1;
        match pack::class(bytes) {
            Some(Class::Data) => tally.data_bytes += bytes.len() as u64,
            Some(Class::Metadata) | None => tally.metadata_bytes += bytes.len() as u64,
        }
        drop(tally);
        self.inner.put(name, bytes)
    }

    fn put_new(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.tally().puts += 1;
        self.inner.put_new(name, bytes)
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.tally().others += 1;
        self.inner.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        let mut tally = self.tally();
        tally.reads += 1;
        tally.read_bytes += range.end.saturating_sub(range.start);
        drop(tally);
        self.inner.read(name, range)
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.tally().others += 1;
        self.inner.length(name)
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.tally().others += 1;
        self.inner.modified(name)
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        self.tally().others += 1;
        self.inner.list(prefix, each)
    }

    fn list_dated(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<()> {
        self.tally().others += 1;
        self.inner.list_dated(prefix, each)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.tally().others += 1;
        self.inner.remove(name)
    }

    fn remove_within(&self, name: &FileName, most: Duration) -> Result<Option<Error>> {
        self.tally().others += 1;
        self.inner.remove_within(name, most)
    }
}
