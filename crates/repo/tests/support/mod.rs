//! What the tests of the repository share: disks, and a backup and restore without a provider.

#![allow(dead_code, reason = "no test uses everything")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use snapkeep_repo::{
    BlobRef, ChunkId, Class, DeliverError, DiskPart, DiskReader, DiskRecord, KeyFile, Lineage,
    MAP_FAN_OUT, Protect, Repository, Result, Snapshot, SnapshotName, Stats, Storage, SystemRandom,
    Unlock, Writer, update_map,
};

pub(crate) mod between;
pub(crate) mod history;
pub(crate) mod hooked;
pub(crate) mod odd;
pub(crate) mod power;
pub(crate) mod pruning;
pub(crate) mod stale;
pub(crate) mod tree;

pub(crate) const CHUNK: usize = 64 << 10;

pub(crate) fn key() -> KeyFile {
    KeyFile::generate(&SystemRandom).expect("random bytes")
}

pub(crate) fn init(storage: &Arc<dyn Storage>, key: &KeyFile) -> Result<Arc<Repository>> {
    let protect = Protect::KeyFile(key.clone());
    Repository::init(Arc::clone(storage), Arc::new(SystemRandom), &protect, CHUNK).map(Arc::new)
}

pub(crate) fn open(storage: &Arc<dyn Storage>, key: &KeyFile) -> Result<Arc<Repository>> {
    let unlock = Unlock::KeyFile(key.clone());
    Repository::open(Arc::clone(storage), Arc::new(SystemRandom), &unlock).map(Arc::new)
}

/// A disk of some chunks: some compressible, some random, some zero, the last one short.
pub(crate) fn disk(seed: u8, chunks: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..chunks {
        let mut chunk = vec![0; CHUNK];
        match number % 3 {
            0 => chunk.fill(seed.wrapping_add(u8::try_from(number % 251).unwrap())),
            1 => blake3::Hasher::new()
                .update(&[seed])
                .update(&number.to_le_bytes())
                .finalize_xof()
                .fill(&mut chunk),
            _ => {}
        }
        bytes.extend_from_slice(&chunk);
    }
    bytes.extend_from_slice(&[seed; 512]);
    bytes
}

/// Stores a disk as it differs from a base, and commits.
pub(crate) fn backup(
    repository: &Arc<Repository>,
    name: &SnapshotName,
    base: Option<(&DiskRecord, &[u8])>,
    bytes: &[u8],
) -> Result<Snapshot> {
    let (writer, disk) = begin(repository, base, bytes)?;
    writer.commit(name, snapshot(vec![disk]))
}

/// Stores a disk as it differs from a base; what is to be committed.
pub(crate) fn begin(
    repository: &Arc<Repository>,
    base: Option<(&DiskRecord, &[u8])>,
    bytes: &[u8],
) -> Result<(Writer, DiskRecord)> {
    let writer = Writer::new(Arc::clone(repository))?;
    let mut worker = writer.worker();
    let mut leaves = BTreeMap::new();
    for (number, span) in (0u64..).zip(bytes.chunks(CHUNK * MAP_FAN_OUT)) {
        let start = usize::try_from(number).unwrap() * CHUNK * MAP_FAN_OUT;
        if base.is_some_and(|(_, old)| old.get(start..start + span.len()) == Some(span)) {
            continue;
        }
        let mut leaf = [None; MAP_FAN_OUT];
        for (slot, chunk) in leaf.iter_mut().zip(span.chunks(CHUNK)) {
            if chunk.iter().any(|b| *b != 0) {
                *slot = Some(worker.store(Class::Data, chunk)?.id);
            }
        }
        leaves.insert(number, worker.store_leaf(&leaf)?);
    }
    let (size, chunk_size) = (bytes.len() as u64, u32::try_from(CHUNK).unwrap());
    let root = base.and_then(|(record, _)| record.root);
    let root = update_map(repository, &mut worker, size, chunk_size, root, leaves)?;
    drop(worker);
    Ok((writer, record(size, root)))
}

/// A disk of this size, with the root of its map.
pub(crate) fn record(size: u64, root: Option<ChunkId>) -> DiskRecord {
    DiskRecord {
        device: "drive-scsi0".to_owned(),
        size,
        chunk_size: u32::try_from(CHUNK).unwrap(),
        root,
        lineage: Lineage::default(),
    }
}

/// A snapshot of these disks.
pub(crate) fn snapshot(disks: Vec<DiskRecord>) -> Snapshot {
    Snapshot {
        id: String::new(),
        repository: String::new(),
        needs: Vec::new(),
        time: 0,
        disks,
        tree: None,
        guest_config: BlobRef {
            chunk: None,
            length: 0,
        },
        firewall_config: None,
        writer: String::new(),
        index_objects: 0,
        origin: None,
        generation: 0,
        stats: Stats::default(),
        program: "test".to_owned(),
    }
}

pub(crate) fn restore(repository: &Arc<Repository>, name: &SnapshotName) -> Result<Vec<u8>> {
    let snapshot = repository.snapshot(name)?;
    let reader = DiskReader::new(Arc::clone(repository), snapshot.disks[0].clone());
    let mut bytes = vec![0xee; usize::try_from(reader.size()).unwrap()];
    // In odd pieces, so that they cross chunks.
    for (number, piece) in bytes.chunks_mut(100_003).enumerate() {
        reader.read_at(number as u64 * 100_003, piece)?;
    }
    let mut by_extent = vec![0; bytes.len()];
    let mut offset = 0;
    while let Some((start, length)) = reader.next_data(offset)? {
        let range = usize::try_from(start).unwrap()..usize::try_from(start + length).unwrap();
        reader.read_at(start, &mut by_extent[range])?;
        offset = start + length;
    }
    assert!(bytes == by_extent, "holes are what reads as zeroes");
    assert!(bytes == delivered(&reader)?, "it is told as it is read");
    Ok(bytes)
}

fn delivered(reader: &DiskReader) -> Result<Vec<u8>> {
    let bytes = Mutex::new(vec![0xee; usize::try_from(reader.size()).unwrap()]);
    let take = |part: DiskPart<'_>| -> Result<()> {
        let mut all = bytes.lock().unwrap();
        let (offset, length) = match part {
            DiskPart::Zeroes { offset, length } => (offset, usize::try_from(length).unwrap()),
            DiskPart::Data { offset, bytes } => (offset, bytes.len()),
        };
        let start = usize::try_from(offset).unwrap();
        let place = &mut all[start..start + length];
        match part {
            DiskPart::Zeroes { .. } => place.fill(0),
            DiskPart::Data { bytes, .. } => place.copy_from_slice(bytes),
        }
        Ok(())
    };
    (reader.deliver(0..reader.size(), 2, &take)).map_err(|error| match error {
        DeliverError::Read(error) | DeliverError::Taken(error) => error,
    })?;
    Ok(bytes.into_inner().unwrap())
}

pub(crate) fn name(text: &str) -> SnapshotName {
    format!("main/vm/100/{text}")
        .parse()
        .expect("a snapshot's name")
}
