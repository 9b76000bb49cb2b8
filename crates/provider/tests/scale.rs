//! What an incremental backup costs depends on what is dirty, not on the size of the disk: counts
//! of bytes and operations on disks of 1 TiB and 16 TiB that a server of this process makes up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use snapkeep_api::{
    ArchiveName, BitmapInfo, BitmapMode, DeviceName, Incarnation, Level, Outcome, Provider,
    SnapshotAccess, SystemClock, TaskLog, UnixTime, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_nbd::{
    Address, BASE_ALLOCATION, Errno, Export, ExportError, Extent, Server, ServerOptions,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{
    Counted, MemoryStorage, Protect, Repository, Storage, SystemRandom, Tally, Unlock,
};

/// What one bit of the dirty bitmap stands for: a quarter of a chunk, so that what is dirty is
/// laid over chunks of the base.
const CLUSTER: u64 = 64 << 10;
const CHUNK: u64 = 256 << 10;
const TIB: u64 = 1 << 40;
/// Pieces of data on the disk, spread evenly.
const PIECES: u64 = 32;
const PIECE: u64 = 4 * CHUNK;
const BITMAP: &str = "since-the-first";

/// What a disk of 16 TiB may cost more than one of 1 TiB: its map has one level more, so for each
/// piece at most one node more, which has one child here, is read (by the thread that lays what is
/// dirty over it, and when the map is updated) and written.
const NODES_MORE: u64 = PIECES;
const NODE_READS: u64 = 2;
/// A node with one child: itself, its tag, its entry in the pack's table and in the index.
const NODE_BYTES: u64 = 8 + 32 + 16 + 48 + 48;
/// Longer numbers in a snapshot.
const DIGITS: u64 = 16;
/// What one answer about the disk's extents covers at most (`MAX_STATUS_WINDOW_BYTES`).
const STATUS_BYTES: u64 = 64 << 30;

/// A disk that knows its clusters by the seed of their content; the others are holes.
struct Model {
    size: u64,
    clusters: BTreeMap<u64, u64>,
    /// What is dirty, and so what may be read.
    dirty: Option<BTreeSet<u64>>,
    read: AtomicU64,
    asked: AtomicU64,
}

impl Model {
    fn new(size: u64) -> Self {
        let starts = (0..PIECES).map(|piece| place(size, piece));
        let clusters = starts.flat_map(|start| start / CLUSTER..(start + PIECE) / CLUSTER);
        Self {
            size,
            clusters: clusters.map(|cluster| (cluster, 1)).collect(),
            dirty: None,
            read: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        }
    }

    /// The same disk after these clusters were written.
    fn written(&self, dirty: BTreeSet<u64>) -> Self {
        let mut clusters = self.clusters.clone();
        clusters.extend(dirty.iter().map(|cluster| (*cluster, 2)));
        Self {
            clusters,
            dirty: Some(dirty),
            read: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            ..*self
        }
    }

    /// Bytes that do not compress and of which no two clusters have the same.
    fn content(&self, cluster: u64, target: &mut [u8]) {
        let Some(seed) = self.clusters.get(&cluster) else {
            return target.fill(0);
        };
        let mut state = (cluster << 8 | seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for word in target.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let bytes = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }

    fn bytes(&self, offset: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        let step = usize::try_from(CLUSTER).unwrap();
        for (cluster, part) in (offset / CLUSTER..).zip(bytes.chunks_mut(step)) {
            self.content(cluster, part);
        }
        bytes
    }

    /// The clusters that a context is about.
    fn is_in(&self, context: &str, from: u64) -> Option<u64> {
        match &self.dirty {
            Some(dirty) if context != BASE_ALLOCATION => dirty.range(from..).next().copied(),
            _ => self.clusters.range(from..).next().map(|(at, _)| *at),
        }
    }
}

impl Export for Model {
    fn size(&self) -> u64 {
        self.size
    }

    fn contexts(&self) -> Vec<String> {
        match &self.dirty {
            None => vec![BASE_ALLOCATION.to_owned()],
            Some(_) => vec![format!("qemu:dirty-bitmap:{BITMAP}")],
        }
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
        let length = buffer.len() as u64;
        if let Some(dirty) = &self.dirty
            && !(offset / CLUSTER..(offset + length).div_ceil(CLUSTER)).all(|c| dirty.contains(&c))
        {
            return Err(ExportError::new(Errno::Invalid, "this is not dirty"));
        }
        buffer.copy_from_slice(&self.bytes(offset, length));
        self.read.fetch_add(length, Ordering::SeqCst);
        Ok(())
    }

    fn extents(&self, context: &str, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (inside, outside) = match self.dirty {
            Some(_) => (Extent::DIRTY, 0),
            None => (0, Extent::HOLE | Extent::ZERO),
        };
        let end = offset + length;
        let mut extents = Vec::new();
        let mut position = offset;
        let mut push = |to: u64, flags| {
            if to > position {
                let length = to - position;
                extents.push(Extent {
                    offset: position,
                    length,
                    flags,
                });
                position = to;
            }
            position
        };
        let mut at = offset;
        while at < end {
            at = match self.is_in(context, at / CLUSTER) {
                Some(next) => {
                    push((next * CLUSTER).min(end), outside);
                    push(((next + 1) * CLUSTER).min(end), inside)
                }
                None => push(end, outside),
            };
        }
        Ok(extents)
    }
}

/// Where a piece of the disk's data begins.
fn place(size: u64, piece: u64) -> u64 {
    size / PIECES * piece
}

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

fn device() -> DeviceName {
    "drive-scsi0".parse().unwrap()
}

/// A provider as a new process would open it.
fn provider(storage: &Arc<Counted>) -> RepositoryProvider {
    let random = Arc::new(SystemRandom);
    let files = Arc::clone(storage) as Arc<dyn Storage>;
    let repository = Repository::open(files, Arc::clone(&random) as _, &Unlock::Open).unwrap();
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 2,
        mechanism: VmMechanism::Nbd,
        accept_unverified_regions: false,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
    };
    let clock = Arc::new(SystemClock::new());
    RepositoryProvider::new(
        Arc::new(repository),
        random,
        clock,
        Arc::new(Quiet),
        options,
    )
}

/// The next second: each backup starts later than the one before.
fn next_second() -> UnixTime {
    static SECONDS: AtomicI64 = AtomicI64::new(1_800_000_000);
    UnixTime(SECONDS.fetch_add(1, Ordering::Relaxed))
}

/// What a backup cost.
#[derive(Debug)]
struct Cost {
    /// Bytes that the source was read.
    read: u64,
    /// Questions about the source's extents.
    asked: u64,
    /// What the repository's storage did.
    storage: Tally,
}

fn back_up(
    storage: &Arc<Counted>,
    folder: &Path,
    disk: &Arc<Model>,
    base: Option<&ArchiveName>,
) -> (ArchiveName, Cost) {
    let socket = folder.join("nbd.sock");
    let exports = BTreeMap::from([(device().to_string(), Arc::clone(disk) as Arc<dyn Export>)]);
    let options = ServerOptions::default();
    let server = Server::bind(Address::Unix(socket.clone()), exports, options).unwrap();
    storage.take();
    let provider = provider(storage);
    let now = next_second();
    let mut job = provider.start_job(now).unwrap();
    let mut vm = job.start_vm(&"100".parse().unwrap(), now).unwrap();
    let name = vm.archive_name().clone();
    let bitmap = BitmapInfo {
        name: BITMAP.parse().unwrap(),
        base: base.cloned(),
    };
    let bitmaps = base.map(|_| bitmap).into_iter().collect();
    let size = disk.size;
    let volumes = BTreeMap::from([(device(), VolumeInfo { size, bitmaps })]);
    vm.choose_bitmaps(&Incarnation::default(), &volumes)
        .unwrap();
    let (mode, bitmap) = match base {
        Some(_) => (BitmapMode::Reuse, Some(BITMAP.parse().unwrap())),
        None => (BitmapMode::New, None),
    };
    let volume = Volume {
        size,
        bitmap: mode,
        access: SnapshotAccess::Nbd { socket, bitmap },
    };
    vm.run(VmSource {
        guest_config: b"scsi0: x".to_vec(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([(device(), volume)]),
    })
    .unwrap();
    vm.finish(&Outcome::Success).unwrap();
    job.finish(&Outcome::Success).unwrap();
    drop(server);
    let cost = Cost {
        read: disk.read.load(Ordering::SeqCst),
        asked: disk.asked.load(Ordering::SeqCst),
        storage: storage.take(),
    };
    (name, cost)
}

/// The archive has the disk's bytes at every piece and around it, and nothing where nothing is.
fn check(storage: &Arc<Counted>, archive: &ArchiveName, disk: &Model) {
    let provider = provider(storage);
    let mut restore = provider
        .open_archive(archive)
        .unwrap()
        .restore_vm()
        .unwrap();
    let reader = restore.open_volume(&device()).unwrap();
    for piece in 0..PIECES {
        let start = place(disk.size, piece).saturating_sub(CHUNK);
        let expected = disk.bytes(start, PIECE + 3 * CHUNK);
        let mut bytes = vec![0xee; expected.len()];
        reader.read_at(start, &mut bytes).unwrap();
        assert!(bytes == expected, "piece {piece} differs");
    }
    let mut data = 0;
    let mut position = 0;
    while let Some(region) = reader.next_data(position).unwrap() {
        data += region.length();
        position = region.end();
    }
    let chunks: BTreeSet<u64> = disk
        .clusters
        .keys()
        .map(|at| at * CLUSTER / CHUNK)
        .collect();
    assert_eq!(data, chunks.len() as u64 * CHUNK);
    restore.finish().unwrap();
}

/// A full backup, then one of what is dirty, of a disk of this size.
fn costs(size: u64, dirty: fn(u64) -> BTreeSet<u64>) -> [Cost; 2] {
    let folder = tempfile::tempdir().unwrap();
    let storage = Arc::new(Counted::new(Arc::new(MemoryStorage::new())));
    let (random, files) = (Arc::new(SystemRandom), Arc::clone(&storage) as _);
    let chunk = usize::try_from(CHUNK).unwrap();
    Repository::init(files, random, &Protect::Open, chunk).unwrap();
    let disk = Arc::new(Model::new(size));
    let (first, full) = back_up(&storage, folder.path(), &disk, None);
    check(&storage, &first, &disk);
    let later = Arc::new(disk.written(dirty(size)));
    let (second, incremental) = back_up(&storage, folder.path(), &later, Some(&first));
    check(&storage, &second, &later);
    check(&storage, &first, &disk);
    [full, incremental]
}

/// The costs on the small disk and on the large differ only by what is named above.
fn compare(small: &Cost, large: &Cost, shared: &str) {
    let told = format!("{shared}: {small:?}, {large:?}");
    assert_eq!(small.read, large.read, "{told}");
    assert!(large.asked <= 4 * (16 * TIB / STATUS_BYTES), "{told}");
    let (one, other) = (&small.storage, &large.storage);
    assert_eq!(one.data_bytes, other.data_bytes, "{told}");
    assert_eq!(one.puts, other.puts, "{told}");
    let metadata = one.metadata_bytes + NODES_MORE * NODE_BYTES + DIGITS;
    assert!(other.metadata_bytes <= metadata, "{told}");
    let operations = one.operations() + NODES_MORE * NODE_READS;
    assert!(other.operations() <= operations, "{told}");
    // What is read of the base are whole chunks, and nodes and entries of the index.
    let read = one.read_bytes + NODES_MORE * NODE_READS * NODE_BYTES * 2;
    assert!(other.read_bytes <= read, "{told}");
}

/// One cluster of each piece, another one in each.
fn scattered(size: u64) -> BTreeSet<u64> {
    let dirty = (0..PIECES).map(|piece| place(size, piece) / CLUSTER + piece % (PIECE / CLUSTER));
    dirty.collect()
}

/// As many clusters, one behind the other from the middle of a piece on.
fn together(size: u64) -> BTreeSet<u64> {
    let first = (place(size, PIECES / 2) + PIECE / 2) / CLUSTER;
    (first..first + PIECES).collect()
}

#[test]
fn a_backup_costs_what_is_dirty_whatever_the_size_of_the_disk() {
    for (layout, dirty) in [
        ("scattered", scattered as fn(u64) -> _),
        ("together", together),
    ] {
        let [small_full, small] = costs(TIB, dirty);
        let [large_full, large] = costs(16 * TIB, dirty);
        compare(&small_full, &large_full, "full");
        compare(&small, &large, layout);
        assert_eq!(large_full.read, PIECES * PIECE, "holes are not read");
        assert_eq!(large.read, PIECES * CLUSTER, "only what is dirty is read");
        let touched = dirty(16 * TIB).len() as u64 * CHUNK;
        let data = large.storage.data_bytes;
        assert!(
            data < touched + touched / 64 + (8 << 10),
            "{layout}: {data}"
        );
    }
}
