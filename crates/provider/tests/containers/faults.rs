//! Storages that fail, disks that fill up, backups that are cancelled or panic.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snapkeep_api::memory::tree::Mishap;
use snapkeep_api::{ErrorKind, Provider};
use snapkeep_repo::{FaultPoint, Faulty, FileName, MemoryStorage, Storage};

use super::{AUDIT, Host, METADATA, noise, some};
use crate::{ChangeDetection, MemoryTree};

/// A small tree, and what it became.
fn two() -> [MemoryTree; 2] {
    let mut tree = MemoryTree::new();
    for number in 0..6 {
        tree.file(format!("etc/{number}"), &noise(3000, number));
    }
    tree.file("large", &noise(300_000, 10));
    let before = tree.clone();
    tree.write("etc/3", &noise(4000, 11));
    tree.file("new", &noise(200_000, 12));
    tree.remove("etc/5");
    [before, tree]
}

#[test]
fn a_storage_that_fails_at_any_operation_makes_no_wrong_archive() {
    for detection in [METADATA, AUDIT] {
        let mut host = Host::new(detection);
        let [before, tree] = two();
        let (first, _) = host.keep(&before);
        let start = host.storage.fork();
        let count = {
            let faulty = Arc::new(Faulty::new(
                Arc::clone(&host.storage) as _,
                FaultPoint::Never,
            ));
            let provider = host.provider_on(Arc::clone(&faulty) as _).unwrap();
            host.back_up_by(&provider, &mut tree.source()).unwrap();
            faulty.count()
        };
        let points: [fn(u64) -> FaultPoint; 3] =
            [FaultPoint::Before, FaultPoint::Only, FaultPoint::After];
        for number in 0..count {
            for point in points {
                host.storage = Arc::new(start.fork());
                let inner = Arc::clone(&host.storage) as _;
                let faulty = Arc::new(Faulty::new(inner, point(number)));
                let ran = (host.provider_on(faulty))
                    .and_then(|provider| host.back_up_by(&provider, &mut tree.source()));
                host.expect(&first, &before);
                let names = host.repository().snapshots_of("main/ct/100").unwrap();
                for name in names.iter().filter(|name| name.as_str() != first.as_str()) {
                    host.expect(&name.as_str().parse().unwrap(), &tree);
                }
                if let Ok((archive, stats)) = ran {
                    host.expect(&archive, &tree);
                    assert_eq!(stats.left_out, 0);
                }
                host.keep(&tree);
            }
        }
    }
}

/// A disk that has room for so many bytes more.
#[derive(Debug)]
struct Small {
    inner: Arc<MemoryStorage>,
    room: AtomicU64,
}

impl Storage for Small {
    fn put(&self, name: &FileName, bytes: &[u8]) -> snapkeep_repo::Result<()> {
        let took = self
            .room
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| {
                room.checked_sub(bytes.len() as u64)
            });
        if took.is_err() {
            let (kind, what) = (snapkeep_repo::ErrorKind::Full, "no space left on device");
            return Err(snapkeep_repo::Error::new(kind, what));
        }
        self.inner.put(name, bytes)
    }

    fn settle(&self, name: &FileName) -> snapkeep_repo::Result<()> {
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
        self.inner.remove(name)
    }
}

#[test]
fn a_disk_that_is_full_fails_the_backup_and_says_so() {
    let host = Host::new(METADATA);
    let mut tree = some();
    let (first, _) = host.keep(&tree);
    let before = tree.clone();
    tree.file("var/larger", &noise(40 << 20, 3));
    let small = Arc::new(Small {
        inner: Arc::clone(&host.storage),
        room: AtomicU64::new(20 << 20),
    });
    let provider = host.provider_on(small).unwrap();
    let error = host.back_up_by(&provider, &mut tree.source()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    assert!(error.chain().contains("no space left"), "{}", error.chain());
    host.expect(&first, &before);
    host.keep(&tree);
}

#[test]
fn a_walker_that_dies_leaves_what_can_be_gone_on_from() {
    let host = Host::new(METADATA);
    let mut tree = some();
    tree.node("var/sparse").mishap = Some(Mishap::Fails(ErrorKind::Source));
    let error = host.back_up(&mut tree.source()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(host.repository().snapshots().unwrap().is_empty());
    tree.node("var/sparse").mishap = None;
    host.keep(&tree);
}

#[test]
fn a_backup_that_is_cancelled_while_it_reads_leaves_no_archive() {
    let mut host = Host::new(METADATA);
    let cancel = host.cancel.clone();
    host.observer = Some(Arc::new(move |read| {
        if read > 1 << 20 {
            cancel.cancel();
        }
    }));
    let mut source = some().source();
    let error = host.back_up(&mut source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(host.repository().snapshots().unwrap().is_empty());
    // Not even the file that was being read is read to its end.
    assert!(source.bytes_read() < 2 << 20, "{}", source.bytes_read());
}

#[test]
fn a_backup_that_is_cancelled_between_two_entries_asks_for_no_more() {
    let host = Host::new(METADATA);
    host.cancel.cancel();
    let mut source = some().source();
    let error = host.back_up(&mut source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(source.judged("etc"), None);
}

#[test]
fn a_panic_fails_its_backup_alone() {
    let mut host = Host::new(METADATA);
    let tree = some();
    let (first, _) = host.keep(&tree);
    host.detection = ChangeDetection::Data;
    host.observer = Some(Arc::new(|read| assert!(read < 1 << 20, "out of order")));
    let error = host.back_up(&mut tree.source()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    for words in ["the file tree", "panicked", "out of order"] {
        assert!(error.chain().contains(words), "{}", error.chain());
    }
    host.observer = None;
    host.expect(&first, &tree);
    host.keep(&tree);
}

#[test]
fn a_backup_is_run_once() {
    let host = Host::new(METADATA);
    let provider = host.provider();
    let now = snapkeep_api::UnixTime(1_700_000_000);
    let mut job = provider.start_job(now).unwrap();
    let mut backup = job.start_container(&"7".parse().unwrap(), now).unwrap();
    let mut run = || {
        backup.run(snapkeep_api::ContainerSource {
            guest_config: b"",
            firewall_config: None,
            bandwidth_limit: None,
            id_map: None,
            tree: &mut some().source(),
        })
    };
    assert!(run().is_ok());
    assert_eq!(run().unwrap_err().kind(), ErrorKind::Protocol);
}
