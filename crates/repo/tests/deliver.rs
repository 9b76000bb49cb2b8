//! A disk that is delivered in the order of its packs: every byte once, and every chunk read once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use snapkeep_repo::{
    Class, Counted, DeliverError, DiskPart, DiskReader, DiskRecord, ErrorKind, FileName,
    MAP_FAN_OUT, MemoryStorage, Repository, Storage, Writer, limits, update_map,
};

use support::{CHUNK, backup, init, key, name, open};

/// A disk whose chunks are few, each in many places, beside others that are there once, and zeroes.
fn repeating() -> Vec<u8> {
    let mut disk = Vec::new();
    for round in 0..40u8 {
        disk.extend_from_slice(&support::disk(7, 9)[..9 * CHUNK]);
        disk.extend_from_slice(&support::disk(round, 2)[..2 * CHUNK]);
    }
    disk.extend_from_slice(&[1; 700]);
    disk
}

/// What was told of a disk; `None` where nothing was.
type Told = Mutex<Vec<Option<u8>>>;

/// Takes every part, and notes it.
fn noting(told: &Told) -> impl Fn(DiskPart<'_>) -> Result<(), ()> + Sync {
    |part| {
        note(told, part);
        Ok(())
    }
}

fn note(told: &Told, part: DiskPart<'_>) {
    let (offset, bytes) = match part {
        DiskPart::Zeroes { offset, length } => (offset, vec![0; usize::try_from(length).unwrap()]),
        DiskPart::Data { offset, bytes } => (offset, bytes.to_vec()),
    };
    let start = usize::try_from(offset).unwrap();
    let mut told = told.lock().unwrap();
    for (place, byte) in told[start..start + bytes.len()].iter_mut().zip(bytes) {
        assert_eq!(place.replace(byte), None, "told twice");
    }
}

fn check(reader: &DiskReader, disk: &[u8], range: Range<usize>, threads: usize) {
    let told = Mutex::new(vec![None; disk.len()]);
    let wanted = range.start as u64..range.end as u64;
    reader.deliver(wanted, threads, &noting(&told)).unwrap();
    let told = told.into_inner().unwrap();
    for (at, told) in told.into_iter().enumerate() {
        let wanted = range.contains(&at).then(|| disk[at]);
        assert!(told == wanted, "at {at} of {range:?}: {told:?}, {wanted:?}");
    }
}

#[test]
fn every_byte_of_any_range_is_told_once() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let repository = init(&storage, &key()).unwrap();
    let disk = repeating();
    let snapshot = backup(&repository, &name("1"), None, &disk).unwrap();
    let reader = DiskReader::new(repository, snapshot.disks[0].clone());
    let size = disk.len();
    let ends = [
        0,
        1,
        CHUNK - 1,
        CHUNK,
        7 * CHUNK + 5,
        65 * CHUNK,
        size - 700,
        size - 1,
        size,
    ];
    for from in ends {
        for to in ends.into_iter().filter(|to| *to >= from) {
            check(&reader, &disk, from..to, 1 + from % 5);
        }
    }
    let error = reader.deliver(1..size as u64 + 1, 1, &|_| Ok::<(), ()>(()));
    let Err(DeliverError::Read(error)) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_chunk_that_is_in_many_places_is_read_once() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let key = key();
    let disk = repeating();
    let snapshot = backup(&init(&storage, &key).unwrap(), &name("1"), None, &disk).unwrap();
    let counted = Arc::new(Counted::new(storage));
    let repository = open(&(Arc::clone(&counted) as _), &key).unwrap();
    let reader = DiskReader::new(repository, snapshot.disks[0].clone());
    counted.take();
    check(&reader, &disk, 0..disk.len(), 3);
    let tally = counted.take();
    assert!(
        tally.read_bytes <= snapshot.stats.stored,
        "{} bytes were read of {}",
        tally.read_bytes,
        snapshot.stats.stored
    );
    assert!(tally.reads < 12, "{} reads", tally.reads);
}

#[test]
fn damage_ends_it_and_another_copy_does_instead() {
    let memory = Arc::new(MemoryStorage::new());
    let storage: Arc<dyn Storage> = Arc::clone(&memory) as _;
    let repository = init(&storage, &key()).unwrap();
    let disk = repeating();
    let snapshot = backup(&repository, &name("1"), None, &disk).unwrap();
    let reader = DiskReader::new(Arc::clone(&repository), snapshot.disks[0].clone());
    let mut packs = Vec::new();
    let each = &mut |file: &_, length| {
        packs.push((FileName::clone(file), length));
        Ok(())
    };
    storage.list(&"packs".parse().unwrap(), each).unwrap();
    packs.sort_by_key(|(_, length)| *length);
    // The largest one is that of the data.
    let (file, length) = packs.pop().unwrap();
    let good = storage.read(&file, 0..length).unwrap();
    let mut bad = good.clone();
    bad[usize::try_from(length / 2).unwrap()] ^= 1;
    storage.put(&file, &bad).unwrap();
    let told = Mutex::new(vec![None; disk.len()]);
    let error = reader
        .deliver(0..disk.len() as u64, 2, &noting(&told))
        .unwrap_err();
    let DeliverError::Read(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // Nothing wrong was told.
    let told = told.into_inner().unwrap();
    assert!(
        told.iter()
            .zip(&disk)
            .all(|(told, byte)| told.is_none_or(|told| told == *byte))
    );
    storage.put(&file, &good).unwrap();
    check(&reader, &disk, 0..disk.len(), 2);
}

#[test]
fn who_takes_it_ends_it() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let repository = init(&storage, &key()).unwrap();
    let disk = repeating();
    let snapshot = backup(&repository, &name("1"), None, &disk).unwrap();
    let reader = DiskReader::new(repository, snapshot.disks[0].clone());
    let take = |part: DiskPart<'_>| match part {
        DiskPart::Zeroes { .. } => Ok(()),
        DiskPart::Data { .. } => Err("full"),
    };
    let ended = reader.deliver(0..disk.len() as u64, 2, &take);
    assert!(
        matches!(ended, Err(DeliverError::Taken("full"))),
        "{ended:?}"
    );
}

/// A disk with more chunks than are planned at once, all the same.
fn large(repository: &Arc<Repository>) -> DiskRecord {
    let writer = Writer::new(Arc::clone(repository)).unwrap();
    let mut worker = writer.worker();
    let id = worker.store(Class::Data, &vec![5; CHUNK]).unwrap().id;
    let leaf = worker.store_leaf(&[Some(id); MAP_FAN_OUT]).unwrap();
    let leaves = (limits::DELIVER_CHUNKS / MAP_FAN_OUT + 3) as u64;
    let (size, chunk_size) = (
        leaves * (MAP_FAN_OUT * CHUNK) as u64,
        u32::try_from(CHUNK).unwrap(),
    );
    let nodes: BTreeMap<_, _> = (0..leaves).map(|number| (number, leaf)).collect();
    let root = update_map(repository, &mut worker, size, chunk_size, None, nodes).unwrap();
    drop(worker);
    let disk = support::record(size, root);
    let snapshot = support::snapshot(vec![disk]);
    writer.commit(&name("1"), snapshot).unwrap().disks[0].clone()
}

#[test]
fn a_disk_is_planned_a_bounded_part_at_a_time() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let repository = init(&storage, &key()).unwrap();
    let reader = DiskReader::new(Arc::clone(&repository), large(&repository));
    let told = Mutex::new(BTreeMap::new());
    let take = |part: DiskPart<'_>| -> Result<(), ()> {
        let DiskPart::Data { offset, bytes } = part else {
            panic!("{part:?}");
        };
        assert!(bytes[0] == 5 && bytes[bytes.len() - 1] == 5);
        assert_eq!(
            told.lock().unwrap().insert(offset, bytes.len() as u64),
            None
        );
        Ok(())
    };
    reader.deliver(0..reader.size(), 2, &take).unwrap();
    let mut end = 0;
    for (offset, length) in told.into_inner().unwrap() {
        assert_eq!(offset, end);
        end += length;
    }
    assert_eq!(end, reader.size());
}
