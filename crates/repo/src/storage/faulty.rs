//! A wrapper that counts operations and fails from a chosen one on, as a crash or a dying disk
//! would.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{FileName, Storage};
use crate::{Error, ErrorKind, Result};

/// Which operation is the last, and what becomes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FaultPoint {
    /// Nothing fails; operations are only counted.
    Never,
    /// The operation with this number, counted from zero, and all later ones have no effect.
    Before(u64),
    /// The operation with this number has no effect; later ones succeed.
    Only(u64),
    /// The operation with this number takes effect but its reply is lost; later ones have none.
    After(u64),
}

/// Fails at a [`FaultPoint`].
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Storage>,
    point: Mutex<FaultPoint>,
    count: AtomicU64,
}

impl Faulty {
    /// Wraps a storage.
    pub fn new(inner: Arc<dyn Storage>, point: FaultPoint) -> Self {
        Self {
            inner,
            point: Mutex::new(point),
            count: AtomicU64::new(0),
        }
    }

    /// Fails at this point instead; operations are counted on.
    pub fn turn(&self, point: FaultPoint) {
        *self.point.lock().unwrap_or_else(PoisonError::into_inner) = point;
    }

    /// How many operations there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn run<T>(&self, name: &FileName, deed: impl FnOnce() -> Result<T>) -> Result<T> {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let fail = || {
            let what = format!("the storage failed at operation {number}, on {name}");
            Err(Error::new(ErrorKind::Io, what))
        };
        let point = *self.point.lock().unwrap_or_else(PoisonError::into_inner);
        match point {
            FaultPoint::Before(point) if number >= point => fail(),
            FaultPoint::After(point) if number > point => fail(),
            FaultPoint::After(point) if number == point => deed().and_then(|_| fail()),
            FaultPoint::Only(point) if number == point => fail(),
            FaultPoint::Never
            | FaultPoint::Before(_)
            | FaultPoint::Only(_)
            | FaultPoint::After(_) => deed(),
        }
    }
}

impl Storage for Faulty {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.run(name, || self.inner.put(name, bytes))
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.run(name, || self.inner.settle(name))
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.run(name, || self.inner.read(name, range))
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.run(name, || self.inner.length(name))
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.run(name, || self.inner.modified(name))
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        self.run(prefix, || self.inner.list(prefix, each))
    }

    fn list_dated(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64, i64) -> Result<()>,
    ) -> Result<()> {
        self.run(prefix, || self.inner.list_dated(prefix, each))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.run(name, || self.inner.remove(name))
    }

    fn remove_within(&self, name: &FileName, most: Duration) -> Result<Option<Error>> {
        self.run(name, || self.inner.remove_within(name, most))
    }
}
