//! A backup that is cancelled while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_api::{
    BitmapMode, Cancel, DeviceName, ErrorKind, Incarnation, Level, Outcome, Provider, Region,
    SnapshotAccess, SystemClock, TaskLog, UnixTime, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom};

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

#[test]
fn a_backup_that_is_cancelled_while_it_runs_leaves_no_archive() {
    let random = Arc::new(SystemRandom);
    let storage = Arc::new(MemoryStorage::new());
    let repository =
        Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 64 << 10).unwrap();
    let repository = Arc::new(repository);
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 2,
        mechanism: VmMechanism::FileHandle,
        accept_unverified_regions: false,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
    };
    let cancel = Cancel::new();
    let clock = Arc::new(SystemClock::new());
    let provider = RepositoryProvider::new(
        Arc::clone(&repository),
        random,
        clock,
        Arc::new(Quiet),
        options,
    )
    .with_cancel(cancel.clone());
    let mut job = provider.start_job(UnixTime(0)).unwrap();
    let mut vm = job.start_vm(&"100".parse().unwrap(), UnixTime(0)).unwrap();
    let size = 4 << 20;
    let device: DeviceName = "drive-scsi0".parse().unwrap();
    let bitmaps = Vec::new();
    let volumes = BTreeMap::from([(device.clone(), VolumeInfo { size, bitmaps })]);
    vm.choose_bitmaps(&Incarnation::default(), &volumes)
        .unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    let dirty = Box::new((0..2).map(move |half| {
        if half == 1 {
            cancel.cancel();
        }
        Region::new(half * size / 2, size / 2)
    }));
    let access = SnapshotAccess::FileHandle { file, dirty };
    let bitmap = BitmapMode::New;
    let volume = Volume {
        size,
        bitmap,
        access,
    };
    let source = VmSource {
        guest_config: Vec::new(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([(device, volume)]),
    };
    assert_eq!(vm.run(source).unwrap_err().kind(), ErrorKind::Cancelled);
    vm.finish(&Outcome::Failure("cancelled".to_owned()))
        .unwrap();
    assert!(repository.snapshots().unwrap().is_empty());
}
