//! The archives of one guest have an order: each is of a later second than those before it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapkeep_api::{
    Cancel, Clock, ErrorKind, Level, Outcome, Provider, Result, SteppingClock, TaskLog, UnixTime,
    VmMechanism, VmSource,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, Storage, SystemRandom, Unlock};

/// 2027-01-15T08:00:00Z.
const START: i64 = 1_800_000_000;

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl TaskLog for Log {
    fn log(&self, level: Level, message: &str) {
        self.0.lock().unwrap().push((level, message.to_owned()));
    }
}

/// A host with a clock of its own on a repository that it shares.
struct Host {
    provider: RepositoryProvider,
    clock: Arc<SteppingClock>,
    log: Log,
}

fn repository() -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new());
    let random = Arc::new(SystemRandom);
    Repository::init(Arc::clone(&storage) as _, random, &Protect::Open, 64 << 10).unwrap();
    storage
}

fn open(storage: &Arc<MemoryStorage>) -> Repository {
    let storage = Arc::clone(storage) as Arc<dyn Storage>;
    Repository::open(storage, Arc::new(SystemRandom), &Unlock::Open).unwrap()
}

impl Host {
    fn new(storage: &Arc<MemoryStorage>, now: i64) -> Self {
        let options = Options {
            namespace: "main".parse().unwrap(),
            storage: None,
            workers: 1,
            mechanism: VmMechanism::Nbd,
            accept_unverified_regions: false,
            change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
        };
        let clock = Arc::new(SteppingClock::new(UnixTime(now)));
        let log = Log::default();
        let provider = RepositoryProvider::new(
            Arc::new(open(storage)),
            Arc::new(SystemRandom),
            Arc::clone(&clock) as _,
            Arc::new(log.clone()),
            options,
        );
        Self {
            provider,
            clock,
            log,
        }
    }

    /// Backs up a guest without disks that says its backup started at this time.
    fn back_up(&self, guest: &str, start: i64) -> Result<String> {
        let mut job = self.provider.start_job(UnixTime(start))?;
        let mut vm = job.start_vm(&guest.parse()?, UnixTime(start))?;
        let name = vm.archive_name().to_string();
        vm.run(VmSource {
            guest_config: b"memory: 512\n".to_vec(),
            firewall_config: None,
            bandwidth_limit: None,
            volumes: BTreeMap::new(),
        })?;
        vm.finish(&Outcome::Success)?;
        Ok(name)
    }

    fn warnings(&self) -> Vec<String> {
        let lines = self.log.0.lock().unwrap();
        let warnings = lines.iter().filter(|(level, _)| *level == Level::Warn);
        warnings.map(|(_, line)| line.clone()).collect()
    }
}

/// The last part of a name but its random digits.
fn second(name: &str) -> &str {
    name.rsplit_once('/').unwrap().1.rsplit_once('-').unwrap().0
}

fn listed(storage: &Arc<MemoryStorage>) -> Vec<String> {
    let names = open(storage).snapshots_of("main/vm/100").unwrap();
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn backups_within_a_second_are_a_second_apart_and_listed_in_their_order() {
    let storage = repository();
    let host = Host::new(&storage, START);
    let made: Vec<_> = (0..4)
        .map(|_| host.back_up("100", START).unwrap())
        .collect();
    let seconds: Vec<_> = made.iter().map(|name| second(name)).collect();
    let expected = [
        "2027-01-15T08:00:00Z",
        "2027-01-15T08:00:01Z",
        "2027-01-15T08:00:02Z",
        "2027-01-15T08:00:03Z",
    ];
    assert_eq!(seconds, expected);
    assert_eq!(listed(&storage), made);
    let name = made.last().unwrap().parse().unwrap();
    assert_eq!(open(&storage).snapshot(&name).unwrap().time, START + 3);
    // It waited for each of them, and nothing was out of the ordinary.
    assert_eq!(host.clock.monotonic(), Duration::from_secs(3));
    assert!(host.warnings().is_empty(), "{:?}", host.warnings());
}

#[test]
fn another_guest_waits_for_nobody() {
    let storage = repository();
    let host = Host::new(&storage, START);
    for guest in ["100", "10", "1000", "x"] {
        let name = host.back_up(guest, START).unwrap();
        assert_eq!(second(&name), "2027-01-15T08:00:00Z");
    }
    assert_eq!(host.clock.monotonic(), Duration::ZERO);
}

#[test]
fn a_start_that_was_long_ago_is_no_older_than_an_archive_made_since() {
    let storage = repository();
    Host::new(&storage, START + 500)
        .back_up("100", START + 500)
        .unwrap();
    let host = Host::new(&storage, START + 600);
    let name = host.back_up("100", START).unwrap();
    assert_eq!(second(&name), "2027-01-15T08:10:00Z");
    assert_eq!(host.clock.monotonic(), Duration::ZERO);
}

#[test]
fn a_clock_that_is_a_little_behind_is_waited_for_and_told() {
    let storage = repository();
    Host::new(&storage, START + 9)
        .back_up("100", START + 9)
        .unwrap();
    let behind = Host::new(&storage, START);
    let name = behind.back_up("100", START).unwrap();
    assert_eq!(second(&name), "2027-01-15T08:00:10Z");
    assert_eq!(behind.clock.now(), UnixTime(START + 10));
    assert_eq!(listed(&storage).last(), Some(&name));
    let told = behind.warnings().join("\n");
    for part in ["2027-01-15T08:00:09Z", "2027-01-15T08:00:00Z", "10 s"] {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_clock_that_is_far_behind_fails_the_backup_at_once_and_names_both_times() {
    let storage = repository();
    let future = Host::new(&storage, START + 86_400);
    let newest = future.back_up("100", START + 86_400).unwrap();
    let behind = Host::new(&storage, START);
    let error = behind.back_up("100", START).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let said = error.chain();
    for part in [&newest, "2027-01-16T08:00:00Z", "2027-01-15T08:00:00Z"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(behind.clock.monotonic(), Duration::ZERO);
    assert_eq!(listed(&storage), std::slice::from_ref(&newest));
    // What the message tells to do helps.
    assert!(
        said.contains(&format!("`snapkeep forget {newest}`")),
        "{said}"
    );
    let archive = newest.parse().unwrap();
    open(&storage).forget(&archive).unwrap();
    let made = behind.back_up("100", START).unwrap();
    assert_eq!(second(&made), "2027-01-15T08:00:00Z");
    // Others keep their order, forgotten or not.
    open(&storage).forget(&made.parse().unwrap()).unwrap();
    let next = behind.back_up("100", START).unwrap();
    assert_eq!(second(&next), "2027-01-15T08:00:01Z");
    open(&storage).take_back(&archive).unwrap();
    let error = behind.back_up("100", START).unwrap_err();
    assert!(error.chain().contains(&newest), "{}", error.chain());
}

#[test]
fn a_name_that_says_no_time_does_not_keep_anybody_waiting() {
    let storage = repository();
    for name in ["x", "2099-0", "2099-01-01T00:00:00+01:00-0", "zzz-00"] {
        let file = format!("snapshots/main/vm/100/{name}").parse();
        if let Ok(file) = file {
            storage.put(&file, b"nothing of ours").unwrap();
        }
    }
    let host = Host::new(&storage, START);
    let name = host.back_up("100", START).unwrap();
    assert_eq!(second(&name), "2027-01-15T08:00:00Z");
}

#[test]
fn who_is_cancelled_does_not_wait_for_the_clock() {
    let storage = repository();
    let host = Host::new(&storage, START);
    host.back_up("100", START).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let clock = Arc::clone(&host.clock);
    let host = Host {
        provider: host.provider.with_cancel(cancel),
        ..host
    };
    let error = host.back_up("100", START).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(clock.monotonic(), Duration::ZERO);
}
