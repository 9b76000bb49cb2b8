//! Our provider has the properties that every provider must have.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use snapkeep_api::{Level, Provider, SystemClock, TaskLog, conformance};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom};

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

#[test]
fn our_provider_conforms() {
    conformance::assert_vm(&|| -> Box<dyn Provider> {
        let random = Arc::new(SystemRandom);
        let storage = Arc::new(MemoryStorage::new());
        let repository =
            Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 64 << 10);
        let options = Options {
            namespace: "main".parse().unwrap(),
            workers: 3,
        };
        let clock = Arc::new(SystemClock::new());
        Box::new(RepositoryProvider::new(
            Arc::new(repository.unwrap()),
            random,
            clock,
            Arc::new(Quiet),
            options,
        ))
    });
}
