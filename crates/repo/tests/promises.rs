//! Every storage keeps the same promises; that of S3 is asked in its own crate.

use snapkeep_repo::{LocalStorage, MemoryStorage, Storage, broken_promises};

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_folder_keeps_the_promises_of_a_storage() {
    let folder = tempfile::tempdir().unwrap();
    let storage = LocalStorage::open(folder.path()).unwrap();
    assert_eq!(broken_promises(&storage), none());
}

#[test]
fn memory_keeps_the_promises_of_a_storage() {
    let memory = MemoryStorage::default();
    memory.set_time(1_700_000_000);
    assert_eq!(broken_promises(&memory), none());
}

#[test]
fn a_storage_that_forgets_is_seen() {
    use snapkeep_repo::{FaultPoint, Faulty};
    let storage: std::sync::Arc<dyn Storage> = std::sync::Arc::new(MemoryStorage::default());
    let broken = broken_promises(&Faulty::new(storage, FaultPoint::Only(7)));
    assert!(!broken.is_empty());
}
