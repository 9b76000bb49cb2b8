//! A repository, who does what in it at once, and whether what they were told still holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snapkeep_repo::{
    Error, ErrorKind, KeyFile, MemoryStorage, Protect, Random, Repository, Result, SnapshotName,
    Storage, Unlock, verify,
};

use super::support::{CHUNK, backup, disk, name, restore};

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

fn seeded(number: u64) -> Arc<Seeded> {
    Arc::new(Seeded(number, AtomicU64::new(0)))
}

fn key() -> Result<KeyFile> {
    KeyFile::generate(&*seeded(u64::MAX))
}

/// What an actor does. Archives have names of two letters; the first says what their disks hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    BackUp(&'static str),
    /// On the first, incrementally.
    BackUpOn(&'static str, &'static str),
    Forget(&'static str),
    TakeBack(&'static str),
    Restore(&'static str),
}

/// What an actor was told when it had done that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Made(&'static str),
    Forgotten(&'static str),
    TakenBack(&'static str),
    /// Byte by byte, or it was not there.
    Restored,
}

pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) start: MemoryStorage,
    /// What is there and not forgotten.
    there: Vec<&'static str>,
    pub(crate) deeds: Vec<Deed>,
}

fn content(archive: &str) -> Vec<u8> {
    let mut bytes = disk(archive.as_bytes()[0], 2);
    // What all have in common, and chunks of their own.
    bytes[..CHUNK].fill(1);
    bytes
}

fn open(storage: &Arc<dyn Storage>, number: u64) -> Result<Arc<Repository>> {
    let unlock = Unlock::KeyFile(key()?);
    Repository::open(Arc::clone(storage), seeded(number), &unlock).map(Arc::new)
}

impl Scene {
    /// A repository with these archives, the last of which are forgotten.
    pub(crate) fn new(
        scene: &'static str,
        there: &[&'static str],
        forgotten: &[&'static str],
        deeds: &[Deed],
    ) -> Result<Self> {
        let start = Arc::new(MemoryStorage::new());
        let storage = Arc::clone(&start) as Arc<dyn Storage>;
        let protect = Protect::KeyFile(key()?);
        Repository::init(Arc::clone(&storage), seeded(100), &protect, CHUNK)?;
        for (number, archive) in (101..).zip(there.iter().chain(forgotten)) {
            let repository = open(&storage, number)?;
            backup(&repository, &name(archive), None, &content(archive))?;
            if forgotten.contains(archive) {
                repository.forget(&name(archive))?;
            }
        }
        Ok(Self {
            name: scene,
            start: start.fork(),
            there: there.to_vec(),
            deeds: deeds.to_vec(),
        })
    }

    /// The archives that must be there after what was said.
    fn wanted(&self, said: &[Result<Said>]) -> Vec<&'static str> {
        let mut wanted = self.there.clone();
        for said in said.iter().flatten() {
            match said {
                Said::Made(archive) | Said::TakenBack(archive) => wanted.push(archive),
                Said::Forgotten(_) | Said::Restored => {}
            }
        }
        // Who forgot something may have been told nothing.
        wanted.retain(|archive| {
            let forgets = |deed: &Deed| matches!(deed, Deed::Forget(other) if other == archive);
            !self.deeds.iter().any(forgets)
        });
        wanted
    }

    /// Whether everything holds that somebody was told, and what is listed is whole.
    pub(crate) fn judge(
        &self,
        storage: &Arc<MemoryStorage>,
        said: &[Result<Said>],
    ) -> Result<(), String> {
        for (deed, said) in self.deeds.iter().zip(said) {
            // A storage that fails is not damaged.
            if let Err(e) = said
                && !matches!(e.kind(), ErrorKind::Io | ErrorKind::NotFound)
            {
                return Err(format!("{deed:?}: {}", e.chain()));
            }
        }
        let storage = Arc::new(storage.fork()) as Arc<dyn Storage>;
        let repository = open(&storage, 200).map_err(|e| e.chain())?;
        let listed = repository.snapshots().map_err(|e| e.chain())?;
        for archive in self.wanted(said) {
            if !listed.contains(&name(archive)) {
                return Err(format!("{archive} is not there"));
            }
        }
        for archive in &listed {
            let bytes = restore(&repository, archive).map_err(|e| e.chain())?;
            if bytes != content(last_part(archive)) {
                return Err(format!("{archive} restores wrong"));
            }
        }
        let report = verify(&repository).map_err(|e| e.chain())?;
        match report.damage.first() {
            None => Ok(()),
            Some(damage) => Err(format!("{}: {}", damage.object, damage.error.chain())),
        }
    }
}

/// What an actor does, as a process of its own.
pub(crate) fn act(storage: &Arc<dyn Storage>, actor: usize, deed: Deed) -> Result<Said> {
    let repository = open(storage, actor as u64)?;
    match deed {
        Deed::BackUp(archive) => {
            backup(&repository, &name(archive), None, &content(archive))?;
            Ok(Said::Made(archive))
        }
        Deed::BackUpOn(base, archive) => {
            let snapshot = repository.snapshot(&name(base))?;
            let old = content(base);
            let base = Some((&snapshot.disks[0], &old[..]));
            backup(&repository, &name(archive), base, &content(archive))?;
            Ok(Said::Made(archive))
        }
        Deed::Forget(archive) => {
            repository.forget(&name(archive))?;
            Ok(Said::Forgotten(archive))
        }
        Deed::TakeBack(archive) => {
            repository.take_back(&name(archive))?;
            Ok(Said::TakenBack(archive))
        }
        Deed::Restore(archive) => match restore(&repository, &name(archive)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Said::Restored),
            Ok(bytes) if bytes == content(archive) => Ok(Said::Restored),
            Ok(_) => Err(Error::new(ErrorKind::Corrupt, "other bytes")),
            Err(e) => Err(e),
        },
    }
}

fn last_part(archive: &SnapshotName) -> &str {
    archive
        .as_str()
        .rsplit_once('/')
        .map_or("", |(_, last)| last)
}
