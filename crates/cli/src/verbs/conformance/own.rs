//! Our own provider, over a repository in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use snapkeep_api::{
    Error, ErrorKind, Level, Provider, SteppingClock, TaskLog, UnixTime, VmMechanism,
};
use snapkeep_provider::{BitmapStorage, ChangeDetection, HeadMemory, Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom};

/// When the clock begins: when the kit's backups do.
const START: UnixTime = UnixTime(1_700_000_000);
/// The repository's chunk size, in bytes.
const CHUNK_SIZE: usize = 64 << 10;
/// How many threads the provider has.
const WORKERS: usize = 3;

/// Our provider over a new repository in memory.
pub(super) fn provider(mechanism: VmMechanism) -> snapkeep_api::Result<Box<dyn Provider>> {
    let random = Arc::new(SystemRandom);
    let storage = Arc::new(MemoryStorage::new());
    let repository = Repository::init(
        storage,
        Arc::clone(&random) as _,
        &Protect::Open,
        CHUNK_SIZE,
    );
    let repository = repository.map_err(|e| {
        let what = "cannot make a repository in memory";
        Error::with_source(ErrorKind::Target, what, e)
    })?;
    let options = Options {
        namespace: "main".parse()?,
        storage: Some(BitmapStorage {
            id: "conformance".parse()?,
            memory: Arc::new(Memory::default()),
        }),
        workers: WORKERS,
        mechanism,
        accept_unverified_regions: true,
        change_detection: ChangeDetection::Metadata { audit: 0 },
    };
    // The kit's backups all start in one second; what is to wait for the next waits here.
    let clock = Arc::new(SteppingClock::new(START));
    let provider = RepositoryProvider::new(
        Arc::new(repository),
        random,
        clock,
        Arc::new(Quiet),
        options,
    );
    Ok(Box::new(provider))
}

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

/// Heads that are remembered as long as their repository lives.
#[derive(Debug, Default)]
struct Memory(Mutex<BTreeMap<String, String>>);

impl HeadMemory for Memory {
    fn remembered(&self, place: &str) -> snapkeep_api::Result<Option<String>> {
        let heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(heads.get(place).cloned())
    }

    fn remember(&self, place: &str, head: &str) -> snapkeep_api::Result<()> {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heads.insert(place.to_owned(), head.to_owned());
        Ok(())
    }
}
