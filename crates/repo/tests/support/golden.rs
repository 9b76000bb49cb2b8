//! The golden repositories: how they are made, always with the same bytes, and what is in them.
//!
//! They lie in `tests/golden/`. The file `expected.json` there, and not this program, says what
//! they restore to, so that a change here that makes other repositories does not go unnoticed.

#![allow(dead_code, reason = "no program uses everything")]

#[path = "golden_tree.rs"]
pub(crate) mod tree;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use snapkeep_repo::{
    BlobRef, ChunkId, Class, DiskReader, DiskRecord, HeadPlace, KeyFile, Lineage, LocalStorage,
    MAP_FAN_OUT, MemoryStorage, Protect, Random, Repository, Result, Snapshot, SnapshotName, Stats,
    Storage, Stretch, SystemRandom, TreeReader, Unlock, Writer, update_map, write_tree,
};

pub(crate) const CHUNK: usize = 64 << 10;
pub(crate) const PASSPHRASE: &str = "correct horse battery staple";
/// The folders at the top of a repository.
const TOP: &[&str] = &["heads", "index", "keys", "packs", "snapshots"];
/// When their archives were made.
pub(crate) const MADE: i64 = 1_800_000_000;
/// So that a test is not slow; nobody should use it.
pub(crate) const CHEAP: Stretch = Stretch {
    memory_kib: 64,
    passes: 2,
    lanes: 2,
};

pub(crate) type Fallible<T> = std::result::Result<T, Box<dyn Error>>;

/// Where the golden repositories are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Bytes that look random and are always the same.
#[derive(Debug)]
struct Seeded {
    seed: &'static str,
    drawn: Mutex<u64>,
}

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        *drawn += 1;
        stream(self.seed, *drawn, buffer);
        Ok(())
    }
}

fn stream(seed: &str, number: u64, buffer: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key("snapkeep golden repositories");
    hasher
        .update(seed.as_bytes())
        .update(&number.to_le_bytes())
        .finalize_xof()
        .fill(buffer);
}

/// What a chunk of a disk holds.
#[derive(Clone, Copy)]
enum Fill {
    /// Text, which compresses.
    Text(u64),
    /// Bytes that do not compress.
    Noise(u64),
}

/// A disk: its size, and the chunks that are not zero.
struct Disk {
    device: &'static str,
    size: usize,
    chunks: BTreeMap<usize, Fill>,
}

impl Disk {
    fn new(device: &'static str, size: usize, chunks: &[(usize, Fill)]) -> Self {
        let chunks = chunks.iter().copied().collect();
        Self {
            device,
            size,
            chunks,
        }
    }

    fn chunk(&self, number: usize, fill: Fill) -> Vec<u8> {
        let mut bytes = vec![0; CHUNK.min(self.size - number * CHUNK)];
        match fill {
            Fill::Noise(seed) => stream("noise", seed, &mut bytes),
            Fill::Text(seed) => {
                let line = format!("chunk of text {seed}, which compresses well\n");
                for (byte, letter) in bytes.iter_mut().zip(line.bytes().cycle()) {
                    *byte = letter;
                }
            }
        }
        bytes
    }
}

/// One archive to make.
pub(crate) struct Archive<'n> {
    pub(crate) name: &'n str,
    disks: Vec<Disk>,
    guest: &'static str,
    firewall: Option<&'static str>,
    /// Whether it is a container's, with the one tree that is made here.
    tree: bool,
    /// The archive that it is incremental to, and the lowest nodes that changed.
    base: Option<(&'n str, &'static [usize])>,
}

/// The repository that is encrypted, with a head.
pub(crate) fn encrypted() -> Vec<Archive<'static>> {
    let first = "golden/vm/100/2027-01-15T08:00:00Z-00000000000000a1";
    let second = "golden/vm/100/2027-01-16T08:00:00Z-00000000000000a2";
    let third = "other/vm/7/2027-01-16T08:00:01Z-00000000000000a3";
    let big = 66 * CHUNK + 5000;
    let system = [
        (0, Fill::Text(1)),
        (1, Fill::Noise(1)),
        (64, Fill::Text(2)),
        (66, Fill::Noise(2)),
    ];
    let changed = [
        (0, Fill::Text(1)),
        (1, Fill::Noise(1)),
        (2, Fill::Text(3)),
        (66, Fill::Noise(2)),
    ];
    let data = [(0, Fill::Text(1)), (2, Fill::Text(4)), (3, Fill::Text(5))];
    let disks = |chunks: &[(usize, Fill)]| {
        vec![
            Disk::new("drive-scsi0", big, chunks),
            Disk::new("drive-virtio1", 3 * CHUNK + 512, &data),
        ]
    };
    vec![
        Archive {
            name: first,
            disks: disks(&system),
            guest: "name: golden\nscsi0: local:vm-100-disk-0,size=4M\n",
            firewall: Some("[OPTIONS]\nenable: 1\n"),
            tree: false,
            base: None,
        },
        Archive {
            name: second,
            disks: disks(&changed),
            guest: "name: golden\nmemory: 512\n",
            firewall: None,
            tree: false,
            base: Some((first, &[0, 1])),
        },
        Archive {
            name: third,
            disks: vec![
                Disk::new("drive-empty", 0, &[]),
                Disk::new("drive-zero", 2 * CHUNK + 1, &[]),
            ],
            guest: "",
            firewall: Some(""),
            tree: false,
            base: None,
        },
    ]
}

/// The repository whose key lies open in it.
pub(crate) fn open() -> Vec<Archive<'static>> {
    let disk = Archive {
        name: "golden/vm/200/2027-01-15T08:00:00Z-00000000000000b1",
        disks: vec![Disk::new(
            "drive-scsi0",
            3 * CHUNK + 3000,
            &[(0, Fill::Text(6)), (2, Fill::Text(7)), (3, Fill::Noise(3))],
        )],
        guest: "name: open\n",
        firewall: None,
        tree: false,
        base: None,
    };
    let container = Archive {
        name: "golden/ct/300/2027-01-15T08:00:00Z-00000000000000b2",
        disks: Vec::new(),
        guest: "hostname: golden\n",
        firewall: Some(""),
        tree: true,
        base: None,
    };
    vec![disk, container]
}

/// An archive after one of the guest with two disks, that holds something else.
pub(crate) fn later<'n>(name: &'n str, base: &'n str, text: u64) -> Archive<'n> {
    let chunks = [(0, Fill::Text(1)), (2, Fill::Text(text))];
    Archive {
        name,
        disks: vec![Disk::new("drive-scsi0", 66 * CHUNK + 5000, &chunks)],
        guest: "name: golden\n",
        firewall: None,
        tree: false,
        base: Some((base, &[0])),
    }
}

/// What opens the golden repository of this name.
pub(crate) fn unlock(name: &str) -> Fallible<Unlock> {
    if name == "open" {
        return Ok(Unlock::Open);
    }
    Ok(Unlock::KeyFile(
        std::fs::read_to_string(folder().join("key-file"))?.parse()?,
    ))
}

/// Makes all of it in this folder, which must have none.
pub(crate) fn make(folder: &Path) -> Fallible<()> {
    let random = seeded("key file");
    let key = KeyFile::generate(&*random)?;
    let storage = Arc::new(LocalStorage::create(&folder.join("encrypted"))?);
    let random = seeded("encrypted");
    let protect = Protect::KeyFile(key.clone());
    let repository = Repository::init(storage, random, &protect, CHUNK)?;
    repository.add_key(
        &Protect::Stretched(PASSPHRASE.to_owned().into(), CHEAP),
        None,
    )?;
    let kit = repository.recovery_kit()?.to_text();
    let repository = Arc::new(repository);
    let archives = encrypted();
    for archive in &archives {
        back_up(&repository, archive)?;
    }
    let archive: SnapshotName = archives[1].name.parse()?;
    repository.put_head(&HeadPlace::new(&archive, "store")?, &archive)?;
    let storage = Arc::new(LocalStorage::create(&folder.join("open"))?);
    let repository = Arc::new(Repository::init(
        storage,
        seeded("open"),
        &Protect::Open,
        CHUNK,
    )?);
    for archive in &open() {
        back_up(&repository, archive)?;
    }
    std::fs::write(folder.join("passphrase"), format!("{PASSPHRASE}\n"))?;
    std::fs::write(folder.join("key-file"), format!("{}\n", &*key.to_text()))?;
    std::fs::write(folder.join("recovery-kit"), format!("{}\n", &*kit))?;
    Ok(())
}

fn seeded(seed: &'static str) -> Arc<Seeded> {
    let drawn = Mutex::new(0);
    Arc::new(Seeded { seed, drawn })
}

pub(crate) fn back_up(repository: &Arc<Repository>, archive: &Archive<'_>) -> Fallible<()> {
    let base = (archive.base)
        .map(|(name, _)| repository.snapshot(&name.parse()?))
        .transpose()?;
    let writer = Writer::new(Arc::clone(repository))?;
    let mut worker = writer.worker();
    let mut disks = Vec::new();
    for disk in &archive.disks {
        let mut leaves = BTreeMap::new();
        let lowest = disk.size.div_ceil(CHUNK * MAP_FAN_OUT);
        for leaf in (0..lowest).filter(|leaf| archive.base.is_none_or(|(_, n)| n.contains(leaf))) {
            let mut children: [Option<ChunkId>; MAP_FAN_OUT] = [None; MAP_FAN_OUT];
            for (number, child) in (leaf * MAP_FAN_OUT..).zip(&mut children) {
                if let Some(fill) = disk.chunks.get(&number) {
                    let bytes = disk.chunk(number, *fill);
                    *child = Some(worker.store(Class::Data, &bytes)?.id);
                }
            }
            leaves.insert(leaf as u64, worker.store_leaf(&children)?);
        }
        let (size, chunk_size) = (disk.size as u64, u32::try_from(CHUNK)?);
        let old = base
            .as_ref()
            .and_then(|snapshot| snapshot.disks.iter().find(|old| old.device == disk.device));
        let root = old.and_then(|old| old.root);
        disks.push(DiskRecord {
            device: disk.device.to_owned(),
            size,
            chunk_size,
            root: update_map(repository, &mut worker, size, chunk_size, root, leaves)?,
            lineage: Lineage {
                base: archive.base.map(|(name, _)| name.to_owned()),
                storage: Some("store".to_owned()),
                bitmap: Some("snapkeep:store".to_owned()),
                process: Some("0123456789abcdef0123456789abcdef/4711/123456".to_owned()),
                vmgenid: None,
            },
        });
    }
    let mut store = |text: &str| -> Fallible<BlobRef> {
        let chunk = match text {
            "" => None,
            text => Some(worker.store(Class::Data, text.as_bytes())?.id),
        };
        let length = u32::try_from(text.len())?;
        Ok(BlobRef { chunk, length })
    };
    let guest_config = store(archive.guest)?;
    let firewall_config = archive.firewall.map(&mut store).transpose()?;
    drop(worker);
    // One thread stores in always the same order.
    let made = |()| write_tree(&writer, 1, &|_| {}, tree::give);
    let tree = archive.tree.then_some(()).map(made).transpose()?;
    let snapshot = Snapshot {
        id: String::new(),
        repository: String::new(),
        needs: Vec::new(),
        time: MADE,
        disks,
        tree,
        guest_config,
        firewall_config,
        writer: String::new(),
        index_objects: 0,
        origin: None,
        generation: 0,
        stats: Stats::default(),
        program: "golden".to_owned(),
    };
    writer.commit(&archive.name.parse()?, snapshot)?;
    Ok(())
}

/// What one archive restores to: BLAKE3 of each disk and configuration and of a tree's listing,
/// and the disks' sizes.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Expected {
    pub(crate) disks: BTreeMap<String, (u64, String)>,
    /// The number of a tree's entries, and the BLAKE3 of their listing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tree: Option<(u64, String)>,
    pub(crate) guest_config: String,
    pub(crate) firewall_config: Option<String>,
}

/// The names of the repositories and what their archives restore to.
pub(crate) type AllExpected = BTreeMap<String, BTreeMap<String, Expected>>;

/// Restores everything, and hashes it.
pub(crate) fn hashes(repository: &Arc<Repository>) -> Result<BTreeMap<String, Expected>> {
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_string();
    let mut found = BTreeMap::new();
    for name in repository.snapshots()? {
        let snapshot = repository.snapshot(&name)?;
        let mut disks = BTreeMap::new();
        for disk in &snapshot.disks {
            let reader = DiskReader::new(Arc::clone(repository), disk.clone());
            let mut bytes = vec![0xee; usize::try_from(disk.size).unwrap_or(usize::MAX)];
            reader.read_at(0, &mut bytes)?;
            disks.insert(disk.device.clone(), (disk.size, hash(&bytes)));
        }
        let guest_config = hash(&repository.read_blob(&snapshot.guest_config)?);
        let firewall = snapshot.firewall_config.as_ref();
        let firewall = firewall
            .map(|blob| repository.read_blob(blob))
            .transpose()?;
        let firewall_config = firewall.map(|bytes| hash(&bytes));
        let tree = (snapshot.tree.as_ref())
            .map(|record| {
                let reader = TreeReader::open(Arc::clone(repository), record)?;
                let (entries, listing) = tree::listing(&reader)?;
                Ok((entries, hash(listing.as_bytes())))
            })
            .transpose()?;
        let expected = Expected {
            disks,
            tree,
            guest_config,
            firewall_config,
        };
        found.insert(name.to_string(), expected);
    }
    Ok(found)
}

/// A golden repository, in memory.
pub(crate) fn load(folder: &Path) -> Result<MemoryStorage> {
    let memory = MemoryStorage::new();
    let storage = LocalStorage::open(folder)?;
    for (name, bytes) in files(&storage)? {
        memory.put(&name.parse()?, &bytes)?;
    }
    Ok(memory)
}

/// All files of a repository by name.
pub(crate) fn files(storage: &dyn Storage) -> Result<BTreeMap<String, Vec<u8>>> {
    let config = "config".parse()?;
    let mut names = vec![(config, 0)];
    names[0].1 = storage.length(&names[0].0)?;
    for top in TOP {
        storage.list(&top.parse()?, &mut |name, length| {
            names.push((name.clone(), length));
            Ok(())
        })?;
    }
    let read = names.iter();
    read.map(|(name, length)| Ok((name.to_string(), storage.read(name, 0..*length)?)))
        .collect()
}

/// Opens a repository that was made here.
pub(crate) fn open_with(storage: Arc<dyn Storage>, unlock: &Unlock) -> Result<Arc<Repository>> {
    Repository::open(storage, Arc::new(SystemRandom), unlock).map(Arc::new)
}
