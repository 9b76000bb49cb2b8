//! The golden repositories, made once and kept: they restore to what they always did, and making
//! them again gives the same bytes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/golden.rs"]
mod golden;

use std::sync::Arc;

use snapkeep_repo::{LocalStorage, Unlock, verify};

use golden::{AllExpected, files, folder, hashes, load, open_with, unlock};

fn expected() -> AllExpected {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_golden_repositories_restore_to_what_they_always_did() {
    let expected = expected();
    assert_eq!(expected.keys().collect::<Vec<_>>(), ["encrypted", "open"]);
    for (name, expected) in &expected {
        let storage = Arc::new(LocalStorage::open(&folder().join(name)).unwrap());
        let repository = open_with(storage, &unlock(name).unwrap()).unwrap();
        assert_eq!(&hashes(&repository).unwrap(), expected, "{name}");
        let report = verify(&repository).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
    }
}

#[test]
fn each_of_the_keys_opens_the_encrypted_one() {
    let text = |name| std::fs::read_to_string(folder().join(name)).unwrap();
    let passphrase = text("passphrase").trim_end().to_owned();
    for unlock in [
        Unlock::Passphrase(passphrase.into()),
        Unlock::KeyFile(text("key-file").parse().unwrap()),
        Unlock::Recovery(text("recovery-kit").parse().unwrap()),
    ] {
        let storage = Arc::new(load(&folder().join("encrypted")).unwrap());
        let repository = open_with(storage, &unlock).unwrap();
        assert_eq!(repository.snapshots().unwrap().len(), 3, "{unlock:?}");
    }
}

#[test]
fn making_them_again_gives_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    golden::make(scratch.path()).unwrap();
    for name in ["encrypted", "open"] {
        let old = files(&LocalStorage::open(&folder().join(name)).unwrap()).unwrap();
        let new = files(&LocalStorage::open(&scratch.path().join(name)).unwrap()).unwrap();
        assert_eq!(
            old.keys().collect::<Vec<_>>(),
            new.keys().collect::<Vec<_>>()
        );
        for (file, bytes) in &old {
            assert!(new[file] == *bytes, "{name}/{file} differs");
        }
    }
    for name in ["passphrase", "key-file", "recovery-kit"] {
        let old = std::fs::read(folder().join(name)).unwrap();
        assert!(std::fs::read(scratch.path().join(name)).unwrap() == old);
    }
}
