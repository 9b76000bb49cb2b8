//! A repository that a newer program made is refused by name, or only read, as its features say.

mod support;

use std::sync::Arc;

use snapkeep_repo::{Error, ErrorKind, HeadPlace, MemoryStorage, Storage, Writer, verify};

use support::{backup, disk, init, key, name, open, restore};

/// A repository with one archive, and a feature added to it.
fn with_feature(feature: &str) -> (Arc<dyn Storage>, snapkeep_repo::KeyFile, Vec<u8>) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (key, bytes) = (key(), disk(9, 4));
    let repository = init(&storage, &key).expect("a new repository");
    backup(&repository, &name("1"), None, &bytes).expect("a backup");
    let file = format!("features/{feature}");
    storage
        .put(&file.parse().expect("a name"), b"")
        .expect("memory");
    (storage, key, bytes)
}

fn names(error: &Error, feature: &str) {
    assert_eq!(error.kind(), ErrorKind::Version, "{error}");
    assert!(error.to_string().contains(feature), "{error}");
}

#[test]
fn an_incompatible_feature_and_one_of_an_unknown_class_are_refused_by_name() {
    for feature in ["incompatible-rings-1", "mysterious-rings-1", "rings"] {
        let (storage, key, _) = with_feature(feature);
        let error = open(&storage, &key).expect_err("it cannot be read");
        names(&error, "rings");
    }
}

#[test]
fn a_read_only_compatible_feature_lets_read_and_verify_but_not_write() {
    let (storage, key, bytes) = with_feature("read_only_compatible-shelves-1");
    let repository = open(&storage, &key).expect("it can be read");
    assert!(restore(&repository, &name("1")).expect("it can be restored") == bytes);
    assert!(verify(&repository).expect("verified").damage.is_empty());
    let refused = Writer::new(Arc::clone(&repository)).expect_err("it must not be written");
    names(&refused, "shelves-1");
    let slot = snapkeep_repo::Protect::Open;
    names(
        &repository.add_key(&slot, None).expect_err("no key either"),
        "shelves-1",
    );
    let place = HeadPlace::new(&name("1"), "store").expect("a place");
    let refused = repository.put_head(&place, &name("1"));
    names(&refused.expect_err("no head either"), "shelves-1");
}

#[test]
fn a_compatible_feature_changes_nothing() {
    let (storage, key, bytes) = with_feature("compatible-tables-1");
    let repository = open(&storage, &key).expect("it opens");
    backup(&repository, &name("2"), None, &bytes).expect("it is written");
}

#[test]
fn a_snapshot_that_needs_an_unknown_feature_is_refused_alone() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let (key, bytes) = (key(), disk(9, 4));
    let repository = init(&storage, &key).expect("a new repository");
    let mut snapshot = backup(&repository, &name("1"), None, &bytes).expect("a backup");
    snapshot.needs = vec!["trees-2".to_owned()];
    let writer = Writer::new(Arc::clone(&repository)).expect("a writer");
    (writer.commit(&name("2"), snapshot)).expect("what a newer program would commit");
    names(
        &repository.snapshot(&name("2")).expect_err("not readable"),
        "trees-2",
    );
    assert!(restore(&repository, &name("1")).expect("the other is") == bytes);
    let report = verify(&repository).expect("verified");
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!(report.unread.len(), 1);
    assert_eq!(report.unread[0].object, name("2").to_string());
}
