//! What a caller is told of archives and may set of them, and what becomes of task logs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use snapkeep_api::{
    ArchiveName, BackupJob, ErrorKind, GuestKind, Level, Outcome, Provider, SteppingClock, TaskLog,
    TaskLogFile, UnixTime, VmMechanism, VmSource,
};
use snapkeep_provider::{Catalogue, ChangeDetection, Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom};

/// 2027-01-15T08:00:00Z.
const START: i64 = 1_800_000_000;
const LOG_MAX: usize = 16 << 20;

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl TaskLog for Log {
    fn log(&self, level: Level, message: &str) {
        self.0.lock().unwrap().push((level, message.to_owned()));
    }
}

struct Host {
    repository: Arc<Repository>,
    provider: RepositoryProvider,
    catalogue: Catalogue,
    log: Log,
}

impl Host {
    fn new() -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let random = Arc::new(SystemRandom);
        let repository =
            Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 64 << 10);
        let repository = Arc::new(repository.unwrap());
        let options = Options {
            namespace: "main".parse().unwrap(),
            storage: None,
            workers: 1,
            mechanism: VmMechanism::Nbd,
            accept_unverified_regions: false,
            change_detection: ChangeDetection::Data,
        };
        let clock = Arc::new(SteppingClock::new(UnixTime(START)));
        let log = Log::default();
        let shared = Arc::clone(&repository);
        let catalogue = Catalogue::new(Arc::clone(&repository), "main".parse().unwrap());
        Self {
            provider: RepositoryProvider::new(
                shared,
                random,
                clock,
                Arc::new(log.clone()),
                options,
            ),
            repository,
            catalogue,
            log,
        }
    }

    fn job(&self) -> Box<dyn BackupJob> {
        self.provider.start_job(UnixTime(START)).unwrap()
    }

    fn back_up_in(job: &mut dyn BackupJob, guest: &str, outcome: &Outcome) -> ArchiveName {
        let mut vm = (job.start_vm(&guest.parse().unwrap(), UnixTime(START))).unwrap();
        let name = vm.archive_name().clone();
        vm.run(VmSource {
            guest_config: b"memory: 512\n".to_vec(),
            firewall_config: None,
            bandwidth_limit: None,
            volumes: BTreeMap::new(),
        })
        .unwrap();
        vm.finish(outcome).unwrap();
        name
    }

    fn back_up(&self, guest: &str) -> ArchiveName {
        Self::back_up_in(&mut *self.job(), guest, &Outcome::Success)
    }

    fn warnings(&self) -> usize {
        let lines = self.log.0.lock().unwrap();
        lines.iter().filter(|line| line.0 == Level::Warn).count()
    }

    /// The log of a new archive that was given this file; and how many warnings there were.
    fn keep(&self, path: &Path) -> (Option<String>, usize) {
        let before = self.warnings();
        let mut job = self.job();
        let name = Self::back_up_in(&mut *job, "100", &Outcome::Success);
        let guest = "100".parse().unwrap();
        job.keep_task_log(&TaskLogFile {
            guest: &guest,
            archive: Some(&name),
            path,
        })
        .unwrap();
        let kept = self.catalogue.task_log(&name).unwrap();
        assert_eq!(
            self.catalogue.get(&name).unwrap().has_task_log,
            kept.is_some()
        );
        let kept = kept.map(|bytes| String::from_utf8(bytes).unwrap());
        (kept, self.warnings() - before)
    }
}

#[test]
fn archives_are_listed_with_what_was_set_of_them() {
    let host = Host::new();
    let one = host.back_up("100");
    let two = host.back_up("200");
    host.catalogue
        .set_notes(&one, "before the upgrade")
        .unwrap();
    host.catalogue.set_protected(&one, true).unwrap();
    let all = host.catalogue.list(None, None).unwrap();
    let names: Vec<_> = all.archives.iter().map(|found| &found.name).collect();
    assert_eq!(names, [&one, &two]);
    assert!(all.damaged.is_empty());
    let found = &all.archives[0];
    assert_eq!((found.kind, &*found.guest), (GuestKind::Qemu, "100"));
    assert_eq!(found.notes.as_deref(), Some("before the upgrade"));
    assert!(found.protected && !found.encrypted && found.problem.is_none());
    let list = |kind, guest: Option<&str>| {
        let guest = guest.map(|guest| guest.parse().unwrap());
        let listed = host.catalogue.list(kind, guest.as_ref()).unwrap();
        listed.archives.len()
    };
    assert_eq!(list(Some(GuestKind::Lxc), None), 0);
    assert_eq!(list(Some(GuestKind::Qemu), None), 2);
    assert_eq!(list(None, Some("200")), 1);
    assert_eq!(list(Some(GuestKind::Lxc), Some("200")), 0);
    host.catalogue.set_notes(&one, "").unwrap();
    assert_eq!(host.catalogue.get(&one).unwrap().notes, None);
}

#[test]
fn what_is_forgotten_is_gone_until_it_is_taken_back_and_keeps_its_second() {
    let host = Host::new();
    let one = host.back_up("100");
    host.catalogue.set_protected(&one, true).unwrap();
    let error = host.catalogue.forget(&one).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.chain().contains("unprotect"), "{}", error.chain());
    host.catalogue.set_protected(&one, false).unwrap();
    host.catalogue.forget(&one).unwrap();
    assert!(host.catalogue.list(None, None).unwrap().archives.is_empty());
    for error in [
        host.catalogue.get(&one).unwrap_err(),
        host.provider.open_archive(&one).err().unwrap(),
        host.catalogue.set_notes(&one, "x").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.chain().contains("forget --undo"), "{}", error.chain());
    }
    let two = host.back_up("100");
    assert!(two.as_str().contains("08:00:01Z"), "{two}");
    host.catalogue.take_back(&one).unwrap();
    host.provider.open_archive(&one).unwrap();
    assert_eq!(host.repository.snapshots().unwrap().len(), 2);
}

#[test]
fn an_archive_of_another_namespace_is_not_there() {
    let host = Host::new();
    let one = host.back_up("100");
    let other = Catalogue::new(Arc::clone(&host.repository), "other".parse().unwrap());
    assert!(other.list(None, None).unwrap().archives.is_empty());
    assert_eq!(other.get(&one).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(other.forget(&one).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_callers_error_stays_with_an_archive_that_was_committed() {
    let host = Host::new();
    let outcome = Outcome::Failure("the guest did not thaw".to_owned());
    let name = Host::back_up_in(&mut *host.job(), "100", &outcome);
    let found = host.catalogue.get(&name).unwrap();
    assert_eq!(
        found.caller_error.as_deref(),
        Some("the guest did not thaw")
    );
    let long = Outcome::Failure("ä".repeat(20_000));
    let name = Host::back_up_in(&mut *host.job(), "100", &long);
    let kept = host.catalogue.get(&name).unwrap().caller_error.unwrap();
    assert_eq!(kept.len(), 16 << 10);
}

#[test]
fn a_task_log_is_kept_without_its_secrets_with_the_guests_last_archive() {
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    fs::write(&path, b"started\nPASSWORD=hunter2\nodd \xff\nended\n").unwrap();
    let (kept, warnings) = host.keep(&path);
    let kept = kept.unwrap();
    assert!(!kept.contains("hunter2"), "{kept}");
    assert!(kept.starts_with("started\n") && kept.ends_with("odd \u{fffd}\nended\n"));
    assert_eq!(warnings, 0);
}

#[test]
fn a_huge_task_log_keeps_its_beginning_and_its_end() {
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let file = File::create(&path).unwrap();
    let length = 2 << 30;
    file.set_len(length).unwrap();
    file.write_all_at(b"the beginning\n", 0).unwrap();
    file.write_all_at(b"\nthe end\n", length - 9).unwrap();
    let (kept, warnings) = host.keep(&path);
    let kept = kept.unwrap();
    assert!(kept.len() <= LOG_MAX, "{}", kept.len());
    assert!(kept.starts_with("the beginning\n") && kept.ends_with("the end\n"));
    assert!(kept.contains("bytes of this log were left out here"));
    assert_eq!(warnings, 0);
}

#[test]
fn a_task_log_that_cannot_be_read_is_a_warning_and_no_failure() {
    let host = Host::new();
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let missing = folder.path().join("missing");
    for path in [&missing, &folder.path().to_owned(), &fifo] {
        assert_eq!(host.keep(path), (None, 1), "{}", path.display());
    }
    let empty = folder.path().join("empty");
    fs::write(&empty, b"").unwrap();
    assert_eq!(host.keep(&empty), (Some(String::new()), 0));
}

#[test]
fn the_log_of_a_guest_without_an_archive_is_kept_nowhere() {
    let host = Host::new();
    let mut job = host.job();
    let guest = "100".parse().unwrap();
    let path = Path::new("/nonexistent");
    let log = TaskLogFile {
        guest: &guest,
        archive: None,
        path,
    };
    job.keep_task_log(&log).unwrap();
    assert_eq!(host.warnings(), 0);
}
