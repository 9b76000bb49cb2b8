//! A repository: made, opened, and its snapshots.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use zeroize::Zeroizing;

use crate::format::bytes::unhex;
use crate::format::config::{Config, Proof};
use crate::format::envelope::{self, Kind};
use crate::format::features;
use crate::format::id::{ChunkId, PackId};
use crate::format::slot::{Slot, Stretch};
use crate::format::snapshot::{Snapshot, SnapshotName};
use crate::index::{self, Index, Location, Merge, Merged};
use crate::keys::{Cipher, KeyFile, Keys, RecoveryKit, Unlock};
use crate::reader::Contexts;
use crate::storage::{FileName, Storage, read_all};
use crate::{Error, ErrorKind, Random, Result, limits, random};

/// What protects the root key in a new key slot.
#[derive(Debug)]
pub enum Protect {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// A passphrase at another cost than the usual one, for machines with little memory.
    Stretched(Zeroizing<String>, Stretch),
    /// A key file.
    KeyFile(KeyFile),
    /// Nothing: whoever has the repository reads it. The user has asked for this by name.
    Open,
}

/// An open repository. Shared by the threads and backups of a process.
#[derive(Debug)]
pub struct Repository {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) keys: Keys,
    pub(crate) index: RwLock<Index>,
    /// Whether snapshots were seen since the index was read: another host may have stored what
    /// they need after it.
    pub(crate) stale: Mutex<bool>,
    /// Keys of packs that were opened: each costs a read and a public-key operation.
    pub(crate) pack_keys: Mutex<HashMap<PackId, Arc<Cipher>>>,
    pub(crate) contexts: Contexts,
    config: Config,
    /// The key slot that opened it; none if the recovery kit did.
    opened_by: Option<FileName>,
    /// Why this program may not write to it, if it may not.
    read_only: Option<Error>,
}

fn config_file() -> FileName {
    "config".parse().expect("a constant name is valid")
}

impl Repository {
    /// Makes a repository in an empty storage: first the key slot, then `config`, which is what
    /// makes it one.
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
        let slot = add_slot(&*storage, &*random, &keys, protect)?;
        storage.put(&config_file(), &config.encode(&keys)?)?;
        let index = RwLock::new(Index::default());
        Ok(Self {
            storage,
            random,
            keys,
            index,
            stale: Mutex::default(),
            pack_keys: Mutex::default(),
            contexts: Contexts::default(),
            config,
            opened_by: Some(slot_file(&slot)?),
            read_only: None,
        })
    }

    /// Opens a repository.
    ///
    /// `NotFound` if there is none (is the storage mounted?), `WrongKey` if nothing opens it,
    /// `Version` if a newer program made it.
    pub fn open(
        storage: Arc<dyn Storage>,
        random: Arc<dyn Random>,
        unlock: &Unlock,
    ) -> Result<Self> {
        let mut repository = Self::unlock(storage, random, unlock)?;
        repository.index = RwLock::new(Index::load(&repository.storage, &repository.keys)?);
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
        let mut repository = Self::unlock(storage, random, unlock)?;
        repository.may_write()?;
        let (storage, keys) = (&repository.storage, &repository.keys);
        let merged = index::merge(storage, keys, &*repository.random, when)?;
        repository.index = RwLock::new(Index::load(storage, keys)?);
        Ok((repository, merged))
    }

    /// Opens one whose index is still to be read.
    fn unlock(storage: Arc<dyn Storage>, random: Arc<dyn Random>, unlock: &Unlock) -> Result<Self> {
        let file = read_all(&*storage, &config_file(), limits::CONFIG_MAX).map_err(|e| {
            if e.kind() == ErrorKind::NotFound {
                let what = "there is no repository here: no file config (is its storage mounted?)";
                return Error::with_source(ErrorKind::NotFound, what, e);
            }
            e
        })?;
        let (config, proof) = Config::decode(&file)?;
        let read_only = features::check(&*storage, &config)?;
        let (keys, opened_by) = unlock_keys(&*storage, unlock, &proof)?;
        Ok(Self {
            storage,
            random,
            keys,
            index: RwLock::default(),
            stale: Mutex::default(),
            pack_keys: Mutex::default(),
            contexts: Contexts::default(),
            config,
            opened_by,
            read_only,
        })
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

    /// The root key as text for paper. Whoever has it reads everything.
    pub fn recovery_kit(&self) -> RecoveryKit {
        self.keys.recovery_kit()
    }

    /// Adds a key slot; its name.
    pub fn add_key(&self, protect: &Protect) -> Result<String> {
        self.may_write()?;
        let files = slot_files(&*self.storage)?;
        let readable = files
            .iter()
            .filter(|f| read_slot(&*self.storage, f).is_ok());
        if readable.count() >= limits::KEY_SLOTS_MAX {
            let what = "the repository has as many keys as are allowed; remove one";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        add_slot(&*self.storage, &*self.random, &self.keys, protect)
    }

    /// The key slots: name and kind (`passphrase`, `key-file`, `open`).
    pub fn keys(&self) -> Result<Vec<(String, &'static str)>> {
        let (slots, _) = read_slots(&*self.storage)?;
        Ok(slots
            .into_iter()
            .map(|(name, slot)| (slot_name(&name), slot.kind()))
            .collect())
    }

    /// Key slots whose bytes are not what was written. One of an unknown kind is a newer program's.
    pub(crate) fn damaged_slots(&self) -> Result<Vec<(FileName, Error)>> {
        let judge = |file: FileName| {
            let read = read_all(&*self.storage, &file, limits::CONFIG_MAX);
            let judged =
                read.and_then(|bytes| envelope::check(Kind::Slot, &file, &bytes).map(drop));
            judged.err().map(|error| (file, error))
        };
        Ok(slot_files(&*self.storage)?
            .into_iter()
            .filter_map(judge)
            .collect())
    }

    /// Removes a key slot, also one that cannot be read. Never the last, nor the one that opened
    /// the repository: that the others open it is not known, and may not be so.
    pub fn remove_key(&self, name: &str) -> Result<()> {
        self.may_write()?;
        let files = slot_files(&*self.storage)?;
        let Some(file) = files.iter().find(|file| slot_name(file) == name) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no key {name:?}"),
            ));
        };
        if files.len() == 1 {
            let what = format!("key {name} is the last; add another before removing it");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if let Some(used) = &self.opened_by {
            if used == file {
                let what = format!(
                    "key {name} is the one in use; open the repository with a key that is to stay"
                );
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            // It may have been damaged or removed since.
            read_slot(&*self.storage, used)?;
        }
        self.storage.remove(file)
    }

    /// How many chunks and packs there are.
    pub fn counts(&self) -> (usize, usize) {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.counts()
    }

    /// The names of all snapshots that are not forgotten, in order. A file with a name of another
    /// shape is none.
    pub fn snapshots(&self) -> Result<Vec<SnapshotName>> {
        self.remembered(None)
    }

    /// The same of one group: a namespace, kind and guest, or a namespace.
    pub fn snapshots_of(&self, group: &str) -> Result<Vec<SnapshotName>> {
        self.remembered(Some(group))
    }

    fn remembered(&self, group: Option<&str>) -> Result<Vec<SnapshotName>> {
        let mut names = self.all_snapshots_of(group)?;
        let forgotten = self.forgotten_of(group)?;
        names.retain(|name| !forgotten.contains(name));
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
        if let Some(found) = self.indexed(id)? {
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
        index.find(id)?.ok_or_else(|| index.absent(id))
    }

    /// Whether the index has a chunk. Nothing of it is read.
    pub fn has_chunk(&self, id: &ChunkId) -> Result<bool> {
        self.indexed(id).map(|found| found.is_some())
    }

    /// Where a chunk lies, by the index as it is.
    pub(crate) fn indexed(&self, id: &ChunkId) -> Result<Option<Location>> {
        let find = || {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.find(id)
        };
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

    fn read_index_again(&self) -> Result<()> {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.refresh(&self.storage, &self.keys)
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
        let sealed = read_all(&*self.storage, &file, limits::SEALED_MAX).map_err(|e| {
            if e.kind() == ErrorKind::NotFound {
                let what = format!("there is no snapshot {name}");
                return Error::with_source(ErrorKind::NotFound, what, e);
            }
            e
        })?;
        let body = envelope::open(&self.keys, Kind::Snapshot, &file, &sealed)?;
        Snapshot::decode(name, &self.config.repository, &body)
    }
}

fn add_slot(
    storage: &dyn Storage,
    random: &dyn Random,
    keys: &Keys,
    protect: &Protect,
) -> Result<String> {
    let slot = match protect {
        Protect::Passphrase(text) | Protect::Stretched(text, _) if text.is_empty() => {
            return Err(Error::new(ErrorKind::Invalid, "the passphrase is empty"));
        }
        Protect::Passphrase(text) => Slot::passphrase(random, keys, text, Stretch::default())?,
        Protect::Stretched(text, cost) => Slot::passphrase(random, keys, text, *cost)?,
        Protect::KeyFile(file) => Slot::key_file(random, keys, file)?,
        Protect::Open => Slot::open(keys),
    };
    let name = crate::format::bytes::hex(&random::fresh::<8>(random)?);
    let json = serde_json::to_vec(&slot)
        .map_err(|e| Error::with_source(ErrorKind::Invalid, "cannot encode a key slot", e))?;
    storage.put(&slot_file(&name)?, &envelope::wrap(Kind::Slot, &json))?;
    Ok(name)
}

fn slot_file(name: &str) -> Result<FileName> {
    format!("keys/{name}").parse()
}

fn slot_name(file: &FileName) -> String {
    file.as_str()
        .strip_prefix("keys/")
        .unwrap_or_default()
        .to_owned()
}

type Slots = Vec<(FileName, Slot)>;

fn slot_files(storage: &dyn Storage) -> Result<Vec<FileName>> {
    let mut files = Vec::new();
    storage.list(&"keys".parse()?, &mut |name, _| {
        if files.len() >= limits::KEY_FILES_MAX {
            let what = "the folder keys has more files than are allowed";
            return Err(Error::corrupt(what));
        }
        let is_slot = unhex::<8>(&slot_name(name)).is_some();
        files.extend(is_slot.then(|| name.clone()));
        Ok(())
    })?;
    Ok(files)
}

/// All key slots that can be read, and why one cannot. One that is damaged does not keep the
/// others from opening the repository, nor from being found among many such, but if none is left,
/// its error is the one to tell.
fn read_slots(storage: &dyn Storage) -> Result<(Slots, Option<Error>)> {
    let mut slots = Vec::new();
    let mut damage = None;
    for name in slot_files(storage)? {
        match read_slot(storage, &name) {
            Ok(slot) if slots.len() < limits::KEY_SLOTS_MAX => slots.push((name, slot)),
            Ok(_) => {
                let what = format!("key slot {name} is one more than are allowed");
                damage = Some(Error::corrupt(what));
            }
            Err(error) => damage = Some(error),
        }
    }
    match damage {
        Some(error) if slots.is_empty() => Err(error),
        damage => Ok((slots, damage)),
    }
}

fn read_slot(storage: &dyn Storage, name: &FileName) -> Result<Slot> {
    let file = read_all(storage, name, limits::CONFIG_MAX)?;
    let body = envelope::check(Kind::Slot, name, &file)?;
    serde_json::from_slice(body).map_err(|e| {
        Error::with_source(
            ErrorKind::Corrupt,
            format!("key slot {name} is not readable"),
            e,
        )
    })
}

fn unlock_keys(
    storage: &dyn Storage,
    unlock: &Unlock,
    proof: &Proof,
) -> Result<(Keys, Option<FileName>)> {
    let wrong = |why: &str| Error::new(ErrorKind::WrongKey, why.to_owned());
    let prove = |root| {
        let keys = Keys::new(root);
        proof.holds(&keys).then_some(keys)
    };
    if let Unlock::Recovery(kit) = unlock {
        let why = "the recovery kit is of another repository, or config was changed";
        return (prove(Zeroizing::new(kit.0)).map(|keys| (keys, None))).ok_or_else(|| wrong(why));
    }
    let (slots, mut damage) = read_slots(storage)?;
    if slots.is_empty() {
        let what = "the repository has no key slots; open it with its recovery kit";
        return Err(Error::new(ErrorKind::NotFound, what));
    }
    // A slot that an interrupted `init` left behind opens with the same passphrase, but holds a key
    // that the repository was then not made with.
    let mut strange = false;
    for (name, slot) in &slots {
        let root = match unlock {
            Unlock::Passphrase(text) => slot.try_passphrase(text),
            Unlock::KeyFile(file) => slot.try_key_file(file),
            Unlock::Open => Ok(slot.try_open()),
            Unlock::Recovery(kit) => Ok(Some(Zeroizing::new(kit.0))),
        };
        let root = root.unwrap_or_else(|e| {
            let what = format!("key slot {name} cannot be used");
            damage = Some(Error::with_source(e.kind(), what, e));
            None
        });
        if let Some(root) = root {
            match prove(root) {
                Some(keys) => return Ok((keys, Some(name.clone()))),
                None => strange = true,
            }
        }
    }
    if strange {
        let why = "the key opens, but config was changed by somebody without it";
        return Err(Error::new(ErrorKind::Corrupt, why));
    }
    let why = match unlock {
        Unlock::Passphrase(_) => "the passphrase opens none of the repository's keys",
        Unlock::KeyFile(_) => "the key file opens none of the repository's keys",
        Unlock::Open => "the repository is encrypted: give its passphrase or key file",
        Unlock::Recovery(_) => "the recovery kit is of another repository",
    };
    // It may be the slot that the key is for.
    Err(match damage {
        None => wrong(why),
        Some(damage) => Error::with_source(ErrorKind::WrongKey, why, damage),
    })
}
