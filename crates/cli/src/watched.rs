//! A repository's storage that counts what is read, and stops reading and writing when the end is
//! asked for.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use snapkeep_api::{Cancel, Clock, Throttle};
use snapkeep_repo::{Error, ErrorKind, FileName, Result, Storage};
use snapkeep_s3::S3Storage;

/// Told how many bytes have been read since it was set.
pub(crate) type Observer = Arc<dyn Fn(u64) + Send + Sync>;

/// The storage of one run.
pub(crate) struct Watched {
    storage: Arc<dyn Storage>,
    cancel: Arc<OnceLock<Cancel>>,
    read: AtomicU64,
    observer: RwLock<Option<Observer>>,
    /// A bandwidth limit for what is read.
    pace: OnceLock<(Throttle, Arc<dyn Clock>)>,
    /// The storage itself, if it is a bucket.
    pub(crate) bucket: Option<Arc<S3Storage>>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watched").field(&self.storage).finish()
    }
}

impl Watched {
    /// Whoever makes the storage may ask meanwhile whether the end is wanted.
    pub(crate) fn new(
        make: impl FnOnce(Arc<OnceLock<Cancel>>) -> Result<Arc<dyn Storage>>,
    ) -> Result<Self> {
        let cancel = Arc::new(OnceLock::new());
        Ok(Self {
            storage: make(Arc::clone(&cancel))?,
            cancel,
            read: AtomicU64::new(0),
            observer: RwLock::default(),
            pace: OnceLock::new(),
            bucket: None,
        })
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

    fn count(&self, bytes: usize) {
        let read = self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        let observer = self.observer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(observer) = &*observer {
            observer(read + bytes as u64);
        }
    }

    /// Waits until so many bytes more keep the limit.
    fn keep_pace(&self, bytes: u64) {
        if let Some((throttle, clock)) = self.pace.get() {
            let idle = Cancel::new();
            let cancel = self.cancel.get().unwrap_or(&idle);
            throttle.take(&**clock, cancel, bytes);
        }
    }

    fn check(&self) -> Result<()> {
        if self.cancel.get().is_some_and(Cancel::is_cancelled) {
            return Err(Error::new(ErrorKind::Cancelled, "it was cancelled"));
        }
        Ok(())
    }
}

impl Storage for Watched {
    fn is_far(&self) -> bool {
        self.storage.is_far()
    }

    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.check()?;
        self.storage.put(name, bytes)
    }

    fn put_buffer(&self, name: &FileName, bytes: &mut Vec<u8>) -> Result<()> {
        self.check()?;
        self.storage.put_buffer(name, bytes)
    }

    fn put_new(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.check()?;
        self.storage.put_new(name, bytes)
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.check()?;
        self.storage.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.check()?;
        self.keep_pace(range.end.saturating_sub(range.start));
        let bytes = self.storage.read(name, range)?;
        self.count(bytes.len());
        Ok(bytes)
    }

    fn read_whole(&self, name: &FileName, max: u64) -> Result<Vec<u8>> {
        self.check()?;
        let bytes = self.storage.read_whole(name, max)?;
        // How long it is is known only now.
        self.keep_pace(bytes.len() as u64);
        self.count(bytes.len());
        Ok(bytes)
    }

    fn doubt(&self, name: &FileName) {
        self.storage.doubt(name);
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

    fn list_dated(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<()> {
        self.check()?;
        self.storage.list_dated(prefix, each)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.storage.remove(name)
    }

    fn remove_within(&self, name: &FileName, most: Duration) -> Result<Option<Error>> {
        self.storage.remove_within(name, most)
    }
}
