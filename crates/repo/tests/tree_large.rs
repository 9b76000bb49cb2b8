//! A directory of very many entries is written, read, compared and proven in bounded memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    Error, LocalStorage, NodeKind, Storage, TreeReader, TreeWriter, WitnessedDirectory, Writer,
    verify, write_tree,
};

use support::tree::{attributes, commit, witness};
use support::{init, key};

const ENTRIES: u32 = 1_000_000;
/// Of so many entries one has content.
const WITH_CONTENT: u32 = 4;
const MIB: u64 = 1 << 20;

/// The most memory that this process ever had.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

fn name(number: u32) -> Vec<u8> {
    format!("entry {number:07}").into_bytes()
}

fn content(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(1 + number as usize % 50)
}

#[test]
fn a_directory_of_a_million_entries_takes_little_memory() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = LocalStorage::create(&scratch.path().join("repository")).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let repository = init(&storage, &key()).unwrap();
    let before = peak();
    let plain = attributes(0o644);
    let writer = Writer::new(Arc::clone(&repository)).unwrap();
    let record = write_tree(&writer, 2, &|_| {}, |tree: &mut TreeWriter<'_>| {
        tree.enter(b"", &plain, None)?;
        for number in 0..ENTRIES {
            tree.begin_file(&name(number), &plain, 1)?;
            if number % WITH_CONTENT == 0 {
                tree.data(&content(number))?;
            }
            tree.end_file(Some(witness(&number.to_le_bytes())))?;
        }
        tree.leave()?;
        Ok::<_, Error>(())
    });
    let record = record.unwrap();
    commit(writer, "1", record.clone()).unwrap();
    assert_eq!(record.entries, 1 + u64::from(ENTRIES));
    println!("written: {} MiB", (peak() - before) / MIB);
    let reader = Arc::new(TreeReader::open(Arc::clone(&repository), &record).unwrap());
    let NodeKind::Directory(directory) = &reader.root().kind else {
        panic!("the root is a directory");
    };
    let (mut after, mut next): (Option<Vec<u8>>, u32) = (None, 0);
    loop {
        let page = reader.list(directory, after.as_deref(), 5000).unwrap();
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.name.clone());
        for node in page {
            assert_eq!(node.name, name(next));
            let NodeKind::File(file) = &node.kind else {
                panic!("it is a file");
            };
            if next % WITH_CONTENT == 0 {
                let wanted = content(next);
                let mut bytes = vec![0; usize::try_from(file.size).unwrap()];
                reader.read_at(file, 0, &mut bytes).unwrap();
                assert!(bytes == wanted, "{next}");
            }
            next += 1;
        }
    }
    assert_eq!(next, ENTRIES);
    println!("read: {} MiB", (peak() - before) / MIB);
    let mut top = WitnessedDirectory::root(Arc::clone(&reader));
    let root = top.seek(b"").unwrap().unwrap();
    let mut entries = top.enter(&root).unwrap();
    for number in 0..ENTRIES {
        let found = entries.seek(&name(number)).unwrap().unwrap();
        assert_eq!(found.witness, Some(witness(&number.to_le_bytes())));
    }
    println!("compared: {} MiB", (peak() - before) / MIB);
    let report = verify(&repository).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let grown = (peak() - before) / MIB;
    println!("verified: {grown} MiB");
    // Four packs of verification are the most of it.
    assert!(grown < 150, "{grown} MiB");
}
