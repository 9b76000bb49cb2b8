//! A storage that answers one of its reads wrongly, and remembers what was read.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use snapkeep_repo::{Error, ErrorKind, FileName, Result, Storage};

/// What becomes of a read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Odd {
    /// A byte in the middle is another one.
    Wrong,
    /// The second half is missing.
    Short,
    /// The storage says that the file is shorter.
    Cut,
    /// The storage fails.
    Fails,
    /// The end was asked for, then and from there on.
    Cancelled,
}

/// Answers the read with this number, counted from where it was armed, in this way.
#[derive(Debug)]
pub(crate) struct OddStorage {
    inner: Arc<dyn Storage>,
    odd: Mutex<Option<(u64, Odd)>>,
    count: AtomicU64,
    reads: Mutex<Vec<(FileName, Range<u64>)>>,
}

impl OddStorage {
    pub(crate) fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            odd: Mutex::default(),
            count: AtomicU64::new(0),
            reads: Mutex::default(),
        })
    }

    /// From here on reads are counted.
    pub(crate) fn arm(&self, odd: Option<(u64, Odd)>) {
        *self.odd.lock().unwrap() = odd;
        self.count.store(0, Ordering::SeqCst);
        self.reads.lock().unwrap().clear();
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// What was read since.
    pub(crate) fn reads(&self) -> Vec<(FileName, Range<u64>)> {
        self.reads.lock().unwrap().clone()
    }
}

impl Storage for OddStorage {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.inner.put(name, bytes)
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.inner.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        self.reads
            .lock()
            .unwrap()
            .push((name.clone(), range.clone()));
        let mut bytes = self.inner.read(name, range)?;
        let odd = *self.odd.lock().unwrap();
        let says = |kind| Err(Error::new(kind, format!("an odd answer about {name}")));
        match odd {
            Some((at, Odd::Cancelled)) if number >= at => says(ErrorKind::Cancelled),
            Some((at, odd)) if number == at => match odd {
                Odd::Wrong => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x20;
                    Ok(bytes)
                }
                Odd::Short => {
                    bytes.truncate(bytes.len() / 2);
                    Ok(bytes)
                }
                Odd::Cut => says(ErrorKind::Corrupt),
                Odd::Fails | Odd::Cancelled => says(ErrorKind::Io),
            },
            _ => Ok(bytes),
        }
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
        self.inner.list(prefix, each)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.inner.remove(name)
    }
}
