//! An archive of another kind of guest, which a newer program made.

use std::sync::Arc;

use snapkeep_api::{ErrorKind, GuestKind, Level, Provider, SystemClock, TaskLog, VmMechanism};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{
    BlobRef, MemoryStorage, Protect, Repository, Snapshot, Stats, SystemRandom, Writer,
};

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
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
        guest_config: BlobRef {
            chunk: None,
            length: 0,
        },
        firewall_config: None,
        writer: String::new(),
        index_objects: 0,
        stats: Stats::default(),
        program: "a newer one".to_owned(),
    };
    let writer = Writer::new(Arc::clone(&repository)).unwrap();
    writer.commit(&name.parse().unwrap(), snapshot).unwrap();
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 1,
        mechanism: VmMechanism::Nbd,
        accept_unverified_regions: false,
    };
    let clock = Arc::new(SystemClock::new());
    let provider = RepositoryProvider::new(repository, random, clock, Arc::new(Quiet), options);
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
