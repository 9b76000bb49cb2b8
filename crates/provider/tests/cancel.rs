//! A backup that is cancelled while it runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use snapkeep_api::{
    BitmapMode, Cancel, DeviceName, ErrorKind, Incarnation, Level, Outcome, Provider, Region,
    SnapshotAccess, SystemClock, TaskLog, UnixTime, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_nbd::{Address, Export, ExportError, Extent, Server, ServerOptions};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom};

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

/// What a backup needs.
struct Host {
    repository: Arc<Repository>,
    provider: RepositoryProvider,
    cancel: Cancel,
}

const SIZE: u64 = 4 << 20;

fn device() -> DeviceName {
    "drive-scsi0".parse().unwrap()
}

impl Host {
    fn new(mechanism: VmMechanism) -> Self {
        let random = Arc::new(SystemRandom);
        let storage = Arc::new(MemoryStorage::new());
        let repository =
            Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 64 << 10).unwrap();
        let repository = Arc::new(repository);
        let options = Options {
            namespace: "main".parse().unwrap(),
            storage: None,
            workers: 2,
            mechanism,
            accept_unverified_regions: false,
            change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
        };
        let cancel = Cancel::new();
        let clock = Arc::new(SystemClock::new());
        let files = Arc::clone(&repository);
        let provider = RepositoryProvider::new(files, random, clock, Arc::new(Quiet), options)
            .with_cancel(cancel.clone());
        Self {
            repository,
            provider,
            cancel,
        }
    }

    /// Backs up a disk by this access, and is cancelled.
    fn back_up(&self, access: SnapshotAccess) {
        let mut job = self.provider.start_job(UnixTime(0)).unwrap();
        let mut vm = job.start_vm(&"100".parse().unwrap(), UnixTime(0)).unwrap();
        let info = VolumeInfo {
            size: SIZE,
            bitmaps: Vec::new(),
        };
        vm.choose_bitmaps(&Incarnation::default(), &BTreeMap::from([(device(), info)]))
            .unwrap();
        let volume = Volume {
            size: SIZE,
            bitmap: BitmapMode::New,
            access,
        };
        let source = VmSource {
            guest_config: Vec::new(),
            firewall_config: None,
            bandwidth_limit: None,
            volumes: BTreeMap::from([(device(), volume)]),
        };
        assert_eq!(vm.run(source).unwrap_err().kind(), ErrorKind::Cancelled);
        vm.finish(&Outcome::Failure("cancelled".to_owned()))
            .unwrap();
        assert!(self.repository.snapshots().unwrap().is_empty());
    }
}

#[test]
fn a_backup_that_is_cancelled_while_it_runs_leaves_no_archive() {
    let host = Host::new(VmMechanism::FileHandle);
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE).unwrap();
    let cancel = host.cancel.clone();
    let dirty = Box::new((0..2).map(move |half| {
        if half == 1 {
            cancel.cancel();
        }
        Region::new(half * SIZE / 2, SIZE / 2)
    }));
    host.back_up(SnapshotAccess::FileHandle { file, dirty });
}

/// Does not answer before the test ends.
struct Silent {
    asked: Sender<()>,
    end: Mutex<Receiver<()>>,
}

impl Export for Silent {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), ExportError> {
        self.asked.send(()).ok();
        self.end.lock().unwrap().recv().ok();
        Ok(())
    }

    fn extents(&self, _: &str, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        Ok(vec![Extent {
            offset,
            length,
            flags: 0,
        }])
    }
}

#[test]
fn a_backup_that_is_cancelled_does_not_wait_for_a_silent_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let (asked, is_asked) = channel();
    let (end, ended) = channel();
    let end_of_export = Mutex::new(ended);
    let export = Arc::new(Silent {
        asked,
        end: end_of_export,
    });
    let exports = BTreeMap::from([(device().to_string(), export as Arc<dyn Export>)]);
    let address = Address::Unix(socket.clone());
    let server = Server::bind(address, exports, ServerOptions::default()).unwrap();
    let host = Host::new(VmMechanism::Nbd);
    let cancel = host.cancel.clone();
    let (done, is_done) = channel();
    let running = thread::spawn(move || {
        let bitmap = None;
        host.back_up(SnapshotAccess::Nbd { socket, bitmap });
        done.send(()).unwrap();
    });
    is_asked.recv().unwrap();
    cancel.cancel();
    // The source itself gives up after two minutes.
    let soon = is_done.recv_timeout(Duration::from_secs(60));
    drop(end);
    running.join().unwrap();
    soon.unwrap();
    drop(server);
}
