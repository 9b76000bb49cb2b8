//! What processes do to a repository in the tests that stop them, what they told their callers,
//! and whether that still holds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snapkeep_repo::{
    ErrorKind, Files, HeadPlace, KeyFile, LocalStorage, Protect, Random, Repository, Result,
    SnapshotName, Storage, TreeReader, Unlock, Writer, verify, write_tree,
};

use super::tree::{Entry, commit, directory, file, give, noise, read};
use super::{CHUNK, backup, disk, name, restore};

/// The same bytes in every run, other bytes for every process.
#[derive(Debug)]
struct Seeded(u64, AtomicU64);

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let turn = self.1.fetch_add(1, Ordering::Relaxed);
        let seed = [self.0.to_le_bytes(), turn.to_le_bytes()].concat();
        blake3::Hasher::new()
            .update(&seed)
            .finalize_xof()
            .fill(buffer);
        Ok(())
    }
}

/// A process on the machine.
pub(crate) struct Process {
    pub(crate) storage: Arc<dyn Storage>,
    random: Arc<Seeded>,
    key: KeyFile,
}

/// What a process told its caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) init: bool,
    pub(crate) archives: Vec<SnapshotName>,
    /// The archive that the newest head is known to name.
    pub(crate) head: Option<SnapshotName>,
}

/// What the disk holds when an archive is made; told by the first letter of its name.
pub(crate) fn content(name: &SnapshotName) -> Vec<u8> {
    let (_, last) = name.as_str().rsplit_once('/').unwrap();
    match last.as_bytes()[0] {
        b'1' => disk(1, 7),
        b'2' => {
            let mut bytes = disk(1, 7);
            bytes[CHUNK..3 * CHUNK].fill(2);
            bytes
        }
        _ => disk(3, 5),
    }
}

/// Whether an archive is that of a directory tree; told by the last letter of its name.
fn is_tree(name: &SnapshotName) -> bool {
    name.as_str().ends_with('t')
}

/// What such an archive holds.
fn tree() -> Entry {
    directory([
        (b"large".to_vec(), file(&noise(1, 300_000))),
        (b"small".to_vec(), file(b"in a bundle")),
    ])
}

pub(crate) fn place() -> HeadPlace {
    HeadPlace::new(&name("1"), "store").unwrap()
}

impl Process {
    /// A process with this number, that finds the repository in this folder.
    pub(crate) fn start(files: Arc<dyn Files>, folder: &Path, number: u64) -> Result<Self> {
        let random = Arc::new(Seeded(number, AtomicU64::new(0)));
        Ok(Self {
            storage: Arc::new(LocalStorage::open_on(files, folder)?),
            random,
            key: KeyFile::generate(&Seeded(u64::MAX, AtomicU64::new(0)))?,
        })
    }

    pub(crate) fn init(&self) -> Result<Arc<Repository>> {
        let (storage, random) = (Arc::clone(&self.storage), Arc::clone(&self.random));
        let protect = Protect::KeyFile(self.key.clone());
        Repository::init(storage, random, &protect, CHUNK).map(Arc::new)
    }

    pub(crate) fn open(&self) -> Result<Arc<Repository>> {
        let (storage, random) = (Arc::clone(&self.storage), Arc::clone(&self.random));
        let unlock = Unlock::KeyFile(self.key.clone());
        Repository::open(storage, random, &unlock).map(Arc::new)
    }

    /// Opens the repository, or makes it if nobody was told that there is one.
    pub(crate) fn open_or_init(&self, told: &mut Told) -> Result<Arc<Repository>> {
        let repository = match self.open() {
            Err(e) if e.kind() == ErrorKind::NotFound && !told.init => self.init()?,
            other => other?,
        };
        told.init = true;
        Ok(repository)
    }
}

/// A backup as a host with a fixed name for its bitmaps makes it, incremental if there is a base.
pub(crate) fn back_up(repository: &Arc<Repository>, told: &mut Told, text: &str) -> Result<()> {
    let name = name(text);
    let head = repository.put_head(&place(), &name)?;
    told.head = Some(name.clone());
    repository.remove_heads_before(&place(), &head)?;
    let base = match told.archives.iter().rfind(|name| !is_tree(name)) {
        Some(base) => Some((repository.snapshot(base)?, content(base))),
        None => None,
    };
    let base = (base.as_ref()).map(|(snapshot, bytes)| (&snapshot.disks[0], &bytes[..]));
    backup(repository, &name, base, &content(&name))?;
    told.archives.push(name);
    Ok(())
}

/// The first process: makes the repository, a full backup and an incremental one.
pub(crate) fn first(process: &Process, told: &mut Told, tell: &dyn Fn(&Told)) -> Result<()> {
    let repository = process.init()?;
    told.init = true;
    tell(told);
    back_up(&repository, told, "1")?;
    tell(told);
    back_up(&repository, told, "2")?;
    tell(told);
    Ok(())
}

/// A backup of a container.
fn back_up_tree(repository: &Arc<Repository>, told: &mut Told, text: &str) -> Result<()> {
    let writer = Writer::new(Arc::clone(repository))?;
    let record = write_tree(&writer, 1, &|_| {}, |writer| give(writer, b"", &tree()))?;
    commit(writer, text, record)?;
    told.archives.push(name(text));
    Ok(())
}

/// The second: backs up what the first may have stored already, and a container.
pub(crate) fn second(process: &Process, told: &mut Told) -> Result<()> {
    let repository = process.open_or_init(told)?;
    back_up(&repository, told, "2b")?;
    back_up_tree(&repository, told, "2t")
}

/// Whether everything that was told is there, and all that is listed is whole.
pub(crate) fn holds(repository: &Arc<Repository>, told: &Told) -> Result<(), String> {
    let listed = repository.snapshots().map_err(|e| e.chain())?;
    if let Some(lost) = told.archives.iter().find(|name| !listed.contains(name)) {
        return Err(format!("{lost} was lost"));
    }
    for found in listed.iter().filter(|name| is_tree(name)) {
        let restored = repository.snapshot(found).and_then(|snapshot| {
            let record = snapshot.tree.expect("it has a tree");
            read(&TreeReader::open(Arc::clone(repository), &record)?)
        });
        if restored.map_err(|e| format!("{found}: {}", e.chain()))? != tree() {
            return Err(format!("{found} holds other files"));
        }
    }
    for found in listed.iter().filter(|name| !is_tree(name)) {
        match restore(repository, found) {
            Ok(bytes) if bytes == content(found) => {}
            Ok(_) => return Err(format!("{found} holds other bytes")),
            Err(e) => return Err(format!("{found}: {}", e.chain())),
        }
    }
    let report = verify(repository).map_err(|e| e.chain())?;
    if let Some(damage) = report.damage.first() {
        return Err(format!("{}: {}", damage.object, damage.error.chain()));
    }
    let latest = repository.latest_head(&place()).map_err(|e| e.chain())?;
    let latest = latest.map(|(_, archive)| archive);
    if told.head.is_some() && latest < told.head {
        return Err(format!("{latest:?} is the newest head"));
    }
    Ok(())
}
