//! A repository: made, opened, and its snapshots.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use zeroize::Zeroizing;

use crate::clock::{Clock, MachineClock};
use crate::format::config::{Config, Proof};
use crate::format::envelope::{self, Kind};
use crate::format::features;
use crate::format::id::{ChunkId, PackId};
use crate::format::snapshot::{Snapshot, SnapshotName};
use crate::index::{self, Index, Location, Merge, Merged};
use crate::keys::{Cipher, Keys, RecoveryKit, Unlock};
use crate::parallel::both;
use crate::prune::folder::Folder;
use crate::reader::Contexts;
use crate::slots::{Protect, Slots, add_slot, read_slots, slot_file, unlock_keys};
use crate::storage::{FileName, Storage, read_all, read_and_open};
use crate::{Error, ErrorKind, Random, Result, limits, random};

/// An open repository. Shared by the threads and backups of a process.
#[derive(Debug)]
pub struct Repository {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keys: Keys,
    pub(crate) index: RwLock<Index>,
    /// Whether snapshots were seen since the index was read: another host may have stored what
    /// they need after it.
    pub(crate) stale: Mutex<bool>,
    /// Keys of packs that were opened: each costs a read and a public-key operation.
    pub(crate) pack_keys: Mutex<HashMap<PackId, PackKey>>,
    pub(crate) contexts: Contexts,
    config: Config,
    /// The key slot that opened it; none if the recovery kit did.
    pub(crate) opened_by: Option<FileName>,
    /// The highest number in `prune/` when the index was first read: what a writer finds to be
    /// there is judged by what was condemned then, or later.
    pub(crate) generation: u32,
    /// Late archives that were found to be whole.
    pub(crate) whole: Mutex<HashSet<SnapshotName>>,
    /// Markers of sweeps that could not be read when they were last looked at.
    pub(crate) damaged_markers: Mutex<Vec<(FileName, Error)>>,
    /// Why this program may not write to it, if it may not.
    read_only: Option<Error>,
}

/// The key of a pack, once it was read, or why it was not, for those who waited for that.
type PackKey = Arc<Mutex<Option<Result<Arc<Cipher>>>>>;

/// How a chunk is looked up.
type Find<'f> = &'f dyn Fn(&Index, &ChunkId) -> Result<Option<Location>>;

/// What to see to where a repository is not found.
fn doubt(storage: &dyn Storage) -> &'static str {
    if storage.is_far() {
        "are the bucket and the prefix the right ones?"
    } else {
        "is its storage mounted?"
    }
}

fn config_file() -> FileName {
    "config".parse().expect("a constant name is valid")
}

/// Puts the file that makes a repository, unless somebody else was faster.
fn put_config(storage: &dyn Storage, config: &[u8]) -> Result<()> {
    let exists = match storage.put_new(&config_file(), config) {
        Ok(()) => false,
        Err(e) if e.kind() == ErrorKind::Exists => true,
        Err(e) => return Err(e),
    };
    // Not every storage lets only one be the first, and a reply may be lost.
    let is_ours = || Ok(read_all(storage, &config_file(), limits::CONFIG_MAX)? == config);
    if is_ours()? || is_ours()? {
        // Whoever was not told that it is durable does not know.
        return if exists {
            storage.settle(&config_file())
        } else {
            Ok(())
        };
    }
    let what = "somebody else has made a repository there at the same time: theirs is there, and \
                nothing of this one";
    Err(Error::new(ErrorKind::Exists, what))
}

/// What a repository says of itself, without a key: nothing proves it.
pub fn unproven_config(storage: &dyn Storage) -> Result<Config> {
    read_config(storage).map(|(config, _)| config)
}

fn read_config(storage: &dyn Storage) -> Result<(Config, Proof)> {
    read_and_open(storage, &config_file(), limits::CONFIG_MAX, Config::decode)
}

/// Whether these are the keys of the `config` that this was read from. Its last line has no
/// checksum: it is read once more before it is called wrong.
fn proves(storage: &dyn Storage, proof: &Proof, keys: &Keys) -> Result<bool> {
    if proof.holds(keys) {
        return Ok(true);
    }
    storage.doubt(&config_file());
    let (_, again) = read_config(storage)?;
    Ok(again.is_of_the_same(proof) && again.holds(keys))
}

impl Repository {
    /// Makes a repository in an empty storage: first the key slot, then `config`, which is what
    /// makes it one. `Exists` if somebody else makes one there at the same time, as far as that shows.
    pub fn init(
        storage: Arc<dyn Storage>,
        random: Arc<dyn Random>,
        protect: &Protect,
        chunk_size: usize,
    ) -> Result<Self> {
        match storage.length(&config_file()) {
            Ok(_) => {
                let what = "there is a repository already";
                return Err(Error::new(ErrorKind::Exists, what));
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        // Archives whose config was lost may still be read once it is made anew from the recovery
        // kit; under another key nobody would know them from damage.
        for folder in ["packs", "index", "snapshots"] {
            storage.list(&folder.parse()?, &mut |file, _| {
                let what = format!("there is {file}, of a repository whose config was lost");
                Err(Error::new(ErrorKind::Exists, what))
            })?;
        }
        let keys = Keys::new(Zeroizing::new(random::fresh(&*random)?));
        let config = Config::new(random::fresh(&*random)?, chunk_size)?;
        let slot = add_slot(&*storage, &*random, &keys, protect, None)?;
        put_config(&*storage, &config.encode(&keys)?).inspect_err(|e| {
            if e.kind() == ErrorKind::Exists
                && let Ok(slot) = slot_file(&slot)
            {
                // It opens nothing; the error is the one to tell.
                drop(storage.remove(&slot));
            }
        })?;
        let index = RwLock::new(Index::default());
        Ok(Self {
            storage,
            random,
            clock: Arc::new(MachineClock::new()),
            keys,
            index,
            stale: Mutex::default(),
            pack_keys: Mutex::default(),
            contexts: Contexts::default(),
            generation: 0,
            whole: Mutex::default(),
            damaged_markers: Mutex::default(),
            config,
            opened_by: Some(slot_file(&slot)?),
            read_only: None,
        })
    }

    /// Opens a repository.
    ///
    /// `NotFound` if there is none, `WrongKey` if nothing opens it,
    /// `Version` if a newer program made it.
    pub fn open(
        storage: Arc<dyn Storage>,
        random: Arc<dyn Random>,
        unlock: &Unlock,
    ) -> Result<Self> {
        let (mut repository, pruned) = Self::unlock(storage, random, unlock)?;
        repository.load_index(Some(pruned))?;
        Ok(repository)
    }

    /// The same, after what index objects say was merged into tables: then neither this nor a
    /// later opening has all of the index in memory.
    pub fn open_merged(
        storage: Arc<dyn Storage>,
        random: Arc<dyn Random>,
        unlock: &Unlock,
        when: Merge,
    ) -> Result<(Self, Merged)> {
        let (mut repository, _) = Self::unlock(storage, random, unlock)?;
        repository.may_write()?;
        let (storage, keys) = (&repository.storage, &repository.keys);
        let merged = index::merge(storage, keys, &*repository.random, when)?;
        repository.load_index(None)?;
        Ok((repository, merged))
    }

    /// The same with another clock than the machine's.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    fn load_index(&mut self, pruned: Option<Folder>) -> Result<()> {
        let index = Index::load(&self.storage, &self.keys, pruned)?;
        self.generation = index.seen().newest;
        self.index = RwLock::new(index);
        Ok(())
    }

    /// Opens one whose index is still to be read, and what was in `prune/` before.
    fn unlock(
        storage: Arc<dyn Storage>,
        random: Arc<dyn Random>,
        unlock: &Unlock,
    ) -> Result<(Self, Folder)> {
        let ask = &*storage;
        let config = || {
            read_config(ask).map_err(|e| {
                if e.kind() == ErrorKind::NotFound {
                    let ask = doubt(ask);
                    let what = format!("there is no repository here: no file config ({ask})");
                    return Error::with_source(ErrorKind::NotFound, what, e);
                }
                e
            })
        };
        let slots = || match unlock {
            Unlock::Recovery(_) => Ok((Slots::new(), None)),
            Unlock::Passphrase(_) | Unlock::KeyFile(_) | Unlock::Open => read_slots(ask),
        };
        // Of several errors the one of what is needed first is told.
        let ((config, proof), (added, (slots, pruned))) = both(ask, config, || {
            let rest = || both(ask, || Ok(slots()), || Ok(Folder::list(ask)));
            both(ask, || Ok(features::added(ask)), rest)
        })?;
        let read_only = features::check(&config, &added?)?;
        let (keys, opened_by) = unlock_keys(slots?, unlock, |keys| proves(ask, &proof, keys))?;
        let repository = Self {
            storage,
            random,
            clock: Arc::new(MachineClock::new()),
            keys,
            index: RwLock::default(),
            stale: Mutex::default(),
            pack_keys: Mutex::default(),
            contexts: Contexts::default(),
            generation: 0,
            whole: Mutex::default(),
            damaged_markers: Mutex::default(),
            config,
            opened_by,
            read_only,
        };
        Ok((repository, pruned?))
    }

    /// Fails if a newer program made the repository so that this one may only read it.
    pub fn may_write(&self) -> Result<()> {
        match &self.read_only {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// What the repository says of itself.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Fails with `WrongKey` if the key may only write: nothing that guests hold opens with it.
    pub fn may_read(&self) -> Result<()> {
        self.keys.may_read()
    }

    /// The root key as text for paper. Whoever has it reads everything. `WrongKey` if the key that
    /// opened the repository may only write.
    pub fn recovery_kit(&self) -> Result<RecoveryKit> {
        self.keys.recovery_kit()
    }

    /// How many chunks and packs there are.
    pub fn counts(&self) -> (usize, usize) {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.counts()
    }

    /// The names of all snapshots that are neither forgotten nor [late](Self::late), in order. A file with a name of another
    /// shape is none.
    pub fn snapshots(&self) -> Result<Vec<SnapshotName>> {
        self.remembered(None)
    }

    /// The same of one group: a namespace, kind and guest, or a namespace.
    pub fn snapshots_of(&self, group: &str) -> Result<Vec<SnapshotName>> {
        self.remembered(Some(group))
    }

    fn remembered(&self, group: Option<&str>) -> Result<Vec<SnapshotName>> {
        let (mut names, forgotten) = both(
            &*self.storage,
            || self.all_snapshots_of(group),
            || self.forgotten_of(group),
        )?;
        names.retain(|name| !forgotten.contains(name));
        let late = self.late(&names)?;
        names.retain(|name| !late.contains(name));
        Ok(names)
    }

    /// The names of all snapshots of a group, or of all, forgotten ones too.
    pub fn all_snapshots_of(&self, group: Option<&str>) -> Result<Vec<SnapshotName>> {
        let folder: FileName = match group {
            None => "snapshots".parse()?,
            Some(group) => format!("snapshots/{group}").parse()?,
        };
        *self.stale() = true;
        let mut names = Vec::new();
        self.storage.list(&folder, &mut |file, _| {
            let text = file.as_str().strip_prefix("snapshots/").unwrap_or_default();
            names.extend(text.parse::<SnapshotName>());
            Ok(())
        })?;
        Ok(names)
    }

    fn stale(&self) -> MutexGuard<'_, bool> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a chunk lies. If it is nowhere, the index is read again, once after snapshots were
    /// last seen.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Location> {
        self.locate(id, &Index::find)
    }

    /// The same of a place that a new archive may rely on.
    pub(crate) fn home(&self, id: &ChunkId) -> Result<Location> {
        self.locate(id, &Index::home)
    }

    /// The same if generations with higher numbers than this did not condemn anything.
    pub(crate) fn home_until(&self, id: &ChunkId, generation: u32) -> Result<Location> {
        self.locate(id, &|index, id| index.home_until(id, generation))
    }

    fn locate(&self, id: &ChunkId, find: Find<'_>) -> Result<Location> {
        if let Some(found) = self.indexed(id, find)? {
            return Ok(found);
        }
        // Other threads that miss a chunk wait here for the one that reads.
        let mut stale = self.stale();
        if *stale {
            self.read_index_again()?;
            *stale = false;
        }
        drop(stale);
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        find(&index, id)?.ok_or_else(|| index.absent(id))
    }

    /// Whether the index has a chunk where a new archive may rely on it. Nothing of it is read.
    pub fn has_chunk(&self, id: &ChunkId) -> Result<bool> {
        self.indexed(id, &Index::home).map(|found| found.is_some())
    }

    /// Where a chunk lies, by the index as it is.
    fn indexed(&self, id: &ChunkId, find: Find<'_>) -> Result<Option<Location>> {
        let find = || find(&self.index(), id);
        match find() {
            // A table was merged with others, and removed.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.read_index_again()?;
                find()
            }
            // Tables are derived: without them the same is read from elsewhere.
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
                index.leave_tables();
                index.refresh(&self.storage, &self.keys)?;
                drop(index);
                find()
            }
            found => found,
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the index again.
    pub(crate) fn refresh(&self) -> Result<()> {
        let mut stale = self.stale();
        self.read_index_again()?;
        *stale = false;
        Ok(())
    }

    /// Merges index objects into tables if they are many. The index is to be read again then.
    pub(crate) fn merge(&self) -> Result<()> {
        index::merge(&self.storage, &self.keys, &*self.random, Merge::WhenMany).map(drop)
    }

    /// Fails if there is no repository any more, as where its storage was unmounted.
    pub(crate) fn check_there(&self) -> Result<()> {
        self.storage.length(&config_file()).map(drop).map_err(|e| {
            let ask = doubt(&*self.storage);
            let what = format!("the repository is not there any more ({ask})");
            Error::with_source(e.kind(), what, e)
        })
    }

    /// Reads the index again because this pack, in which something was found, is not there; false
    /// if the repository is not there either.
    pub(crate) fn refresh_without(&self, pack: u32) -> Result<bool> {
        if self.check_there().is_err() {
            return Ok(false);
        }
        let mut stale = self.stale();
        // Another thread may have missed it before.
        let there = self.index().pack(pack).is_some_and(|pack| !pack.gone);
        if there {
            self.read_index_again()?;
            *stale = false;
        }
        Ok(true)
    }

    /// Has the index know all that is condemned, for a writer. Fails if that cannot be told.
    pub(crate) fn refresh_condemned(&self) -> Result<()> {
        let folder = Folder::list(&*self.storage)?;
        // What could not be read may be read now.
        let known = self.index().seen().trouble.is_none() && self.index().seen().is(folder);
        if !known {
            self.refresh()?;
        }
        match &self.index().seen().trouble {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    fn read_index_again(&self) -> Result<()> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.refresh(&self.storage, &self.keys)
    }

    /// The index, to be changed.
    pub(crate) fn write_index(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not found from here on is looked for in the index as it is then.
    pub(crate) fn look_again(&self) {
        *self.stale() = true;
    }

    /// Reads one snapshot. `NotFound` if there is none of this name, or if it is forgotten.
    pub fn snapshot(&self, name: &SnapshotName) -> Result<Snapshot> {
        let snapshot = self.any_snapshot(name)?;
        self.check_remembered(name)?;
        Ok(snapshot)
    }

    /// Reads one snapshot, also one that is forgotten.
    pub fn any_snapshot(&self, name: &SnapshotName) -> Result<Snapshot> {
        let snapshot = self.listed_snapshot(name)?;
        *self.stale() = true;
        Ok(snapshot)
    }

    /// Reads one whose name [`snapshots`](Self::snapshots) told.
    pub(crate) fn listed_snapshot(&self, name: &SnapshotName) -> Result<Snapshot> {
        let file = name.file();
        let open = |sealed: &[u8]| {
            let body = envelope::open(&self.keys, Kind::Snapshot, &file, sealed)?;
            Snapshot::decode(name, &self.config.repository, &body)
        };
        read_and_open(&*self.storage, &file, limits::SEALED_MAX, open).map_err(|e| {
            if e.kind() == ErrorKind::NotFound {
                let what = format!("there is no snapshot {name}");
                return Error::with_source(ErrorKind::NotFound, what, e);
            }
            e
        })
    }
}
