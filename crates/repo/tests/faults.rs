//! Every kind of file, damaged in every way: it is named, with a key and, where a checksum can tell,
//! without; other archives restore, and the next backup is right.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "how much was tried is to be seen")]

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    AttributeChange, FileName, KeyFile, MemoryStorage, Storage, verify, verify_without_key,
};

use support::{backup, disk, history, init, key, name, open, restore};

/// How a file is damaged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    Changed,
    Cut,
    Zeroes,
    /// Under the name of another of its kind, and that one under its own.
    Swapped,
    /// A second time, under another name of its kind.
    Twice,
}

const FAULTS: [Fault; 5] = [
    Fault::Changed,
    Fault::Cut,
    Fault::Zeroes,
    Fault::Swapped,
    Fault::Twice,
];

fn files(memory: &MemoryStorage, folder: &str) -> Vec<FileName> {
    let mut found = Vec::new();
    let listed = memory.list(&folder.parse().unwrap(), &mut |name, _| {
        found.push(name.clone());
        Ok(())
    });
    listed.unwrap();
    found
}

fn bytes(memory: &MemoryStorage, file: &FileName) -> Vec<u8> {
    memory.read(file, 0..memory.length(file).unwrap()).unwrap()
}

/// A repository with two archives of their own data, each with notes and a head.
fn made() -> (MemoryStorage, KeyFile) {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let storage: Arc<dyn Storage> = Arc::clone(&memory) as _;
    init(&storage, &key).unwrap();
    for (text, seed) in [("1", 1), ("2", 2)] {
        let repository = open(&storage, &key).unwrap();
        repository.put_head(&history::place(), &name(text)).unwrap();
        backup(&repository, &name(text), None, &disk(seed, 7)).unwrap();
        let change = AttributeChange {
            notes: Some(text.to_owned()),
            ..AttributeChange::default()
        };
        repository.change_attributes(&name(text), &change).unwrap();
    }
    (memory.fork(), key)
}

/// Another name of a file's kind that nothing has.
fn other_name(file: &FileName, bytes: &[u8]) -> FileName {
    let text = file.as_str();
    let (folder, last) = text.rsplit_once('/').unwrap_or(("", text));
    let other = match text.split('/').next().unwrap() {
        "packs" => {
            let id = blake3::hash(&[bytes, b"other"].concat()).to_hex();
            return format!("packs/{}/{id}", &id[..2]).parse().unwrap();
        }
        "snapshots" => "2001-01-01T00:00:00Z-00000000000000aa".to_owned(),
        "index" => format!("{:08}", last.parse::<u32>().unwrap() + 1),
        _ => {
            // A digit of its number.
            let mut name = last.to_owned().into_bytes();
            let end = name.len() - 1;
            name[end] = if name[end] == b'0' { b'1' } else { b'0' };
            String::from_utf8(name).unwrap()
        }
    };
    format!("{folder}/{other}").parse().unwrap()
}

#[test]
fn every_kind_of_file_damaged_in_every_way_is_named_and_harms_no_other_archive() {
    let (memory, key) = made();
    let mut line = Vec::new();
    for kind in [
        "packs",
        "index",
        "snapshots",
        "attributes",
        "heads",
        "keys",
        "config",
    ] {
        let mine = if kind == "config" {
            vec!["config".parse().unwrap()]
        } else {
            files(&memory, kind)
        };
        // The last of them is of the second archive, but packs are in no order.
        let mut tried = 0;
        for (number, file) in mine.iter().enumerate() {
            for fault in FAULTS {
                let damaged = Arc::new(memory.fork());
                let content = bytes(&damaged, file);
                let mut expected = vec![file.clone()];
                match fault {
                    Fault::Changed => damaged.damage(file, |bytes| {
                        let middle = bytes.len() / 2;
                        bytes[middle] ^= 1;
                    }),
                    Fault::Cut => damaged.damage(file, |bytes| bytes.truncate(bytes.len() / 2)),
                    Fault::Zeroes => damaged.damage(file, |bytes| bytes.fill(0)),
                    Fault::Swapped => {
                        let other = &mine[(number + 1) % mine.len()];
                        if other == file {
                            continue;
                        }
                        damaged.put(file, &bytes(&memory, other)).unwrap();
                        damaged.put(other, &content).unwrap();
                        expected.push(other.clone());
                    }
                    Fault::Twice if kind == "config" || kind == "keys" => continue,
                    Fault::Twice => {
                        expected = vec![other_name(file, &content)];
                        damaged.put(&expected[0], &content).unwrap();
                    }
                }
                tried += 1;
                judge(&damaged, &key, kind, fault, &expected);
            }
        }
        line.push(format!("{kind}: {tried}"));
    }
    println!("damaged and named: {}", line.join(", "));
}

fn judge(memory: &Arc<MemoryStorage>, key: &KeyFile, kind: &str, fault: Fault, names: &[FileName]) {
    let what = format!("{kind} {fault:?}: {names:?}");
    let named = |objects: &[&str]| {
        names.iter().all(|file| {
            let text = file.as_str();
            let of_archive = text.strip_prefix("snapshots/").unwrap_or(text);
            objects.iter().any(|object| {
                *object == text || *object == of_archive || text.starts_with(&format!("{object}/"))
            })
        })
    };
    // Names are sealed in, which only a key can tell; a pack's name is its hash.
    if kind == "packs" || !matches!(fault, Fault::Swapped | Fault::Twice) {
        let report = verify_without_key(&**memory, &()).unwrap();
        let objects: Vec<_> = report.damage.iter().map(|d| d.object.as_str()).collect();
        assert!(named(&objects), "{what}: without a key: {objects:?}");
    }
    let storage: Arc<dyn Storage> = Arc::clone(memory) as _;
    let repository = match open(&storage, key) {
        Ok(repository) => repository,
        Err(error) => {
            let chain = error.chain();
            assert!(kind == "config" || kind == "keys", "{what}: {chain}");
            assert!(
                chain.contains("config") || chain.contains("key"),
                "{what}: {chain}"
            );
            return;
        }
    };
    let report = verify(&repository).unwrap();
    let objects: Vec<_> = report.damage.iter().map(|d| d.object.as_str()).collect();
    assert!(named(&objects), "{what}: {objects:?}");
    let restored =
        [("1", 1), ("2", 2)].map(|(text, seed)| match restore(&repository, &name(text)) {
            Ok(bytes) => {
                assert!(bytes == disk(seed, 7), "{what}: other bytes");
                true
            }
            Err(_) => false,
        });
    let harmed = restored.iter().filter(|whole| !**whole).count();
    let most = match (kind, fault) {
        ("packs" | "snapshots", Fault::Swapped) => 2,
        ("packs" | "snapshots", Fault::Changed | Fault::Cut | Fault::Zeroes) => 1,
        _ => 0,
    };
    assert!(harmed <= most, "{what}: {restored:?}");
    // Repaired, the next backups heal it.
    let repository = open(&storage, key).unwrap();
    let plan = snapkeep_repo::plan_repair(&repository, &()).unwrap();
    snapkeep_repo::apply_repair(&repository, &plan).unwrap();
    for (text, seed) in [("3", 1), ("4", 2)] {
        let repository = open(&storage, key).unwrap();
        backup(&repository, &name(text), None, &disk(seed, 7)).unwrap();
        assert!(
            restore(&repository, &name(text)).unwrap() == disk(seed, 7),
            "{what}"
        );
    }
    let repository = open(&storage, key).unwrap();
    if kind == "packs" {
        for (text, seed) in [("1", 1), ("2", 2)] {
            assert!(
                restore(&repository, &name(text)).unwrap() == disk(seed, 7),
                "{what}"
            );
        }
    }
}
