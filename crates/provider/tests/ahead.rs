//! What is read of a container before it stands still is not read again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use snapkeep_api::memory::tree::MemoryTree;
use snapkeep_api::tree::{Judgement, TreeSource};
use snapkeep_api::{
    BackupStats, ContainerSource, Level, Outcome, Provider, SteppingClock, TaskLog, UnixTime,
    VmMechanism,
};
use snapkeep_provider::{ChangeDetection, Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom};

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

const START: UnixTime = UnixTime(1_700_000_000);

fn container(tree: &mut dyn TreeSource) -> ContainerSource<'_> {
    ContainerSource {
        guest_config: b"",
        firewall_config: None,
        bandwidth_limit: None,
        id_map: None,
        tree,
    }
}

fn provider(change_detection: ChangeDetection) -> RepositoryProvider {
    let random = Arc::new(SystemRandom);
    let storage = Arc::new(MemoryStorage::new());
    let repository = Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 64 << 10);
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 2,
        mechanism: VmMechanism::Nbd,
        accept_unverified_regions: false,
        change_detection,
    };
    RepositoryProvider::new(
        Arc::new(repository.unwrap()),
        random,
        Arc::new(SteppingClock::new(START)),
        Arc::new(Quiet),
        options,
    )
}

/// Backs one tree up ahead of the other, and tells what was answered about `stays` and `changed`.
fn judged(detection: ChangeDetection) -> (BackupStats, [Option<Judgement>; 2]) {
    let provider = provider(detection);
    let mut tree = MemoryTree::new();
    tree.file("stays", &vec![1; 300_000]);
    tree.file("changed", &vec![2; 200_000]);
    tree.set_time(UnixTime(START.0 - 100));
    let mut job = provider.start_job(START).unwrap();
    let mut backup = job.start_container(&"ct".parse().unwrap(), START).unwrap();
    backup.read_ahead(container(&mut tree.source())).unwrap();
    tree.write("changed", &vec![3; 200_000]);
    let mut source = tree.source();
    let stats = backup.run(container(&mut source)).unwrap();
    backup.finish(&Outcome::Success).unwrap();
    job.finish(&Outcome::Success).unwrap();
    (stats, ["stays", "changed"].map(|path| source.judged(path)))
}

#[test]
fn only_what_changed_since_is_read_when_the_container_stands_still() {
    let (stats, judged) = judged(ChangeDetection::Metadata { audit: 0 });
    assert_eq!(judged, [Some(Judgement::Known), Some(Judgement::Read)]);
    assert_eq!(stats.read, 300_000 + 2 * 200_000);
    assert_eq!(stats.new, 300_000 + 2 * 200_000);
}

#[test]
fn nothing_is_read_ahead_when_all_is_read_anyway() {
    let (stats, judged) = judged(ChangeDetection::Data);
    assert_eq!(judged[0], Some(Judgement::Read));
    assert_eq!(stats.read, 500_000);
}

#[test]
fn a_lie_that_is_found_ahead_is_remembered_and_next_time_too() {
    // Half of the files are audited: a file that is found out once would be believed by chance.
    for _ in 0..16 {
        let provider = provider(ChangeDetection::Metadata { audit: 500 });
        let mut tree = MemoryTree::new();
        tree.file("file", &[1; 10_000]);
        tree.set_time(UnixTime(START.0 - 100));
        let back_up = |tree: &MemoryTree, ahead: bool| {
            let mut job = provider.start_job(START).unwrap();
            let mut backup = job.start_container(&"ct".parse().unwrap(), START).unwrap();
            let found = ahead.then(|| {
                let mut source = tree.source();
                backup.read_ahead(container(&mut source)).unwrap();
                source.judged("file") == Some(Judgement::Audit)
            });
            let mut source = tree.source();
            backup.run(container(&mut source)).unwrap();
            backup.finish(&Outcome::Success).unwrap();
            job.finish(&Outcome::Success).unwrap();
            (found, source.judged("file"))
        };
        back_up(&tree, false);
        // The content changes, and nothing tells.
        tree.node("file").forge(&[2; 10_000]);
        let (found, judged) = back_up(&tree, true);
        if found == Some(true) {
            assert_eq!(judged, Some(Judgement::Read));
            assert_eq!(back_up(&tree, false).1, Some(Judgement::Read));
        }
    }
}
