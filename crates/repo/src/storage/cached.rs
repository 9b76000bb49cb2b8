//! A wrapper that keeps small files that never change on a disk of this host. The cache is for speed
//! alone: whoever removes it loses nothing, and what in it is damaged is dropped.
//!
//! It is asked only about files that the storage has listed to this process, so that a file that
//! was removed is not taken for one that is there.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::shelf::Shelf;
use super::{FileName, Storage};
use crate::format::pack::{self, Class, HEADER};
use crate::{Error, Result, limits};

/// What holds files that are read whole and never change.
const WHOLE: &[&str] = &["index/", "snapshots/", "attributes/"];
const PACKS: &str = "packs/";
/// What is read by ranges.
const TABLES: &str = "tables/";
/// The file that tells one repository from another.
const CONFIG: &str = "config";

/// A storage with a cache.
#[derive(Debug)]
pub struct Cached {
    inner: Arc<dyn Storage>,
    shelf: Shelf,
    /// Stands for the repository: the hash of its `config`.
    repository: OnceLock<[u8; 32]>,
    /// Files that were listed, with their lengths.
    listed: Mutex<HashMap<FileName, u64>>,
    /// Files of which something wrong was kept, or came: they are read anew.
    doubted: Mutex<HashSet<FileName>>,
    /// Whether packs are of metadata.
    metadata: Mutex<HashMap<FileName, bool>>,
}

impl Cached {
    /// Wraps a storage; the cache is in this folder, which is made, and holds at most so many bytes.
    pub fn new(inner: Arc<dyn Storage>, folder: &Path, max: u64) -> Self {
        Self {
            inner,
            shelf: Shelf::new(folder, max),
            repository: OnceLock::new(),
            listed: Mutex::default(),
            doubted: Mutex::default(),
            metadata: Mutex::default(),
        }
    }

    fn listed(&self) -> MutexGuard<'_, HashMap<FileName, u64>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands for a part of a file in the cache, if it may be there.
    fn key(&self, name: &FileName, range: &Range<u64>) -> Option<blake3::Hash> {
        let repository = self.repository.get()?;
        let mut hasher = blake3::Hasher::new_keyed(repository);
        hasher.update(&range.start.to_le_bytes());
        hasher.update(&range.end.to_le_bytes());
        hasher.update(name.as_str().as_bytes());
        Some(hasher.finalize())
    }

    /// From the cache, or from the storage and then into the cache.
    fn kept(
        &self,
        name: &FileName,
        range: &Range<u64>,
        read: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let Some(key) = self.key(name, range) else {
            return read();
        };
        let length = range.end - range.start;
        let known = (!self.is_doubted(name))
            .then(|| self.shelf.get(&key))
            .flatten();
        if let Some(bytes) = known.filter(|b| b.len() as u64 == length) {
            return Ok(bytes);
        }
        let bytes = read()?;
        self.shelf.put(&key, &bytes);
        Ok(bytes)
    }

    fn is_doubted(&self, name: &FileName) -> bool {
        (self.doubted.lock().unwrap_or_else(PoisonError::into_inner)).contains(name)
    }

    /// Whether a range of a pack of this length is of metadata. Its header, which tells that, is needed
    /// later anyway; of what is longer than nodes are read it is not asked for first.
    fn is_metadata(&self, name: &FileName, range: &Range<u64>, length: u64) -> Result<bool> {
        let known = || self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(is) = known().get(name) {
            return Ok(*is);
        }
        if range.end - range.start > limits::NODE_RUN as u64 {
            return Ok(false);
        }
        let header = 0..HEADER as u64;
        let first = 0..length.min(limits::CACHE_BLOCK as u64);
        let bytes = self.kept(name, &header, || {
            if range.end > first.end {
                return self.inner.read(name, header.clone());
            }
            // One journey for both.
            let mut bytes = self.inner.read(name, first.clone())?;
            if pack::class(&bytes) == Some(Class::Metadata)
                && let Some(key) = self.key(name, &first)
            {
                self.shelf.put(&key, &bytes);
            }
            bytes.truncate(HEADER);
            Ok(bytes)
        })?;
        let is = pack::class(&bytes) == Some(Class::Metadata);
        let mut known = known();
        if known.len() >= limits::PACK_KEY_CACHE {
            known.clear();
        }
        known.insert(name.clone(), is);
        Ok(is)
    }

    /// A range of a pack of metadata, by blocks, so that neighbours are there too.
    fn blocks(&self, name: &FileName, range: &Range<u64>, length: u64) -> Result<Vec<u8>> {
        let block = limits::CACHE_BLOCK as u64;
        let start = range.start / block * block;
        let end = range.end.next_multiple_of(block).min(length);
        let parts = || {
            (start..end)
                .step_by(limits::CACHE_BLOCK)
                .map(|at| at..(at + block).min(end))
        };
        let key = |part: &Range<u64>| self.key(name, part);
        let get = |part: Range<u64>| {
            let length = part.end - part.start;
            let found = self.shelf.get(&key(&part)?);
            found.filter(|bytes| bytes.len() as u64 == length)
        };
        let found = parts().map(get).collect::<Option<Vec<_>>>();
        let found = found.filter(|_| !self.is_doubted(name));
        let mut bytes = if let Some(found) = found {
            found.concat()
        } else {
            // One journey for all of them, also where only some are missing.
            let bytes = self.inner.read(name, start..end)?;
            for (part, bytes) in parts().zip(bytes.chunks(limits::CACHE_BLOCK)) {
                if let Some(key) = key(&part) {
                    self.shelf.put(&key, bytes);
                }
            }
            bytes
        };
        let from = usize::try_from(range.start - start).unwrap_or(usize::MAX);
        let to = usize::try_from(range.end - start).unwrap_or(usize::MAX);
        bytes.truncate(to);
        bytes.drain(..from.min(bytes.len()));
        Ok(bytes)
    }

    fn forget(&self, name: &FileName) {
        self.listed().remove(name);
    }
}

impl Storage for Cached {
    fn is_far(&self) -> bool {
        self.inner.is_far()
    }

    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.inner.put(name, bytes)?;
        if WHOLE.iter().any(|folder| name.as_str().starts_with(folder)) {
            let whole = 0..bytes.len() as u64;
            if let Some(key) = self.key(name, &whole) {
                self.shelf.put(&key, bytes);
            }
        }
        Ok(())
    }

    fn put_buffer(&self, name: &FileName, bytes: &mut Vec<u8>) -> Result<()> {
        if WHOLE.iter().any(|folder| name.as_str().starts_with(folder)) {
            return self.put(name, bytes);
        }
        self.inner.put_buffer(name, bytes)
    }

    fn put_new(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.inner.put_new(name, bytes)
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.inner.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        let table = name.as_str().starts_with(TABLES);
        if !table && !name.as_str().starts_with(PACKS) {
            return self.inner.read(name, range);
        }
        let length = self.listed().get(name).copied();
        match length.filter(|length| range.start < range.end && range.end <= *length) {
            Some(length) if table => self.blocks(name, &range, length),
            Some(_) if range.end <= HEADER as u64 => {
                self.kept(name, &range, || self.inner.read(name, range.clone()))
            }
            Some(length) if self.is_metadata(name, &range, length)? => {
                self.blocks(name, &range, length)
            }
            Some(_) | None => self.inner.read(name, range),
        }
    }

    fn read_whole(&self, name: &FileName, max: u64) -> Result<Vec<u8>> {
        let length = self.listed().get(name).copied();
        let cached = WHOLE.iter().any(|folder| name.as_str().starts_with(folder));
        let length = length.filter(|length| cached && *length <= max);
        let bytes = match length {
            Some(length) => {
                return self.kept(name, &(0..length), || self.inner.read_whole(name, max));
            }
            None => self.inner.read_whole(name, max)?,
        };
        if name.as_str() == CONFIG {
            (self.repository).get_or_init(|| *blake3::hash(&bytes).as_bytes());
        }
        Ok(bytes)
    }

    fn doubt(&self, name: &FileName) {
        let mut doubted = self.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        if doubted.len() < limits::CACHE_NAMES {
            doubted.insert(name.clone());
        }
        drop(doubted);
        self.metadata
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        self.inner.doubt(name);
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.inner.length(name)
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.inner.modified(name)
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        let below = format!("{prefix}/");
        let mut found = HashMap::new();
        let listed = self.inner.list(prefix, &mut |name, length| {
            if found.len() < limits::CACHE_NAMES {
                found.insert(name.clone(), length);
            }
            each(name, length)
        });
        let mut all = self.listed();
        // What is not there any more is not asked for any more.
        all.retain(|name, _| !name.as_str().starts_with(&below));
        if all.len() + found.len() <= limits::CACHE_NAMES {
            all.extend(found);
        }
        listed
    }

    fn list_dated(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<()> {
        self.inner.list_dated(prefix, each)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.forget(name);
        self.inner.remove(name)
    }

    fn remove_within(&self, name: &FileName, most: Duration) -> Result<Option<Error>> {
        self.forget(name);
        self.inner.remove_within(name, most)
    }
}
