//! A repository with an archive of one disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_repo::{
    BlobRef, Class, DiskReader, DiskRecord, Lineage, MAP_FAN_OUT, Protect, Repository, Result,
    Snapshot, SnapshotName, Stats, Storage, SystemRandom, Unlock, Writer, update_map,
};
use snapkeep_s3::S3Storage;

const CHUNK: usize = 64 << 10;

/// Chunks that differ, and do not compress.
pub(crate) fn disk(chunks: u64) -> Vec<u8> {
    let chunk = |number: u64| {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..CHUNK).map(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
    };
    (0..chunks).flat_map(chunk).collect()
}

pub(crate) fn open(storage: S3Storage) -> Arc<Repository> {
    let random = Arc::new(SystemRandom);
    Arc::new(Repository::open(Arc::new(storage), random, &Unlock::Open).unwrap())
}

/// The archive's name.
pub(crate) fn archive() -> SnapshotName {
    "main/vm/100/1".parse().unwrap()
}

/// Makes a repository.
pub(crate) fn make(storage: S3Storage) -> Result<Arc<Repository>> {
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let random = Arc::new(SystemRandom);
    Ok(Arc::new(Repository::init(
        storage,
        random,
        &Protect::Open,
        CHUNK,
    )?))
}

/// Backs up a disk.
pub(crate) fn back_up(repository: &Arc<Repository>, bytes: &[u8]) -> Result<()> {
    let writer = Writer::new(Arc::clone(repository))?;
    let mut worker = writer.worker();
    let mut leaves = BTreeMap::new();
    for (number, span) in (0u64..).zip(bytes.chunks(CHUNK * MAP_FAN_OUT)) {
        let mut leaf = [None; MAP_FAN_OUT];
        for (slot, chunk) in leaf.iter_mut().zip(span.chunks(CHUNK)) {
            *slot = Some(worker.store(Class::Data, chunk)?.id);
        }
        leaves.insert(number, worker.store_leaf(&leaf)?);
    }
    let (size, chunk_size) = (bytes.len() as u64, u32::try_from(CHUNK).unwrap());
    let root = update_map(repository, &mut worker, size, chunk_size, None, leaves)?;
    drop(worker);
    let disk = DiskRecord {
        device: "drive-scsi0".to_owned(),
        size,
        chunk_size,
        root,
        lineage: Lineage::default(),
    };
    let nothing = BlobRef {
        chunk: None,
        length: 0,
    };
    let snapshot = Snapshot {
        id: String::new(),
        repository: String::new(),
        needs: Vec::new(),
        time: 0,
        disks: vec![disk],
        tree: None,
        guest_config: nothing,
        firewall_config: None,
        writer: String::new(),
        index_objects: 0,
        stats: Stats::default(),
        program: "test".to_owned(),
        origin: None,
        generation: 0,
    };
    writer.commit(&archive(), snapshot).map(drop)
}

/// All of the disk.
pub(crate) fn read(repository: &Arc<Repository>) -> Result<Vec<u8>> {
    let snapshot = repository.snapshot(&archive())?;
    let reader = DiskReader::new(Arc::clone(repository), snapshot.disks[0].clone());
    let mut bytes = vec![0; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes)?;
    Ok(bytes)
}
