//! What the map and the index of a full disk cost, without the disk: each chunk of 256 KiB is
//! stored as 8 bytes of its own, by the real writer, so nodes, index and packs of nodes are those
//! of a disk of that size.
//!
//! `full_disk make FOLDER GIB` makes a repository in a new folder; `full_disk check FOLDER` opens
//! it and does what an incremental backup does first; `full_disk verify FOLDER` verifies it.

#![allow(
    clippy::print_stdout,
    reason = "a program whose purpose is to print what it measured"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use snapkeep_repo::{
    BlobRef, Class, Counted, DiskRecord, Lineage, LocalStorage, MAP_FAN_OUT, Protect, Repository,
    Snapshot, SnapshotName, Stats, SystemRandom, Unlock, Writer, update_map, verify,
};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const CHUNK: u32 = 256 << 10;
const LEAF: u64 = CHUNK as u64 * MAP_FAN_OUT as u64;
const THREADS: u16 = 2;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", folder, gib] => make(Path::new(folder), gib.parse::<u64>()? << 30),
        ["check", folder] => check(Path::new(folder)),
        ["verify", folder] => prove(Path::new(folder)),
        _ => Err("usage: full_disk make FOLDER GIB | check FOLDER | verify FOLDER".into()),
    }
}

/// Processor time of all threads so far, in hundredths of a second.
fn busy() -> Fallible<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("no such file as expected")?;
    // The second field's end is cut off with those before it: user and system time are these.
    let times = fields.split(' ').skip(11).take(2);
    Ok(times.map(str::parse::<u64>).sum::<Result<u64, _>>()?)
}

/// Prints how long something took, and how much memory there is now and was at most, in MiB.
fn told<T>(what: &str, work: impl FnOnce() -> Fallible<T>) -> Fallible<T> {
    let (start, before) = (Instant::now(), busy()?);
    let done = work()?;
    let busy = busy()? - before;
    let took = start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) / 1024
    };
    let (now, most) = (field("VmRSS:"), field("VmHWM:"));
    println!(
        "{what}: {took:.2} s, processor {}.{:02} s; memory {now} MiB, at most {most} MiB so far",
        busy / 100,
        busy % 100
    );
    Ok(done)
}

fn archive() -> Fallible<SnapshotName> {
    Ok("main/vm/100/1970-01-01T00:00:00Z-0000000000000000".parse()?)
}

fn make(folder: &Path, size: u64) -> Fallible<()> {
    let storage = Arc::new(LocalStorage::create(folder)?);
    let random = Arc::new(SystemRandom);
    let chunk_size = CHUNK as usize;
    let repository = Repository::init(storage, random, &Protect::Open, chunk_size)?;
    let repository = Arc::new(repository);
    let writer = Writer::new(Arc::clone(&repository))?;
    let count = size.div_ceil(LEAF);
    let leaves = told("stored chunks and lowest nodes", || {
        let leaves = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            let start = |first| {
                let (writer, leaves) = (&writer, &leaves);
                scope.spawn(move || -> snapkeep_repo::Result<()> {
                    let mut worker = writer.worker();
                    for number in (u64::from(first)..count).step_by(THREADS.into()) {
                        let mut leaf = [None; MAP_FAN_OUT];
                        for (chunk, slot) in (number * MAP_FAN_OUT as u64..).zip(&mut leaf) {
                            *slot = Some(worker.store(Class::Data, &(!chunk).to_le_bytes())?.id);
                        }
                        let id = worker.store_leaf(&leaf)?;
                        let mut leaves = leaves.lock().expect("no thread panicked");
                        leaves.insert(number, id);
                    }
                    Ok(())
                })
            };
            let threads: Vec<_> = (0..THREADS).map(start).collect();
            let joined = threads.into_iter().map(ScopedJoinHandle::join);
            joined
                .map(|done| done.expect("no panic"))
                .collect::<Result<Vec<()>, _>>()
        })?;
        Ok(leaves.into_inner()?)
    })?;
    let root = told("stored the upper nodes", || {
        let mut worker = writer.worker();
        Ok(update_map(
            &repository,
            &mut worker,
            size,
            CHUNK,
            None,
            leaves,
        )?)
    })?;
    let snapshot = Snapshot {
        id: String::new(),
        repository: String::new(),
        needs: Vec::new(),
        time: 0,
        tree: None,
        disks: vec![DiskRecord {
            device: "drive-scsi0".to_owned(),
            size,
            chunk_size: CHUNK,
            root,
            lineage: Lineage::default(),
        }],
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
        program: "full_disk".to_owned(),
    };
    let name = archive()?;
    told("committed", || Ok(writer.commit(&name, snapshot)?))?;
    Ok(())
}

fn open(folder: &Path) -> Fallible<(Arc<Counted>, Repository)> {
    let storage = Arc::new(Counted::new(Arc::new(LocalStorage::open(folder)?)));
    let repository = told("opened", || {
        let random = Arc::new(SystemRandom);
        Ok(Repository::open(
            Arc::clone(&storage) as _,
            random,
            &Unlock::Open,
        )?)
    })?;
    let (chunks, packs) = repository.counts();
    println!("{chunks} chunks in {packs} packs; {:?}", storage.take());
    Ok((storage, repository))
}

fn check(folder: &Path) -> Fallible<()> {
    let (storage, repository) = open(folder)?;
    let snapshot = repository.snapshot(&archive()?)?;
    for disk in &snapshot.disks {
        storage.take();
        told("checked that the disk is whole", || {
            Ok(repository.check_whole(disk)?)
        })?;
        println!("{:?}", storage.take());
    }
    Ok(())
}

fn prove(folder: &Path) -> Fallible<()> {
    let (storage, repository) = open(folder)?;
    let report = told("verified", || Ok(verify(&repository)?))?;
    println!(
        "{} chunks, {} wrong; {:?}",
        report.chunks,
        report.damage.len(),
        storage.take()
    );
    Ok(())
}
