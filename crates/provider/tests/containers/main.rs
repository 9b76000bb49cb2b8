//! Containers in a repository: what is taken for unchanged, what goes wrong, what it costs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cost;
mod detection;
mod faults;
mod model;
mod problems;
mod restore;
mod resume;

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use snapkeep_api::conformance::tree_difference;
use snapkeep_api::memory::tree::MemoryTree;
use snapkeep_api::tree::{TreeReader, TreeSource};
use snapkeep_api::{
    ArchiveName, BackupStats, Cancel, Clock, ContainerSource, Level, Outcome, Provider, Result,
    SteppingClock, TaskLog, UnixTime, VmMechanism,
};
use snapkeep_provider::{ChangeDetection, Observer, Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, Storage, SystemRandom, Unlock};

/// Believes all that looks unchanged.
const METADATA: ChangeDetection = ChangeDetection::Metadata { audit: 0 };
/// Looks after all that looks unchanged.
const AUDIT: ChangeDetection = ChangeDetection::Metadata { audit: 1000 };

/// Keeps what was logged.
#[derive(Default)]
struct Log(Mutex<Vec<(Level, String)>>);

impl TaskLog for Log {
    fn log(&self, level: Level, message: &str) {
        self.0.lock().unwrap().push((level, message.to_owned()));
    }
}

/// A host that backs containers up to one repository, each backup a second after the one before.
struct Host {
    storage: Arc<MemoryStorage>,
    clock: Arc<SteppingClock>,
    log: Arc<Log>,
    cancel: Cancel,
    observer: Option<Observer>,
    namespace: &'static str,
    detection: ChangeDetection,
    limit: Option<NonZeroU64>,
}

impl Host {
    fn new(detection: ChangeDetection) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let random = Arc::new(SystemRandom);
        Repository::init(Arc::clone(&storage) as _, random, &Protect::Open, 64 << 10).unwrap();
        Self {
            storage,
            clock: Arc::new(SteppingClock::new(UnixTime(1_700_000_000))),
            log: Arc::default(),
            cancel: Cancel::new(),
            observer: None,
            namespace: "main",
            detection,
            limit: None,
        }
    }

    fn provider(&self) -> RepositoryProvider {
        self.provider_on(Arc::clone(&self.storage) as _).unwrap()
    }

    /// A provider that finds the repository on this storage.
    fn provider_on(&self, storage: Arc<dyn Storage>) -> Result<RepositoryProvider> {
        let random = Arc::new(SystemRandom);
        let repository = Repository::open(storage, Arc::clone(&random) as _, &Unlock::Open);
        let repository = repository.map_err(|e| {
            let kind = snapkeep_api::ErrorKind::Target;
            snapkeep_api::Error::with_source(kind, "cannot open", e)
        })?;
        let options = Options {
            namespace: self.namespace.parse().unwrap(),
            storage: None,
            workers: 2,
            mechanism: VmMechanism::Nbd,
            accept_unverified_regions: false,
            change_detection: self.detection,
        };
        let (clock, log) = (Arc::clone(&self.clock), Arc::clone(&self.log));
        let provider = RepositoryProvider::new(Arc::new(repository), random, clock, log, options)
            .with_cancel(self.cancel.clone());
        Ok(match &self.observer {
            Some(observer) => provider.with_observer(Arc::clone(observer)),
            None => provider,
        })
    }

    /// A backup of guest 100.
    fn back_up(&self, source: &mut dyn TreeSource) -> Result<(ArchiveName, BackupStats)> {
        self.back_up_by(&self.provider(), source)
    }

    fn back_up_by(
        &self,
        provider: &dyn Provider,
        source: &mut dyn TreeSource,
    ) -> Result<(ArchiveName, BackupStats)> {
        self.clock.sleep(std::time::Duration::from_secs(1));
        let now = self.clock.now();
        let mut job = provider.start_job(now)?;
        let mut backup = job.start_container(&"100".parse().unwrap(), now)?;
        let name = backup.archive_name().clone();
        let ran = backup.run(ContainerSource {
            guest_config: b"arch: amd64\n",
            firewall_config: None,
            bandwidth_limit: self.limit,
            id_map: None,
            tree: source,
        });
        let outcome = match &ran {
            Ok(_) => Outcome::Success,
            Err(error) => Outcome::Failure(error.chain()),
        };
        backup.finish(&outcome)?;
        job.finish(&outcome)?;
        Ok((name, ran?))
    }

    fn tree(&self, archive: &ArchiveName) -> Box<dyn TreeReader> {
        let opened = self.provider().open_archive(archive).unwrap();
        opened.restore_container().unwrap().open_tree().unwrap()
    }

    /// The archive has this tree, and nothing else.
    fn expect(&self, archive: &ArchiveName, tree: &MemoryTree) {
        let difference = tree_difference(tree, &*self.tree(archive)).unwrap();
        assert_eq!(difference, None);
    }

    /// Backs up a tree, and looks what became of it.
    fn keep(&self, tree: &MemoryTree) -> (ArchiveName, BackupStats) {
        let (archive, stats) = self.back_up(&mut tree.source()).unwrap();
        self.expect(&archive, &tree.archived());
        (archive, stats)
    }

    /// Whether a line of this level has these words.
    fn told(&self, level: Level, words: &str) -> bool {
        self.count(level, words) > 0
    }

    fn count(&self, level: Level, words: &str) -> usize {
        let lines = self.log.0.lock().unwrap();
        let mut told = lines.iter().filter(|(of, _)| *of == level);
        told.by_ref()
            .filter(|(_, line)| line.contains(words))
            .count()
    }

    fn repository(&self) -> Repository {
        let random = Arc::new(SystemRandom);
        Repository::open(Arc::clone(&self.storage) as _, random, &Unlock::Open).unwrap()
    }
}

/// Bytes that look random.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Some files, small and large.
fn some() -> MemoryTree {
    let mut tree = MemoryTree::new();
    for number in 0..20 {
        tree.file(
            format!("etc/{number:02}"),
            &noise(700 * number, number as u64),
        );
    }
    tree.file("var/large", &noise(3 << 20, 100));
    tree.sparse("var/sparse", 1 << 40, &[(1 << 30, &noise(5000, 101))]);
    tree.symlink("link", b"etc");
    tree
}
