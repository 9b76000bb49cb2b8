//! What the index of a large repository costs, without its data: the index objects of as many
//! chunks as are wished, a hundred in a pack as disks of 256 KiB chunks have them, whose packs only
//! a wrapper of the storage lists; and archives whose disk maps name these chunks, made by the real
//! writer.
//!
//! `large_index make FOLDER MILLIONS ARCHIVES` makes one in a new folder; `open`, `merge`, `look` and
//! `prune FOLDER` open it, merge its index objects into tables, look chunks up, and prune.

#![allow(
    clippy::print_stdout,
    reason = "a program whose purpose is to print what it measured"
)]

#[path = "large_index/pretended.rs"]
mod pretended;
#[path = "large_index/sealed.rs"]
mod sealed;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use snapkeep_repo::{
    BlobRef, ChunkId, DiskRecord, Lineage, LocalStorage, MAP_FAN_OUT, Merge, Protect, PruneOptions,
    Repository, Snapshot, SnapshotName, Stats, Storage, SystemRandom, Unlock, Writer, prune,
    update_map,
};

use pretended::Pretended;
use sealed::Sealer;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const CHUNK: u32 = 256 << 10;
/// Chunks of one pack, about as many as fit 16 MiB once they are compressed.
const IN_PACK: u64 = 100;
/// Packs of one index object.
const IN_OBJECT: u64 = 655;
/// Of so many chunks one is in no archive.
const GARBAGE: u64 = 10;

const USAGE: &str =
    "usage: large_index make FOLDER MILLIONS ARCHIVES | open|merge|look|prune FOLDER";

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", folder, millions, archives] => make(
            Path::new(folder),
            millions.parse::<u64>()? * 1_000_000,
            archives.parse()?,
        ),
        ["open", folder] => open(Path::new(folder)).map(drop),
        ["merge", folder] => merge(Path::new(folder)),
        ["look", folder] => look(Path::new(folder)),
        ["prune", folder] => prune_all(Path::new(folder)),
        _ => Err(USAGE.into()),
    }
}

/// Prints how long something took, and how much memory there is now and was at most.
fn told<T>(what: &str, work: impl FnOnce() -> Fallible<T>) -> Fallible<T> {
    let start = Instant::now();
    let done = work()?;
    let took = start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    };
    let (now, most) = (field("VmRSS:"), field("VmHWM:"));
    println!("{what}: {took:.2} s, memory {now} MiB, at most {most} MiB so far");
    Ok(done)
}

/// The identity of a chunk that is nowhere but in the index.
fn chunk(number: u64) -> ChunkId {
    ChunkId::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn storage(folder: &Path) -> Fallible<Arc<dyn Storage>> {
    let count = std::fs::read_to_string(folder.join("chunks"))?.parse::<u64>()?;
    let local = Arc::new(LocalStorage::open(&folder.join("repository"))?);
    Ok(Arc::new(Pretended::new(local, count.div_ceil(IN_PACK))))
}

fn make(folder: &Path, chunks: u64, archives: u64) -> Fallible<()> {
    std::fs::create_dir(folder)?;
    std::fs::write(folder.join("chunks"), chunks.to_string())?;
    let plain = Arc::new(LocalStorage::create(&folder.join("repository"))?);
    let random = Arc::new(SystemRandom);
    let protect = Protect::Open;
    let made = Repository::init(Arc::clone(&plain) as _, random, &protect, CHUNK as usize)?;
    let sealer = Sealer::new(&made.recovery_kit()?)?;
    told("index objects made", || {
        let packs = chunks.div_ceil(IN_PACK);
        for first in (0..packs).step_by(usize::try_from(IN_OBJECT)?) {
            let packs = first..packs.min(first + IN_OBJECT);
            let packs = packs.map(|pack| {
                let first = pack * IN_PACK;
                (
                    pack,
                    (first..chunks.min(first + IN_PACK)).map(chunk).collect(),
                )
            });
            let (name, file) =
                sealer.index_object(first / IN_OBJECT, &packs.collect::<Vec<_>>())?;
            plain.put(&name, &file)?;
        }
        Ok(())
    })?;
    let repository = Arc::new(Repository::open(
        Arc::clone(&plain) as _,
        Arc::new(SystemRandom),
        &Unlock::Open,
    )?);
    let used = chunks - chunks / GARBAGE;
    let mut root = None;
    told("the first archive made", || {
        root = archive(&repository, 0, used, None, leaves(0, used))?;
        Ok(())
    })?;
    told("the other archives made", || {
        for number in 1..archives {
            // One chunk is another one than before.
            let leaf = number % used.div_ceil(MAP_FAN_OUT as u64);
            let changed = leaves(leaf * MAP_FAN_OUT as u64, used).next();
            let changed = changed.into_iter().map(|(number, mut leaf)| {
                leaf[0] = None;
                (number, leaf)
            });
            root = archive(&repository, number, used, root, changed)?;
        }
        Ok(())
    })?;
    Ok(())
}

type Leaf = [Option<ChunkId>; MAP_FAN_OUT];

/// The lowest nodes of the map of a disk whose chunks are these in order, from this one on.
fn leaves(from: u64, chunks: u64) -> impl Iterator<Item = (u64, Leaf)> {
    (from..chunks).step_by(MAP_FAN_OUT).map(move |first| {
        let mut leaf = [None; MAP_FAN_OUT];
        for (slot, number) in leaf.iter_mut().zip(first..chunks) {
            *slot = Some(chunk(number));
        }
        (first / MAP_FAN_OUT as u64, leaf)
    })
}

fn archive(
    repository: &Arc<Repository>,
    number: u64,
    chunks: u64,
    base: Option<ChunkId>,
    changed: impl Iterator<Item = (u64, Leaf)>,
) -> Fallible<Option<ChunkId>> {
    let writer = Writer::new(Arc::clone(repository))?;
    let mut worker = writer.worker();
    let mut stored = BTreeMap::new();
    for (number, leaf) in changed {
        stored.insert(number, worker.store_leaf(&leaf)?);
    }
    let size = chunks * u64::from(CHUNK);
    let root = update_map(repository, &mut worker, size, CHUNK, base, stored)?;
    drop(worker);
    let snapshot = Snapshot {
        id: String::new(),
        repository: String::new(),
        needs: Vec::new(),
        time: 0,
        disks: vec![DiskRecord {
            device: "disk".to_owned(),
            size,
            chunk_size: CHUNK,
            root,
            lineage: Lineage::default(),
        }],
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
        program: "large_index".to_owned(),
    };
    let name: SnapshotName = format!("main/vm/{}/{number:020}", number % 100).parse()?;
    writer.commit(&name, snapshot)?;
    Ok(root)
}

fn open(folder: &Path) -> Fallible<Arc<Repository>> {
    let storage = storage(folder)?;
    let repository = told("opened", || {
        let random = Arc::new(SystemRandom);
        Ok(Arc::new(Repository::open(storage, random, &Unlock::Open)?))
    })?;
    let (chunks, packs) = repository.counts();
    println!("{chunks} chunks in {packs} packs");
    let archives = told("archives listed", || Ok(repository.snapshots()?.len()))?;
    println!("{archives} archives");
    Ok(repository)
}

fn merge(folder: &Path) -> Fallible<()> {
    let storage = storage(folder)?;
    let merged = told("merged and opened", || {
        let random = Arc::new(SystemRandom);
        let opened = Repository::open_merged(storage, random, &Unlock::Open, Merge::Always)?;
        Ok(opened.1)
    })?;
    println!("{merged:?}");
    Ok(())
}

fn prune_all(folder: &Path) -> Fallible<()> {
    let repository = open(folder)?;
    let options = PruneOptions {
        grace: 0,
        settle: 0,
        ..PruneOptions::default()
    };
    for what in ["marked", "swept and marked again"] {
        let report = told(what, || Ok(prune(&repository, &options)?))?;
        println!("{report:?}");
    }
    Ok(())
}

fn look(folder: &Path) -> Fallible<()> {
    let repository = open(folder)?;
    let count = std::fs::read_to_string(folder.join("chunks"))?.parse::<u64>()?;
    // Far from each other, and in no order of their identities.
    let step = (count / 100_000).max(1);
    let looked = told("100,000 chunks found", || {
        let wanted = (0..count).step_by(usize::try_from(step)?).map(chunk);
        Ok(wanted
            .take(100_000)
            .filter(|id| repository.has_chunk(id).is_ok_and(|has| has))
            .count())
    })?;
    let strange = told("100,000 that are not there looked for", || {
        let others = (count..count + 100_000).map(chunk);
        Ok(others
            .filter(|id| repository.has_chunk(id).is_ok_and(|has| has))
            .count())
    })?;
    println!("{looked} were there, {strange} of the others");
    Ok(())
}
