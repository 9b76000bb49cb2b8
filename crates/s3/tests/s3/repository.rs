//! A whole repository on the storage: archives are what was backed up, whatever happens on the way.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_repo::{
    BlobRef, Class, DiskReader, DiskRecord, Lineage, MAP_FAN_OUT, Protect, Repository, Snapshot,
    SnapshotName, Stats, Storage, SystemRandom, Unlock, Writer, update_map, verify,
};
use snapkeep_s3::S3Storage;

use crate::support::Bucket;
use crate::support::proxy::{ALWAYS, Fault};

const CHUNK: usize = 64 << 10;

/// Chunks that differ, and do not compress.
fn disk(chunks: u64) -> Vec<u8> {
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

fn open(storage: S3Storage) -> Arc<Repository> {
    let random = Arc::new(SystemRandom);
    Arc::new(Repository::open(Arc::new(storage), random, &Unlock::Open).unwrap())
}

fn name() -> SnapshotName {
    "main/vm/100/1".parse().unwrap()
}

/// Makes a repository and backs up a disk.
fn back_up(storage: S3Storage, bytes: &[u8]) {
    let random = Arc::new(SystemRandom);
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let repository = Arc::new(Repository::init(storage, random, &Protect::Open, CHUNK).unwrap());
    let writer = Writer::new(Arc::clone(&repository)).unwrap();
    let mut worker = writer.worker();
    let mut leaves = BTreeMap::new();
    for (number, span) in (0u64..).zip(bytes.chunks(CHUNK * MAP_FAN_OUT)) {
        let mut leaf = [None; MAP_FAN_OUT];
        for (slot, chunk) in leaf.iter_mut().zip(span.chunks(CHUNK)) {
            *slot = Some(worker.store(Class::Data, chunk).unwrap().id);
        }
        leaves.insert(number, worker.store_leaf(&leaf).unwrap());
    }
    let (size, chunk_size) = (bytes.len() as u64, u32::try_from(CHUNK).unwrap());
    let root = update_map(&repository, &mut worker, size, chunk_size, None, leaves).unwrap();
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
    writer.commit(&name(), snapshot).unwrap();
}

fn read(repository: &Arc<Repository>) -> snapkeep_repo::Result<Vec<u8>> {
    let snapshot = repository.snapshot(&name())?;
    let reader = DiskReader::new(Arc::clone(repository), snapshot.disks[0].clone());
    let mut bytes = vec![0; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes)?;
    Ok(bytes)
}

#[test]
fn a_backup_and_a_restore_go_through_a_storm_of_faults() {
    let Some(bucket) = Bucket::new("a_backup_and_a_restore_go_through_a_storm_of_faults") else {
        return;
    };
    let bytes = disk(100);
    let storm = || {
        for method in ["PUT", "GET", "HEAD"] {
            for fault in [
                Fault::Answer(503, "SlowDown", "slower"),
                Fault::Refuse,
                Fault::LoseReply,
                Fault::Cut(10),
                Fault::Answer(500, "InternalError", "we failed"),
            ] {
                bucket.proxy.add(method, "", 1, fault);
            }
        }
    };
    storm();
    back_up(bucket.storage("a"), &bytes);
    bucket.proxy.heal();
    storm();
    let repository = open(bucket.storage("a"));
    assert!(read(&repository).unwrap() == bytes);
    bucket.proxy.heal();
    let report = verify(&open(bucket.direct("a"))).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn bytes_that_were_changed_on_their_way_are_read_again_and_are_no_damage() {
    let test = "bytes_that_were_changed_on_their_way_are_read_again_and_are_no_damage";
    let Some(bucket) = Bucket::new(test) else {
        return;
    };
    let bytes = disk(40);
    back_up(bucket.direct("a"), &bytes);
    let repository = open(bucket.storage("a"));
    let flip = Fault::reply(|reply| {
        let middle = reply.body.len() / 2;
        if let Some(byte) = reply.body.get_mut(middle) {
            *byte ^= 1;
        }
    });
    bucket.proxy.add("GET", "/snapshots/", 1, flip.clone());
    bucket.proxy.add("GET", "/packs/", 1, flip.clone());
    assert!(read(&repository).unwrap() == bytes);
    // Where it never comes right, that is damage.
    bucket.proxy.heal();
    bucket.proxy.add("GET", "/packs/", ALWAYS, flip);
    let error = read(&open(bucket.storage("a"))).unwrap_err();
    assert_eq!(error.kind(), snapkeep_repo::ErrorKind::Corrupt, "{error}");
}

#[test]
fn neighbouring_chunks_come_by_one_request() {
    let Some(bucket) = Bucket::new("neighbouring_chunks_come_by_one_request") else {
        return;
    };
    let bytes = disk(64);
    back_up(bucket.direct("a"), &bytes);
    let repository = open(bucket.storage("a"));
    bucket.proxy.log();
    assert!(read(&repository).unwrap() == bytes);
    let packs = bucket.proxy.log();
    let packs = packs.iter().filter(|line| line.contains("/packs/")).count();
    // Four MiB in a pack of data: one read, and its header; the map's node, and its header.
    assert!(packs <= 5, "{packs}");
}
