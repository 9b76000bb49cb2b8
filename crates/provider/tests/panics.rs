//! A panic while a disk is backed up: that backup fails, and the others do not notice.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use snapkeep_api::{
    BitmapMode, Error, ErrorKind, Outcome, Provider, Region, Result, SnapshotAccess, UnixTime,
    VmSource, Volume,
};
use snapkeep_provider::RepositoryProvider;
use snapkeep_repo::{MemoryStorage, Repository, SnapshotName, SystemRandom, Unlock};
use support::{CLUSTER, End, Log, Vm, provider, repository_storage, restored};

const CLUSTERS: usize = 3000;

/// A backup of a disk of which every cluster is dirty, and for each of which `dirty` is asked.
fn fails(
    provider: &dyn Provider,
    dirty: impl FnMut(usize) -> Result<Region> + Send + 'static,
) -> Error {
    let now = UnixTime(1_900_000_000);
    let mut job = provider.start_job(now).unwrap();
    let mut backup = job.start_vm(&"200".parse().unwrap(), now).unwrap();
    let file = tempfile::tempfile().unwrap();
    let size = (CLUSTERS * CLUSTER) as u64;
    file.set_len(size).unwrap();
    file.write_all_at(&[1; 5000], 0).unwrap();
    let dirty = Box::new((0..CLUSTERS).map(dirty));
    let volume = Volume {
        size,
        bitmap: BitmapMode::None,
        access: SnapshotAccess::FileHandle { file, dirty },
    };
    let source = VmSource {
        guest_config: Vec::new(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([("drive-ide7".parse().unwrap(), volume)]),
    };
    let error = backup.run(source).unwrap_err();
    let outcome = Outcome::Failure(error.chain());
    backup.finish(&outcome).unwrap();
    job.finish(&outcome).unwrap();
    error
}

fn cluster(number: usize) -> Result<Region> {
    Region::new((number * CLUSTER) as u64, CLUSTER as u64)
}

/// The error names the disk and the panic, these are all archives, and the next backup is right.
fn nothing_else_failed(
    error: &Error,
    provider: &RepositoryProvider,
    storage: &Arc<MemoryStorage>,
    vm: &mut Vm,
    archives: &[&str],
) {
    assert_eq!(error.kind(), ErrorKind::Target);
    for words in ["drive-ide7", "panicked", "out of order"] {
        assert!(error.chain().contains(words), "{}", error.chain());
    }
    let random = Arc::new(SystemRandom);
    let repository = Repository::open(Arc::clone(storage) as _, random, &Unlock::Open).unwrap();
    let found = repository.snapshots().unwrap();
    let found: Vec<_> = found.iter().map(SnapshotName::as_str).collect();
    assert_eq!(found, archives);
    vm.write(3, 200);
    let next = vm.back_up(provider, "a", End::Committed);
    assert!(restored(provider, &next.archive) == vm.disk);
}

#[test]
fn a_panic_of_a_thread_that_reads_fails_its_backup_alone() {
    let storage = repository_storage();
    let quiet = provider(&storage, "main", Some("a"), &Log::default());
    let vm = Arc::new(Mutex::new(Vm::new(40)));
    let during = Arc::new(Mutex::new(None));
    let (guest, other, slot) = (Arc::clone(&vm), quiet.clone(), Arc::clone(&during));
    let panicking = quiet.clone().with_observer(Arc::new(move |_| {
        // Another backup, from its start to its commit, in the middle of this one.
        let other = || guest.lock().unwrap().back_up(&other, "a", End::Committed);
        slot.lock().unwrap().get_or_insert_with(other);
        panic!("out of order");
    }));
    let handed_out = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handed_out);
    let error = fails(&panicking, move |number| {
        count.fetch_add(1, Ordering::SeqCst);
        cluster(number)
    });
    // The rest of the disk is not read for nothing.
    let handed_out = handed_out.load(Ordering::SeqCst);
    assert!(handed_out < CLUSTERS, "{handed_out}");
    let done = during.lock().unwrap().take().unwrap();
    let mut vm = vm.lock().unwrap();
    assert!(restored(&quiet, &done.archive) == vm.disk);
    nothing_else_failed(&error, &quiet, &storage, &mut vm, &[done.archive.as_str()]);
}

#[test]
fn a_panic_in_the_list_of_dirty_regions_fails_its_backup_alone() {
    let storage = repository_storage();
    let provider = provider(&storage, "main", Some("a"), &Log::default());
    let error = fails(&provider, |number| {
        assert!(number < CLUSTERS / 2, "out of order");
        cluster(number)
    });
    nothing_else_failed(&error, &provider, &storage, &mut Vm::new(40), &[]);
}
