//! A storage whose lists are old: they show a file, or that it is gone, only a while later.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use snapkeep_repo::{FileName, MemoryStorage, Result, Storage};

/// Since when a file is there, with its length, or not.
type Changes = BTreeMap<FileName, Vec<(i64, Option<u64>)>>;

pub(crate) struct Stale {
    inner: Arc<MemoryStorage>,
    time: Arc<AtomicI64>,
    /// Seconds until a list shows what was done.
    lag: i64,
    changes: Mutex<Changes>,
    far: bool,
}

impl fmt::Debug for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stale").finish_non_exhaustive()
    }
}

impl Stale {
    /// What is there now is listed at once.
    pub(crate) fn new(inner: Arc<MemoryStorage>, time: Arc<AtomicI64>, lag: i64) -> Self {
        let mut changes = Changes::new();
        for folder in [
            "attributes",
            "features",
            "index",
            "keys",
            "packs",
            "prune",
            "snapshots",
            "tables",
        ] {
            let mut each = |name: &FileName, length| {
                changes.insert(name.clone(), vec![(i64::MIN, Some(length))]);
                Ok(())
            };
            inner.list(&folder.parse().unwrap(), &mut each).unwrap();
        }
        Self {
            inner,
            time,
            lag,
            changes: Mutex::new(changes),
            far: false,
        }
    }

    /// The same at the end of a journey: several things are asked for at once.
    pub(crate) fn at_distance(self, far: bool) -> Self {
        Self { far, ..self }
    }

    fn change(&self, name: &FileName, length: Option<u64>) {
        let now = self.time.load(Ordering::SeqCst);
        let mut changes = self.changes.lock().unwrap();
        changes.entry(name.clone()).or_default().push((now, length));
    }
}

impl Storage for Stale {
    fn is_far(&self) -> bool {
        self.far
    }

    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.inner.put(name, bytes)?;
        self.change(name, Some(bytes.len() as u64));
        Ok(())
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.inner.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.inner.read(name, range)
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
        let shown = self.time.load(Ordering::SeqCst) - self.lag;
        let below = format!("{prefix}/");
        let told: Vec<_> = (self.changes.lock().unwrap().iter())
            .filter(|(name, _)| name.as_str().starts_with(&below))
            .filter_map(|(name, changes)| {
                let last = changes.iter().rev().find(|(time, _)| *time <= shown)?;
                Some((name.clone(), last.1?))
            })
            .collect();
        (told.iter()).try_for_each(|(name, length)| each(name, *length))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.inner.remove(name)?;
        self.change(name, None);
        Ok(())
    }
}
