//! A repository's storage that counts what is read, and stops reading and writing when the end is
//! asked for.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use snapkeep_api::{Cancel, Clock, Throttle};
use snapkeep_repo::{Error, ErrorKind, FileName, LocalStorage, Result, Storage};

/// Told how many bytes have been read since it was set.
pub(crate) type Observer = Arc<dyn Fn(u64) + Send + Sync>;

/// The storage of one run.
pub(crate) struct Watched {
    storage: LocalStorage,
    cancel: OnceLock<Cancel>,
    read: AtomicU64,
    observer: RwLock<Option<Observer>>,
    /// A bandwidth limit for what is read.
    pace: OnceLock<(Throttle, Arc<dyn Clock>)>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watched").field(&self.storage).finish()
    }
}

impl Watched {
    pub(crate) fn new(storage: LocalStorage) -> Self {
        Self {
            storage,
            cancel: OnceLock::new(),
            read: AtomicU64::new(0),
            observer: RwLock::default(),
            pace: OnceLock::new(),
        }
    }

    /// Who may ask for the end; the first one stays.
    pub(crate) fn obey(&self, cancel: Cancel) {
        self.cancel.get_or_init(|| cancel);
    }

    /// From here on reads keep this limit in bytes per second; the first one stays.
    pub(crate) fn pace(&self, limit: NonZeroU64, clock: Arc<dyn Clock>) {
        self.pace
            .get_or_init(|| (Throttle::new(Some(limit)), clock));
    }

    /// Counts from here on, for this observer, or for nobody.
    pub(crate) fn observe(&self, observer: Option<Observer>) {
        self.read.store(0, Ordering::Relaxed);
        *(self.observer.write()).unwrap_or_else(PoisonError::into_inner) = observer;
    }

    fn check(&self) -> Result<()> {
        if self.cancel.get().is_some_and(Cancel::is_cancelled) {
            return Err(Error::new(ErrorKind::Cancelled, "it was cancelled"));
        }
        Ok(())
    }
}

impl Storage for Watched {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.check()?;
        self.storage.put(name, bytes)
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.check()?;
        self.storage.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.check()?;
        if let Some((throttle, clock)) = self.pace.get() {
            let idle = Cancel::new();
            let cancel = self.cancel.get().unwrap_or(&idle);
            throttle.take(&**clock, cancel, range.end.saturating_sub(range.start));
        }
        let bytes = self.storage.read(name, range)?;
        let read = self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let observer = self.observer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(observer) = &*observer {
            observer(read + bytes.len() as u64);
        }
        Ok(bytes)
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.storage.length(name)
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.storage.modified(name)
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        self.check()?;
        self.storage.list(prefix, each)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.storage.remove(name)
    }
}
