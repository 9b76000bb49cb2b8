//! What a released version wrote, this one reads, goes on with, and prunes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/golden.rs"]
mod golden;
#[path = "support/released.rs"]
mod released;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use snapkeep_repo::{
    HeadPlace, LocalStorage, PruneOptions, Repository, SnapshotName, Unlock, prune, verify,
};

use golden::{hashes, open_with};
use released::{REPOSITORY, Release, age, facts, owners};

/// Two archives after what is there.
const NEWER: [&str; 2] = [
    "golden/vm/100/2027-01-17T08:00:00Z-00000000000000c1",
    "golden/vm/100/2027-01-18T08:00:00Z-00000000000000c2",
];

fn open(folder: &Path, unlock: &Unlock) -> Arc<Repository> {
    open_with(Arc::new(LocalStorage::open(folder).unwrap()), unlock).unwrap()
}

/// Everything is as it was on the day that it was made.
#[track_caller]
fn check(repository: &Arc<Repository>, release: &Release) {
    let found = hashes(repository).unwrap();
    for (name, expected) in &release.archives {
        assert_eq!(found.get(name), Some(expected), "{name}");
    }
    let facts = facts(repository, release.archives.keys()).unwrap();
    assert_eq!(facts, release.facts);
    let report = verify(repository).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert!(report.unread.is_empty(), "{:?}", report.unread);
}

#[test]
fn every_released_version_has_its_repository_here_and_so_has_this_one() {
    let folders = released::folders();
    let versions: Vec<_> = (folders.iter())
        .map(|folder| folder.file_name().unwrap().to_str().unwrap())
        .collect();
    let this = env!("CARGO_PKG_VERSION");
    assert!(
        versions.contains(&this),
        "{versions:?} do not have {this}: `cargo xtask golden --release` makes it"
    );
}

#[test]
fn what_every_released_version_wrote_restores_goes_on_and_is_pruned() {
    for folder in released::folders() {
        let text = fs::read_to_string(folder.join("expected.json")).unwrap();
        let release: Release = serde_json::from_str(&text).unwrap();
        // As it lies there it is never written to.
        for owner in owners(&folder).unwrap() {
            let repository = open(&folder.join(REPOSITORY), &owner);
            let listed = repository.snapshots().unwrap();
            assert_eq!(listed.len(), release.archives.len(), "{listed:?}");
            check(&repository, &release);
            let head: SnapshotName = release.head.parse().unwrap();
            let place = HeadPlace::new(&head, "store").unwrap();
            let found = repository.latest_head(&place).unwrap().unwrap();
            assert_eq!(found.1.as_str(), release.head);
        }
        let scratch = tempfile::tempdir().unwrap();
        let copy = scratch.path().join(REPOSITORY);
        let mut cp = Command::new("cp");
        cp.arg("-r").arg(folder.join(REPOSITORY)).arg(&copy);
        assert!(cp.status().unwrap().success());
        go_on(&folder, &copy, &release);
    }
}

/// A host and the owner write, and everything that waits is swept.
fn go_on(folder: &Path, copy: &Path, release: &Release) {
    let host = fs::read_to_string(folder.join("host-key-file")).unwrap();
    let host = open(copy, &Unlock::KeyFile(host.parse().unwrap()));
    assert!(host.may_read().is_err());
    let owner = &owners(folder).unwrap()[0];
    // Incremental to what the version before left, and to what this one just wrote.
    golden::back_up(&host, &golden::later(NEWER[0], &release.head, 901)).unwrap();
    let repository = open(copy, owner);
    golden::back_up(&repository, &golden::later(NEWER[1], NEWER[0], 902)).unwrap();
    check(&repository, release);
    let packs = || {
        let mut find = Command::new("find");
        let out = find.arg(copy.join("packs")).args(["-type", "f"]).output();
        out.unwrap().stdout
    };
    let before = packs();
    for _ in 0..8 {
        age(copy, 3).unwrap();
        let options = PruneOptions {
            settle: 0,
            ..PruneOptions::default()
        };
        let report = prune(&open(copy, owner), &options).unwrap();
        if report.waiting.is_none() {
            break;
        }
    }
    let after = packs();
    assert!(after.len() < before.len(), "nothing was removed");
    let repository = open(copy, owner);
    check(&repository, release);
    let forgotten: SnapshotName = release.forgotten.parse().unwrap();
    assert!(repository.any_snapshot(&forgotten).is_err(), "it was swept");
    let found = hashes(&repository).unwrap();
    assert_eq!(found.len(), release.archives.len() + 2);
    let of = |archive: &str| &found[archive].disks["drive-scsi0"];
    assert_ne!(of(NEWER[0]), of(&release.head));
    assert_ne!(of(NEWER[1]), of(NEWER[0]));
}
