//! A machine that has few threads to give, or none at all: the test starts itself again where there
//! is little room for their stacks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::process::Command;
use std::sync::{Arc, Mutex};

use snapkeep_api::{
    BitmapMode, DeviceName, ErrorKind, Level, Provider, Region, SnapshotAccess, SystemClock,
    TaskLog, UnixTime, VmMechanism, VmSource, Volume,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom};

/// Tells the process that was started again how many threads it will get.
const FEW: &str = "SNAPKEEP_TEST_THREADS";
/// Address space, in KiB; two or three of the smaller stacks fit.
const SPACE_KIB: u64 = 3 << 20;
const STACKS: [(&str, u64); 2] = [("some", 800 << 20), ("none", 4 << 30)];

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl TaskLog for Log {
    fn log(&self, level: Level, message: &str) {
        if level == Level::Warn {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }
}

#[test]
fn a_backup_goes_on_with_the_threads_it_gets_and_fails_without_any() {
    if let Ok(threads) = env::var(FEW) {
        return back_up(threads == "some");
    }
    let me = env::current_exe().unwrap();
    let name = "a_backup_goes_on_with_the_threads_it_gets_and_fails_without_any";
    let script = format!("ulimit -v {SPACE_KIB} && exec \"$0\" --exact {name} --test-threads=1");
    for (threads, stack) in STACKS {
        let mut again = Command::new("sh");
        again.args(["-c", &script]).arg(&me).env(FEW, threads);
        let output = again.env("RUST_MIN_STACK", stack.to_string()).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let fine = output.status.success() && said.contains("1 passed");
        assert!(fine, "{threads}: {said}");
    }
}

fn back_up(some: bool) {
    let random = Arc::new(SystemRandom);
    let storage = Arc::new(MemoryStorage::new());
    let repository = Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 64 << 10);
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 16,
        mechanism: VmMechanism::FileHandle,
        accept_unverified_regions: false,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
    };
    let log = Log::default();
    let provider = RepositoryProvider::new(
        Arc::new(repository.unwrap()),
        random,
        Arc::new(SystemClock::new()),
        Arc::new(log.clone()),
        options,
    );
    let size = 8 << 20;
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    let dirty = Box::new([Region::new(0, size)].into_iter());
    let volume = Volume {
        size,
        bitmap: BitmapMode::New,
        access: SnapshotAccess::FileHandle { file, dirty },
    };
    let device: DeviceName = "drive-scsi0".parse().unwrap();
    let mut job = provider.start_job(UnixTime(0)).unwrap();
    let mut vm = job.start_vm(&"100".parse().unwrap(), UnixTime(0)).unwrap();
    let ran = vm.run(VmSource {
        guest_config: Vec::new(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([(device, volume)]),
    });
    if some {
        assert_eq!(ran.unwrap().read, size);
        let told = log.0.lock().unwrap().join("\n");
        assert!(told.contains("drive-scsi0: only"), "{told}");
    } else {
        let error = ran.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    }
}
