//! What a newer program made: an archive of another kind of guest, a repository that this one may
//! only read.

use std::sync::Arc;

use snapkeep_api::{
    ErrorKind, GuestKind, Level, Provider, SystemClock, TaskLog, UnixTime, VmMechanism,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{
    BlobRef, MemoryStorage, Protect, Repository, Snapshot, Stats, Storage, SystemRandom, Unlock,
    Writer,
};

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

fn provider(repository: Arc<Repository>) -> RepositoryProvider {
    let options = Options {
        namespace: "main".parse().expect("a name"),
        storage: None,
        workers: 1,
        mechanism: VmMechanism::Nbd,
        accept_unverified_regions: false,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
    };
    let (random, clock) = (Arc::new(SystemRandom), Arc::new(SystemClock::new()));
    RepositoryProvider::new(repository, random, clock, Arc::new(Quiet), options)
}

/// Otherwise a guest's disks would be frozen first.
#[test]
fn no_job_starts_where_nothing_may_be_written() {
    let random = Arc::new(SystemRandom);
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (stored, protect) = (Arc::clone(&storage), Protect::Open);
    Repository::init(stored, Arc::clone(&random) as _, &protect, 64 << 10).unwrap();
    let feature = "features/read_only_compatible-shelves-1".parse().unwrap();
    storage.put(&feature, b"").unwrap();
    let repository = Repository::open(storage, random, &Unlock::Open).unwrap();
    let provider = provider(Arc::new(repository));
    let now = UnixTime(1_800_000_000);
    let error = provider.start_job(now).err().unwrap();
    assert!(error.chain().contains("shelves-1"), "{}", error.chain());
}

#[test]
fn an_archive_of_a_container_is_no_virtual_machine_without_disks() {
    let random = Arc::new(SystemRandom);
    let storage = Arc::new(MemoryStorage::new());
    let repository =
        Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 64 << 10).unwrap();
    let repository = Arc::new(repository);
    let name = "main/ct/200/2027-01-15T08:00:00Z-00000000000000ff";
    let snapshot = Snapshot {
        id: String::new(),
        repository: String::new(),
        needs: Vec::new(),
        time: 1_800_000_000,
        disks: Vec::new(),
        tree: None,
        guest_config: BlobRef {
            chunk: None,
            length: 0,
        },
        firewall_config: None,
        writer: String::new(),
        index_objects: 0,
        origin: None,
        generation: 0,
        stats: Stats::default(),
        program: "a newer one".to_owned(),
    };
    let writer = Writer::new(Arc::clone(&repository)).unwrap();
    writer.commit(&name.parse().unwrap(), snapshot).unwrap();
    let provider = provider(repository);
    let name = name.parse().unwrap();
    let archive = provider.open_archive(&name).unwrap();
    assert_eq!(archive.guest_kind(), GuestKind::Lxc);
    let error = archive.restore_vm().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.chain().contains("of a container"),
        "{}",
        error.chain()
    );
    let archive = provider.open_archive(&name).unwrap();
    let error = archive.restore_container().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
