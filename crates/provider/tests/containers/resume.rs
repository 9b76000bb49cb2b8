//! A backup that was cut off after any file it stored resends nothing that had arrived.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snapkeep_repo::{Counted, ErrorKind, FileName, Storage};

use super::{Host, METADATA, noise};
use crate::MemoryTree;

/// Takes so many files, and then nothing any more.
#[derive(Debug)]
struct Dying {
    inner: Arc<dyn Storage>,
    left: AtomicU64,
}

impl Dying {
    fn alive(&self) -> snapkeep_repo::Result<()> {
        match self.left.load(Ordering::SeqCst) {
            0 => Err(snapkeep_repo::Error::new(
                ErrorKind::Io,
                "the storage is gone",
            )),
            _ => Ok(()),
        }
    }
}

impl Storage for Dying {
    fn put(&self, name: &FileName, bytes: &[u8]) -> snapkeep_repo::Result<()> {
        // Of several threads, as many as may.
        let took = (self.left).fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        took.map_err(|_none| snapkeep_repo::Error::new(ErrorKind::Io, "the storage is gone"))?;
        self.inner.put(name, bytes)
    }

    fn settle(&self, name: &FileName) -> snapkeep_repo::Result<()> {
        self.alive()?;
        self.inner.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> snapkeep_repo::Result<Vec<u8>> {
        self.inner.read(name, range)
    }

    fn length(&self, name: &FileName) -> snapkeep_repo::Result<u64> {
        self.inner.length(name)
    }

    fn modified(&self, name: &FileName) -> snapkeep_repo::Result<i64> {
        self.inner.modified(name)
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> snapkeep_repo::Result<()>,
    ) -> snapkeep_repo::Result<()> {
        self.inner.list(prefix, each)
    }

    fn remove(&self, name: &FileName) -> snapkeep_repo::Result<()> {
        self.alive()?;
        self.inner.remove(name)
    }
}

fn packs(storage: &dyn Storage) -> u64 {
    let mut bytes = 0;
    let mut add = |_: &FileName, length| {
        bytes += length;
        Ok(())
    };
    storage.list(&"packs".parse().unwrap(), &mut add).unwrap();
    bytes
}

#[test]
fn a_backup_that_was_cut_off_resends_nothing_that_had_arrived() {
    let mut tree = MemoryTree::new();
    for number in 0..40 {
        tree.file(format!("etc/{number}"), &noise(20_000, number));
    }
    for number in 50..59 {
        tree.file(format!("large/{number}"), &noise(4 << 20, number));
    }
    let mut host = Host::new(METADATA);
    let start = host.storage.fork();
    let counted = Arc::new(Counted::new(Arc::clone(&host.storage) as _));
    let provider = host.provider_on(Arc::clone(&counted) as _).unwrap();
    counted.take();
    host.back_up_by(&provider, &mut tree.source()).unwrap();
    let (puts, whole) = (counted.take().puts, packs(&*host.storage));
    assert!(puts > 4, "{puts}");
    for put in 0..puts {
        host.storage = Arc::new(start.fork());
        let dying = Arc::new(Dying {
            inner: Arc::clone(&host.storage) as _,
            left: AtomicU64::new(put),
        });
        let cut = host
            .provider_on(dying)
            .and_then(|provider| host.back_up_by(&provider, &mut tree.source()));
        cut.expect_err("it was cut off");
        let arrived = packs(&*host.storage);
        let counted = Arc::new(Counted::new(Arc::clone(&host.storage) as _));
        let provider = host.provider_on(Arc::clone(&counted) as _).unwrap();
        counted.take();
        let (archive, _) = host.back_up_by(&provider, &mut tree.source()).unwrap();
        let sent = counted.take();
        let told = format!("after {put} of {puts} files: {arrived} of {whole}, then {sent:?}");
        // No chunk is there twice, and none is missing; what differs are borders of packs.
        assert!(packs(&*host.storage).abs_diff(whole) < 16 << 10, "{told}");
        assert!(sent.data_bytes <= whole - arrived + (16 << 10), "{told}");
        host.expect(&archive, &tree);
    }
}
