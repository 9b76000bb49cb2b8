//! Whether a disk is whole, by its map and the index: what that costs, and what it finds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_repo::{
    ChunkId, Class, Counted, DiskRecord, ErrorKind, FileName, KeyFile, MAP_FAN_OUT, MemoryStorage,
    Repository, Storage, Writer, update_map,
};

use support::{CHUNK, init, key, name, open};

/// Lowest nodes of the disk; their parents are more than one.
const LEAVES: u64 = 300;

fn shared(storage: &Arc<MemoryStorage>) -> Arc<dyn Storage> {
    Arc::clone(storage) as _
}

fn new() -> (Arc<MemoryStorage>, KeyFile) {
    let (storage, key) = (Arc::new(MemoryStorage::new()), key());
    init(&shared(&storage), &key).unwrap();
    (storage, key)
}

/// Stores a disk of many different chunks, which are short, so that it costs little. One of its
/// chunks may be another.
fn disk(repository: &Arc<Repository>, archive: &str, other: Option<ChunkId>) -> DiskRecord {
    let writer = Writer::new(Arc::clone(repository)).unwrap();
    let mut worker = writer.worker();
    let mut leaves = BTreeMap::new();
    for number in 0..LEAVES {
        let mut leaf = [None; MAP_FAN_OUT];
        for (slot, at) in leaf.iter_mut().zip(0u64..) {
            let chunk = (number * 64 + at + 1).to_le_bytes();
            *slot = Some(worker.store(Class::Data, &chunk).unwrap().id);
        }
        if let (Some(other), true) = (other, number == LEAVES - 1) {
            leaf[63] = Some(other);
        }
        leaves.insert(number, worker.store_leaf(&leaf).unwrap());
    }
    let (size, chunk_size) = (LEAVES * (64 * CHUNK as u64), u32::try_from(CHUNK).unwrap());
    let root = update_map(repository, &mut worker, size, chunk_size, None, leaves).unwrap();
    drop(worker);
    let snapshot = support::snapshot(vec![support::record(size, root)]);
    let done = writer.commit(&name(archive), snapshot).unwrap();
    done.disks[0].clone()
}

/// The packs of nodes, oldest first.
fn packs_of_nodes(storage: &MemoryStorage, known: &[FileName]) -> Vec<FileName> {
    let mut found = Vec::new();
    let listed = storage.list(&"packs".parse().unwrap(), &mut |file, _| {
        if storage.read(file, 0..11)?[10] == 1 && !known.contains(file) {
            found.push(file.clone());
        }
        Ok(())
    });
    listed.unwrap();
    found
}

#[test]
fn nodes_that_lie_side_by_side_are_read_together() {
    let (storage, key) = new();
    let disk = disk(&open(&shared(&storage), &key).unwrap(), "1", None);
    let counted = Arc::new(Counted::new(shared(&storage)));
    let repository = open(&(Arc::clone(&counted) as _), &key).unwrap();
    counted.take();
    repository.check_whole(&disk).unwrap();
    let tally = counted.take();
    // Three levels of 1, 5 and 300 nodes, and the pack's header.
    assert!(tally.operations() <= 6, "{tally:?}");
    let nodes = (LEAVES + 6) * (8 + 64 * 32);
    assert!(
        (nodes..nodes + nodes / 10).contains(&tally.read_bytes),
        "{tally:?}"
    );
}

#[test]
fn a_chunk_that_is_nowhere_is_missed_wherever_it_is() {
    let (storage, key) = new();
    let elsewhere = open(&shared(&Arc::new(storage.fork())), &key).unwrap();
    let writer = Writer::new(elsewhere).unwrap();
    let absent = writer.worker().store(Class::Data, b"not here").unwrap().id;
    let repository = open(&shared(&storage), &key).unwrap();
    disk(&repository, "1", None);
    let disk = disk(&repository, "2", Some(absent));
    let error = repository.check_whole(&disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&absent.to_string()), "{error}");
}

#[test]
fn a_node_that_was_changed_is_read_from_another_copy_or_named() {
    let (storage, key) = new();
    // Neither knows what the other stores.
    let [one, two] = [(); 2].map(|()| open(&shared(&storage), &key).unwrap());
    let record = disk(&one, "1", None);
    let first = packs_of_nodes(&storage, &[]);
    let alone = Arc::new(storage.fork());
    disk(&two, "2", None);
    let second = packs_of_nodes(&storage, &first);
    let change = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    for (storage, pack, whole) in [
        (&alone, &first[0], false),
        (&Arc::new(storage.fork()), &first[0], true),
        (&Arc::new(storage.fork()), &second[0], true),
    ] {
        storage.damage(pack, change);
        let checked = open(&shared(storage), &key).unwrap().check_whole(&record);
        assert_eq!(checked.is_ok(), whole, "{checked:?}");
        if let Err(error) = checked {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let pack = pack.as_str().rsplit_once('/').unwrap().1;
            assert!(error.to_string().contains(pack), "{error}");
        }
    }
    // A pack that is cut is not in the index, so that nobody reads it.
    storage.damage(&first[0], |bytes| bytes.truncate(bytes.len() / 2));
    open(&shared(&storage), &key)
        .unwrap()
        .check_whole(&record)
        .unwrap();
}
