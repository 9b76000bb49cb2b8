//! Backups of a virtual machine by a host that may only write, on a storage with archives of others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use snapkeep_api::{
    BitmapInfo, BitmapMode, Error, ErrorKind, Outcome, Provider, Region, SnapshotAccess,
    SystemClock, UnixTime, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_provider::{ChangeDetection, Options, RepositoryProvider};
use snapkeep_repo::{KeyFile, MemoryStorage, Protect, Repository, Storage, SystemRandom, Unlock};

use support::{
    CLUSTER, End, Log, Vm, bitmap_storage, device, memory, provider, repository_storage, restored,
};

/// A host's key to a repository.
fn host_key(storage: &Arc<MemoryStorage>) -> KeyFile {
    let files = Arc::clone(storage) as Arc<dyn Storage>;
    let owner = Repository::open(files, Arc::new(SystemRandom), &Unlock::Open).unwrap();
    let key = KeyFile::generate(&SystemRandom).unwrap();
    let protect = Protect::Writer(key.clone());
    owner.add_key(&protect, Some("node-a")).unwrap();
    key
}

/// The same as the support's provider, with a host's key.
fn host(storage: &Arc<MemoryStorage>, key: &KeyFile, log: &Log) -> RepositoryProvider {
    let random = Arc::new(SystemRandom);
    let files = Arc::clone(storage) as Arc<dyn Storage>;
    let unlock = Unlock::KeyFile(key.clone());
    let repository = Repository::open(files, Arc::clone(&random) as _, &unlock).unwrap();
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: Some(bitmap_storage("one.first")),
        workers: 2,
        mechanism: VmMechanism::FileHandle,
        accept_unverified_regions: true,
        change_detection: ChangeDetection::Metadata { audit: 0 },
    };
    let (clock, log) = (Arc::new(SystemClock::new()), Arc::new(log.clone()));
    RepositoryProvider::new(Arc::new(repository), random, clock, log, options)
}

#[track_caller]
fn refused(error: &Error) {
    assert!(
        error.chain().contains("this key may only write"),
        "{}",
        error.chain()
    );
}

#[test]
fn it_goes_on_incrementally_from_an_archive_that_it_cannot_read() {
    memory().0.lock().unwrap().clear();
    let storage = repository_storage();
    let mut vm = Vm::new(70);
    let owner = || provider(&storage, "main", Some("one.first"), &Log::default());
    vm.back_up(&owner(), "one", End::Committed);
    vm.write(1, 0x11);
    let key = host_key(&storage);
    let mut archives = Vec::new();
    for number in 0..3 {
        let log = Log::default();
        let done = vm.back_up(&host(&storage, &key, &log), "one", End::Committed);
        assert_eq!(done.mode, BitmapMode::Reuse, "{:?}", log.lines());
        let read = done.stats.unwrap().read;
        assert_eq!(read, CLUSTER as u64, "only what was written is read");
        archives.push((done.archive, vm.disk.clone()));
        vm.write(3 + number, 0x20);
    }
    for (archive, disk) in &archives {
        assert!(restored(&owner(), archive) == *disk);
        let archive = host(&storage, &key, &Log::default())
            .open_archive(archive)
            .unwrap();
        refused(&archive.guest_config().unwrap_err());
        refused(&archive.restore_vm().err().unwrap());
    }
}

#[test]
fn after_a_backup_that_failed_it_reads_the_disk_whole() {
    memory().0.lock().unwrap().clear();
    let storage = repository_storage();
    let key = host_key(&storage);
    let mut vm = Vm::new(8);
    let back_up = |vm: &mut Vm, end| {
        vm.back_up(&host(&storage, &key, &Log::default()), "one", end)
            .mode
    };
    assert_eq!(back_up(&mut vm, End::Committed), BitmapMode::New);
    vm.write(1, 0x11);
    assert_eq!(back_up(&mut vm, End::Failed), BitmapMode::Reuse);
    assert_eq!(back_up(&mut vm, End::Committed), BitmapMode::New);
    assert_eq!(back_up(&mut vm, End::Committed), BitmapMode::Reuse);
}

/// Behind a file handle there are other bytes outside of what is dirty.
#[test]
fn what_is_dirty_and_finer_than_a_chunk_is_refused_where_the_rest_cannot_be_read() {
    memory().0.lock().unwrap().clear();
    let storage = repository_storage();
    let key = host_key(&storage);
    let mut vm = Vm::new(4);
    let provider = host(&storage, &key, &Log::default());
    let first = vm.back_up(&provider, "one", End::Committed);
    let (now, size) = (UnixTime(1_900_000_000), vm.disk.len() as u64);
    let mut job = provider.start_job(now).unwrap();
    let mut backup = job.start_vm(&"100".parse().unwrap(), now).unwrap();
    let name = vm.bitmaps.keys().next().unwrap().clone();
    let base = Some(first.archive);
    let bitmaps = vec![BitmapInfo { name, base }];
    let volumes = BTreeMap::from([(device(), VolumeInfo { size, bitmaps })]);
    let requests = backup.choose_bitmaps(&vm.incarnation, &volumes).unwrap();
    assert!(format!("{requests:?}").contains("Use"), "{requests:?}");
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![0xbd; vm.disk.len()], 0).unwrap();
    let dirty = Box::new([Region::new(CLUSTER as u64, 512)].into_iter());
    let volume = Volume {
        size,
        bitmap: BitmapMode::Reuse,
        access: SnapshotAccess::FileHandle { file, dirty },
    };
    let source = VmSource {
        guest_config: b"memory: 512\n".to_vec(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([(device(), volume)]),
    };
    let error = backup.run(source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.chain().contains("back up in full"),
        "{}",
        error.chain()
    );
    let outcome = Outcome::Failure(error.chain());
    backup.finish(&outcome).unwrap();
    job.finish(&outcome).unwrap();
}
