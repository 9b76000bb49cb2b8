//! A repository, who does what in it at once, and whether what they were told still holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snapkeep_repo::{
    AttributeChange, Clock, Copier, CopyOutcome, Error, ErrorKind, KeyFile, MemoryStorage, Protect,
    PruneOptions, Random, Repository, Result, SnapshotName, Storage, Unlock, prune, verify,
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
    /// And then it prunes, and asks.
    ForgetAndPrune(&'static str),
    TakeBack(&'static str),
    Protect(&'static str),
    Restore(&'static str),
    /// From another repository that has it.
    Copy(&'static str),
    /// Sweeps what is condemned, and then marks.
    Prune,
    /// The same, and asks.
    PruneAndAsk,
    /// Twice, as by two processes: what the first condemns, the second sweeps.
    PruneTwice,
}

/// What an actor was told when it had done that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Made(&'static str),
    Forgotten(&'static str),
    /// Or protected: it stays.
    TakenBack(&'static str),
    /// Byte by byte, or it was not there.
    Restored,
    Pruned,
    Skipped,
}

pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) start: MemoryStorage,
    /// What archives are copied from.
    source: MemoryStorage,
    /// What is there and not forgotten.
    there: Vec<&'static str>,
    pub(crate) deeds: Vec<Deed>,
    /// How many seconds sweeps wait.
    settle: u64,
    /// Whether the storage is a journey away.
    pub(crate) far: bool,
}

fn content(archive: &str) -> Vec<u8> {
    let mut bytes = disk(archive.as_bytes()[0], 2);
    // What all have in common, and chunks of their own.
    bytes[..CHUNK].fill(1);
    bytes
}

fn open(storage: &Arc<dyn Storage>, number: u64) -> Result<Arc<Repository>> {
    open_by(storage, number, None)
}

fn open_by(
    storage: &Arc<dyn Storage>,
    number: u64,
    clock: Option<Arc<dyn Clock>>,
) -> Result<Arc<Repository>> {
    let unlock = Unlock::KeyFile(key()?);
    let repository = Repository::open(Arc::clone(storage), seeded(number), &unlock)?;
    Ok(Arc::new(match clock {
        Some(clock) => repository.with_clock(clock),
        None => repository,
    }))
}

/// What was done before the actors begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Before {
    Nothing,
    /// What only forgotten archives need was condemned.
    Marked,
    /// The same, and then what was forgotten was taken back.
    TakenBack,
    /// The archives were not backed up, but copied from the other repository.
    Copied,
    CopiedAndMarked,
    /// Nothing; archives of the other repository have notes.
    Noted,
}

/// An empty repository.
fn init(number: u64) -> Result<Arc<MemoryStorage>> {
    let storage = Arc::new(MemoryStorage::new());
    let protect = Protect::KeyFile(key()?);
    Repository::init(Arc::clone(&storage) as _, seeded(number), &protect, CHUNK)?;
    Ok(storage)
}

impl Scene {
    /// A repository with these archives, the last of which are forgotten.
    pub(crate) fn new(
        scene: &'static str,
        there: &[&'static str],
        forgotten: &[&'static str],
        before: Before,
        deeds: &[Deed],
    ) -> Result<Self> {
        let source = init(300)?;
        let start = init(100)?;
        let storage = Arc::clone(&start) as Arc<dyn Storage>;
        let copied = deeds.iter().filter_map(|deed| {
            let Deed::Copy(archive) = deed else {
                return None;
            };
            Some(*archive)
        });
        let all: Vec<_> = there
            .iter()
            .chain(forgotten)
            .copied()
            .chain(copied)
            .collect();
        for (number, archive) in (301..).zip(&all) {
            let source = Arc::clone(&source) as Arc<dyn Storage>;
            backup(
                &open(&source, number)?,
                &name(archive),
                None,
                &content(archive),
            )?;
            if before == Before::Noted {
                let notes = AttributeChange {
                    notes: Some("kept".to_owned()),
                    ..AttributeChange::default()
                };
                open(&source, number + 50)?.change_attributes(&name(archive), &notes)?;
            }
        }
        let mut scene = Self {
            name: scene,
            start: MemoryStorage::new(),
            source: source.fork(),
            there: there.to_vec(),
            deeds: deeds.to_vec(),
            settle: 0,
            far: false,
        };
        for (number, archive) in (101..).zip(there.iter().chain(forgotten)) {
            let copies = matches!(before, Before::Copied | Before::CopiedAndMarked);
            let how = if copies { Deed::Copy } else { Deed::BackUp };
            scene.act(&storage, number, how(archive), None)?;
            if forgotten.contains(archive) {
                open(&storage, number + 50)?.forget(&name(archive))?;
            }
        }
        if matches!(
            before,
            Before::Marked | Before::TakenBack | Before::CopiedAndMarked
        ) {
            scene.act(&storage, 99, Deed::Prune, None)?;
        }
        for archive in forgotten.iter().filter(|_| before == Before::TakenBack) {
            scene.act(&storage, 98, Deed::TakeBack(archive), None)?;
        }
        scene.start = start.fork();
        Ok(scene)
    }

    /// The same where sweeps wait, and no operation takes so long.
    pub(crate) fn with_waits(self) -> Self {
        let settle = 120;
        Self { settle, ..self }
    }

    /// The same on a storage that is far: actors ask for several things at once.
    pub(crate) fn at_distance(self) -> Self {
        Self { far: true, ..self }
    }

    /// The archives that must be there after what was said.
    fn wanted(&self, said: &[Result<Said>]) -> Vec<&'static str> {
        let mut wanted = self.there.clone();
        for said in said.iter().flatten() {
            match said {
                Said::Made(archive) | Said::TakenBack(archive) => wanted.push(archive),
                Said::Forgotten(_) | Said::Restored | Said::Pruned | Said::Skipped => {}
            }
        }
        // Who forgot something may have been told nothing.
        wanted.retain(|archive| {
            let forgets = |deed: &Deed| {
                matches!(deed, Deed::Forget(other) | Deed::ForgetAndPrune(other) if other == archive)
            };
            !self.deeds.iter().any(forgets)
        });
        wanted
    }

    /// Whether everything holds that somebody was told, and what is listed is whole: now, and when
    /// prunings that nobody disturbs have removed all that is not needed.
    pub(crate) fn judge(
        &self,
        storage: &Arc<MemoryStorage>,
        said: &[Result<Said>],
    ) -> Result<(), String> {
        for (deed, said) in self.deeds.iter().zip(said) {
            // A storage that fails is not damaged, and whoever gives way loses nothing.
            let mut gave_way = vec![ErrorKind::Io, ErrorKind::NotFound, ErrorKind::Swept];
            if matches!(deed, Deed::Forget(_) | Deed::ForgetAndPrune(_)) {
                gave_way.push(ErrorKind::Protected);
            }
            if let Err(e) = said
                && !gave_way.contains(&e.kind())
            {
                return Err(format!("{deed:?}: {}", e.chain()));
            }
        }
        let storage = Arc::new(storage.fork()) as Arc<dyn Storage>;
        self.holds(&storage, said)?;
        let prunes = |deed: &Deed| {
            matches!(
                deed,
                Deed::Prune | Deed::PruneAndAsk | Deed::PruneTwice | Deed::ForgetAndPrune(_)
            )
        };
        if self.deeds.iter().any(prunes) {
            ask(&storage, 205, None).map_err(|e| format!("afterwards: {}", e.chain()))?;
            for number in 201..203 {
                self.act(&storage, number, Deed::Prune, None)
                    .map_err(|e| format!("afterwards: {}", e.chain()))?;
            }
            (self.holds(&storage, said)).map_err(|e| format!("after more prunings: {e}"))?;
        }
        Ok(())
    }

    fn holds(&self, storage: &Arc<dyn Storage>, said: &[Result<Said>]) -> Result<(), String> {
        let repository = open(storage, 200).map_err(|e| e.chain())?;
        let listed = repository.snapshots().map_err(|e| e.chain())?;
        for archive in self.wanted(said) {
            if !listed.contains(&name(archive)) {
                return Err(format!("{archive} is not there"));
            }
        }
        for archive in &listed {
            repository.attributes(archive).map_err(|e| e.chain())?;
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

    /// What an actor does, as a process of its own.
    pub(crate) fn act(
        &self,
        storage: &Arc<dyn Storage>,
        actor: u64,
        deed: Deed,
        clock: Option<Arc<dyn Clock>>,
    ) -> Result<Said> {
        let repository = open_by(storage, actor, clock.clone())?;
        match deed {
            Deed::BackUp(archive) => {
                backup(&repository, &name(archive), None, &content(archive))?;
                Ok(Said::Made(archive))
            }
            Deed::BackUpOn(base, archive) => {
                let disk = repository.snapshot(&name(base))?.disks.remove(0);
                let old = content(base);
                // As a provider does: otherwise everything is stored.
                let usable = repository.check_whole(&disk);
                let base = usable.is_ok().then_some((&disk, &old[..]));
                backup(&repository, &name(archive), base, &content(archive))?;
                Ok(Said::Made(archive))
            }
            Deed::Copy(archive) => {
                let source = Arc::new(self.source.fork()) as Arc<dyn Storage>;
                let mut copier = Copier::new(open(&source, actor + 400)?, repository)?;
                match copier.copy(&name(archive))? {
                    CopyOutcome::Copied { .. } => Ok(Said::Made(archive)),
                    // It may be forgotten.
                    CopyOutcome::Skipped => Ok(Said::Skipped),
                }
            }
            Deed::Forget(archive) => {
                repository.forget(&name(archive))?;
                Ok(Said::Forgotten(archive))
            }
            Deed::ForgetAndPrune(archive) => {
                repository.forget(&name(archive))?;
                ask(storage, actor + 50, clock)
            }
            Deed::TakeBack(archive) => {
                repository.take_back(&name(archive))?;
                Ok(Said::TakenBack(archive))
            }
            Deed::Protect(archive) => {
                repository.protect(&name(archive), true)?;
                Ok(Said::TakenBack(archive))
            }
            Deed::Restore(archive) => match restore(&repository, &name(archive)) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(Said::Restored),
                Ok(bytes) if bytes == content(archive) => Ok(Said::Restored),
                Ok(_) => Err(Error::new(ErrorKind::Corrupt, "other bytes")),
                // Nothing is damaged where the archive is gone.
                Err(e) => match repository.snapshot(&name(archive)) {
                    Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(Said::Restored),
                    _ => Err(e),
                },
            },
            Deed::PruneAndAsk => ask(storage, actor + 50, clock),
            Deed::Prune | Deed::PruneTwice => {
                // Safety does not depend on the grace period, and lists of this storage are never old.
                // Whoever is put to sleep with the turn of an operation wakes before others waited.
                let options = PruneOptions {
                    grace: 0,
                    settle: self.settle * u64::from(clock.is_some()),
                    max_unused: 0,
                    confirmed: true,
                    ..PruneOptions::default()
                };
                prune(&repository, &options)?;
                if matches!(deed, Deed::PruneTwice) {
                    prune(&open_by(storage, actor + 50, clock)?, &options)?;
                }
                Ok(Said::Pruned)
            }
        }
    }
}

/// A pruning that asks where something is to be confirmed. It may ask whether more than half of all is
/// to go, but misses no archive that is rightly gone.
fn ask(storage: &Arc<dyn Storage>, number: u64, clock: Option<Arc<dyn Clock>>) -> Result<Said> {
    let options = PruneOptions {
        grace: 0,
        settle: 0,
        max_unused: 0,
        ..PruneOptions::default()
    };
    let pruned =
        open_by(storage, number, clock).and_then(|repository| prune(&repository, &options));
    let refused = match pruned {
        Ok(report) => report
            .refused
            .map(|why| Error::new(ErrorKind::Invalid, why)),
        Err(e) => Some(e),
    };
    let missed = |e: &Error| e.chain().contains("not listed, though");
    match refused.filter(|e| e.kind() != ErrorKind::Invalid || missed(e)) {
        None => Ok(Said::Pruned),
        Some(e) => Err(e),
    }
}

fn last_part(archive: &SnapshotName) -> &str {
    archive
        .as_str()
        .rsplit_once('/')
        .map_or("", |(_, last)| last)
}
