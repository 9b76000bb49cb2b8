//! Our provider has the properties that every provider must have.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_api::{Level, Provider, SteppingClock, TaskLog, UnixTime, VmMechanism, conformance};
use snapkeep_provider::{ChangeDetection, Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom};

use support::bitmap_storage;

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

#[test]
fn our_provider_conforms_by_file_handle() {
    conforms(VmMechanism::FileHandle);
}

#[test]
fn our_provider_conforms_over_nbd() {
    conforms(VmMechanism::Nbd);
}

#[test]
fn our_provider_conforms_for_containers() {
    // Reading all, believing all that looks unchanged, and looking after some of it.
    for detection in [
        ChangeDetection::Data,
        ChangeDetection::Metadata { audit: 0 },
        ChangeDetection::Metadata { audit: 300 },
    ] {
        conformance::assert_container(&|| provider(VmMechanism::Nbd, detection));
    }
}

fn conforms(mechanism: VmMechanism) {
    conformance::assert_vm(&|| provider(mechanism, ChangeDetection::Data));
}

fn provider(mechanism: VmMechanism, change_detection: ChangeDetection) -> Box<dyn Provider> {
    let random = Arc::new(SystemRandom);
    let storage = Arc::new(MemoryStorage::new());
    let repository = Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 64 << 10);
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: Some(bitmap_storage("store")),
        workers: 3,
        mechanism,
        accept_unverified_regions: true,
        change_detection,
    };
    // The kit's backups all start in one second; what is to wait for the next waits here.
    let clock = Arc::new(SteppingClock::new(UnixTime(1_700_000_000)));
    Box::new(RepositoryProvider::new(
        Arc::new(repository.unwrap()),
        random,
        clock,
        Arc::new(Quiet),
        options,
    ))
}
