//! What can be told of a repository by who has no key.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "how much was tried is to be seen")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_repo::{
    AttributeChange, FileName, KeylessReport, MemoryStorage, Storage, verify_without_key,
};

use support::tree::{directory, file, store};
use support::{CHUNK, backup, history, init, key, name, open};

fn all(storage: &MemoryStorage) -> Vec<FileName> {
    let mut found = vec!["config".parse().unwrap()];
    for folder in [
        "keys",
        "index",
        "snapshots",
        "heads",
        "attributes",
        "features",
        "packs",
    ] {
        let listed = storage.list(&folder.parse().unwrap(), &mut |name, _| {
            found.push(name.clone());
            Ok(())
        });
        listed.unwrap();
    }
    found
}

/// A repository with files of every kind, all of them small.
fn small() -> MemoryStorage {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let storage: Arc<dyn Storage> = Arc::clone(&memory) as _;
    let repository = init(&storage, &key).unwrap();
    repository.put_head(&history::place(), &name("1")).unwrap();
    let mut disk = vec![1; 3 * CHUNK];
    disk[CHUNK..].fill(2);
    backup(&repository, &name("1"), None, &disk).unwrap();
    store(
        &repository,
        "2",
        &directory([(b"a".to_vec(), file(b"content"))]),
    )
    .unwrap();
    let change = AttributeChange {
        notes: Some("x".to_owned()),
        ..AttributeChange::default()
    };
    let repository = open(&storage, &key).unwrap();
    repository.change_attributes(&name("1"), &change).unwrap();
    memory.fork()
}

fn judged(storage: &MemoryStorage) -> KeylessReport {
    verify_without_key(storage, &()).unwrap()
}

fn named(report: &KeylessReport) -> Vec<&str> {
    report.damage.iter().map(|d| d.object.as_str()).collect()
}

#[test]
fn every_byte_that_is_flipped_is_found_and_its_file_named() {
    let memory = small();
    let whole = judged(&memory);
    assert!(whole.damage.is_empty(), "{:?}", whole.damage);
    assert!(whole.foreign.is_empty() && whole.missing.is_empty());
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut unseen = 0;
    for file in all(&memory) {
        let bytes = memory
            .read(&file, 0..memory.length(&file).unwrap())
            .unwrap();
        let mac = (file.as_str() == "config").then(|| bytes.len() - 65..bytes.len() - 1);
        for (at, byte) in bytes.iter().enumerate() {
            let flipped = memory.fork();
            flipped.damage(&file, |bytes| bytes[at] ^= 1);
            let report = judged(&flipped);
            // One hexadecimal digit for another: only the key tells which is right.
            let digit = byte ^ 1;
            let is_digit = digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
            if mac.as_ref().is_some_and(|mac| mac.contains(&at)) && is_digit {
                assert!(report.damage.is_empty(), "{:?}", report.damage);
                unseen += 1;
                continue;
            }
            assert_eq!(named(&report), [file.as_str()], "byte {at}");
            let kind = file.as_str().split('/').next().unwrap();
            *counts.entry(kind.to_owned()).or_default() += 1;
        }
    }
    println!("flipped and named: {counts:?}; {unseen} digits of the MAC of config need a key");
    assert_eq!(counts.len(), 7, "features are empty: {counts:?}");
    assert!(counts["packs"] > 500, "{counts:?}");
    assert!(unseen <= 64, "{unseen}");
}

#[test]
fn files_that_are_cut_swapped_copied_zeroed_or_gone_are_named() {
    let memory = small();
    let files = all(&memory);
    for file in files.iter().filter(|file| memory.length(file).unwrap() > 0) {
        for what in ["cut", "longer", "zeroes"] {
            let changed = memory.fork();
            changed.damage(file, |bytes| match what {
                "cut" => bytes.truncate(bytes.len() - 1),
                "longer" => bytes.push(0),
                _ => bytes.fill(0),
            });
            assert_eq!(named(&judged(&changed)), [file.as_str()], "{what}");
        }
    }
    let packs: Vec<_> = files
        .iter()
        .filter(|f| f.as_str().starts_with("packs/"))
        .collect();
    let read = |file: &FileName| memory.read(file, 0..memory.length(file).unwrap()).unwrap();
    let swapped = memory.fork();
    swapped.put(packs[0], &read(packs[1])).unwrap();
    swapped.put(packs[1], &read(packs[0])).unwrap();
    assert_eq!(judged(&swapped).damage.len(), 2);
    // A copy under a name that is none.
    let copied = memory.fork();
    copied
        .put(&"packs/copy".parse().unwrap(), &read(packs[0]))
        .unwrap();
    let report = judged(&copied);
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!(
        (report.foreign, report.foreign_count),
        (vec!["packs/copy".to_owned()], 1)
    );
    let gone = memory.fork();
    gone.remove(&"config".parse().unwrap()).unwrap();
    assert_eq!(named(&judged(&gone)), ["config"]);
}

#[test]
fn a_gap_among_a_writers_index_objects_is_told() {
    let memory = small();
    let objects: Vec<_> = (all(&memory).into_iter())
        .filter(|file| file.as_str().starts_with("index/"))
        .collect();
    let bytes = memory
        .read(&objects[0], 0..memory.length(&objects[0]).unwrap())
        .unwrap();
    let (writer, _) = objects[0].as_str().rsplit_once('/').unwrap();
    memory
        .put(&format!("{writer}/00000003").parse().unwrap(), &bytes)
        .unwrap();
    let report = judged(&memory);
    assert_eq!(report.missing, [(writer.to_owned(), 2)]);
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}
