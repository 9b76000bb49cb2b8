//! A storage that lists packs which are not there.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snapkeep_repo::{FileName, PackId, Result, Storage};

/// What each of them says is its length.
pub(crate) const LENGTH: u32 = 16 << 20;

/// The identity of a pack that is not there.
pub(crate) fn pack(number: u64) -> PackId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"pack").update(&number.to_le_bytes());
    PackId::new(*hasher.finalize().as_bytes())
}

/// Passes everything on, but lists these packs too.
#[derive(Debug)]
pub(crate) struct Pretended {
    inner: Arc<dyn Storage>,
    packs: Mutex<BTreeSet<FileName>>,
}

impl Pretended {
    pub(crate) fn new(inner: Arc<dyn Storage>, count: u64) -> Self {
        let name = |number| {
            let id = pack(number).to_string();
            let name = format!("packs/{}/{id}", &id[..2]);
            name.parse().expect("the name of a pack")
        };
        Self {
            inner,
            packs: Mutex::new((0..count).map(name).collect()),
        }
    }

    fn packs(&self) -> MutexGuard<'_, BTreeSet<FileName>> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for Pretended {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.inner.put(name, bytes)
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.inner.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.inner.read(name, range)
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        if self.packs().contains(name) {
            return Ok(LENGTH.into());
        }
        self.inner.length(name)
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        if self.packs().contains(name) {
            return Ok(0);
        }
        self.inner.modified(name)
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        if prefix.as_str() != "packs" {
            return self.inner.list(prefix, each);
        }
        let pretended: Vec<FileName> = self.packs().iter().cloned().collect();
        let mut pretended = pretended.iter().peekable();
        self.inner.list(prefix, &mut |name, length| {
            while let Some(before) = pretended.next_if(|pack| *pack < name) {
                each(before, LENGTH.into())?;
            }
            each(name, length)
        })?;
        pretended.try_for_each(|pack| each(pack, LENGTH.into()))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        if self.packs().remove(name) {
            return Ok(());
        }
        self.inner.remove(name)
    }
}
