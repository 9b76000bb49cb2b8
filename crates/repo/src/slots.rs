//! What opens a repository: its key slots, and how one of them is found.

use zeroize::Zeroizing;

use crate::format::bytes::{hex, unhex};
use crate::format::envelope::{self, Kind};
use crate::format::features;
use crate::format::slot::{Slot, Stretch};
use crate::keys::{KeyFile, Keys, Unlock};
use crate::repository::Repository;
use crate::storage::{FileName, Storage, read_all, read_and_open};
use crate::{Error, ErrorKind, Random, Result, limits, random};

/// The kind of slots that open nothing that guests hold.
const WRITER: &str = "writer";
/// The kind of slots that open with nothing.
const OPEN: &str = "open";

/// What protects the keys in a new key slot.
#[derive(Debug)]
pub enum Protect {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// A passphrase at another cost than the usual one, for machines with little memory.
    Stretched(Zeroizing<String>, Stretch),
    /// A key file.
    KeyFile(KeyFile),
    /// A key file of a host that may only write: it opens nothing that guests hold.
    Writer(KeyFile),
    /// Nothing: whoever has the repository reads it. The user has asked for this by name.
    Open,
}

/// A key slot, as people see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeySlot {
    /// Its name: 16 hexadecimal digits.
    pub name: String,
    /// `passphrase`, `key-file`, `writer` or `open`.
    pub kind: &'static str,
    /// Whose it is.
    pub label: Option<String>,
    /// What somebody without a key did to it, if that shows.
    pub doubt: Option<&'static str>,
    /// Whether it opened the repository.
    pub used: bool,
}

impl Repository {
    /// Adds a key slot; its name. `WrongKey` if the key that opened the repository may only write,
    /// `Invalid` if another key has this label. Of two that are added at once both may have it:
    /// their names tell them apart.
    pub fn add_key(&self, protect: &Protect, label: Option<&str>) -> Result<String> {
        self.add_key_beside(protect, label, None)
    }

    /// The same of one that takes the place of another, whose label it may have.
    fn add_key_beside(
        &self,
        protect: &Protect,
        label: Option<&str>,
        old: Option<&FileName>,
    ) -> Result<String> {
        self.may_write()?;
        self.may_read()?;
        if let Some(label) = label {
            self.check_new_label(label, old)?;
        }
        let files = slot_files(&*self.storage)?;
        let readable = files
            .iter()
            .filter(|f| read_slot(&*self.storage, f).is_ok());
        if readable.count() >= limits::KEY_SLOTS_MAX {
            let what = "the repository has as many keys as are allowed; remove one";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if let Protect::Writer(_) = protect {
            (self.storage).put(&features::writer_slot_file(), &[])?;
        }
        add_slot(&*self.storage, &*self.random, &self.keys, protect, label)
    }

    fn check_new_label(&self, label: &str, old: Option<&FileName>) -> Result<()> {
        let keys = self.keys()?;
        let old = old.map(slot_name);
        let same =
            |key: &&KeySlot| key.label.as_deref() == Some(label) && Some(&key.name) != old.as_ref();
        let Some(other) = keys.iter().find(same) else {
            return Ok(());
        };
        let what = format!(
            "key {} has the label {label:?} already: choose another, or take that key away first \
             with `snapkeep key remove {}`",
            other.name, other.name
        );
        Err(Error::new(ErrorKind::Invalid, what))
    }

    /// Puts a passphrase or key file in the place of the key that opened the repository; the names
    /// of the new slot and of the old one. The new one is durable, was read back and opens before the
    /// old one is removed, so that whoever is killed meanwhile is left with one that opens. Without
    /// a label it has that of the old one. Open the repository again after this.
    pub fn change_key(&self, protect: &Protect, label: Option<&str>) -> Result<(String, String)> {
        self.may_write()?;
        self.may_read()?;
        let invalid = |what: &str| Error::new(ErrorKind::Invalid, what);
        let used = self.opened_by.as_ref().ok_or_else(|| {
            invalid("the recovery kit never changes: add a key, and remove those that should go")
        })?;
        if let Protect::Writer(_) | Protect::Open = protect {
            return Err(invalid("a key is changed to a passphrase or a key file"));
        }
        let old = read_slot(&*self.storage, used)?;
        let label = label.or_else(|| old.label(&self.keys).ok().flatten());
        let name = self.add_key_beside(protect, label, Some(used))?;
        let slot = read_slot(&*self.storage, &slot_file(&name)?)?;
        let keys = match protect {
            Protect::Passphrase(text) | Protect::Stretched(text, _) => slot.try_passphrase(text)?,
            Protect::KeyFile(file) | Protect::Writer(file) => slot.try_key_file(file)?,
            Protect::Open => slot.try_open().map(Keys::new),
        };
        let opens = keys.is_some_and(|keys| {
            (keys.root()).is_ok_and(|root| self.keys.root().is_ok_and(|own| own == root))
        });
        if !opens {
            let what = format!("key {name} was written and does not open; the old one stays");
            return Err(Error::corrupt(what));
        }
        self.storage.remove(used)?;
        Ok((name, slot_name(used)))
    }

    /// The key slots that can be read.
    pub fn keys(&self) -> Result<Vec<KeySlot>> {
        let (slots, _) = read_slots(&*self.storage)?;
        let told = |(file, slot): (FileName, Slot)| {
            let (label, mut doubt) = match slot.label(&self.keys) {
                Ok(label) => (label.map(str::to_owned), None),
                Err(()) => (
                    None,
                    Some("its label was changed by somebody without a key"),
                ),
            };
            if (slot.try_open()).is_some_and(|root| !self.keys.is_root(&root)) {
                doubt = Some("it opens nothing: it holds the key of no repository here");
            }
            KeySlot {
                name: slot_name(&file),
                kind: slot.kind(),
                label,
                doubt,
                used: self.opened_by.as_ref() == Some(&file),
            }
        };
        Ok(slots.into_iter().map(told).collect())
    }

    /// Whether nothing opens the repository without a secret. An open slot that somebody put there
    /// opens nothing.
    pub fn is_encrypted(&self) -> Result<bool> {
        let keys = self.keys()?;
        Ok(keys
            .iter()
            .all(|slot| slot.kind != OPEN || slot.doubt.is_some()))
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

    /// Removes a key slot, also one that cannot be read. Never the last that opens all, nor the one
    /// that opened the repository: that the others open it is not known, and may not be so.
    /// `WrongKey` if the key that opened the repository may only write.
    pub fn remove_key(&self, name: &str) -> Result<()> {
        self.may_write()?;
        self.may_read()?;
        let files = slot_files(&*self.storage)?;
        let Some(file) = files.iter().find(|file| slot_name(file) == name) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no key {name:?}"),
            ));
        };
        let opens_all = |file: &&FileName| {
            !read_slot(&*self.storage, file).is_ok_and(|slot| slot.kind() == WRITER)
        };
        if !files
            .iter()
            .filter(|other| *other != file)
            .any(|other| opens_all(&other))
        {
            let what = format!("key {name} is the last that reads; add another before removing it");
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
}

pub(crate) fn add_slot(
    storage: &dyn Storage,
    random: &dyn Random,
    keys: &Keys,
    protect: &Protect,
    label: Option<&str>,
) -> Result<String> {
    let mut slot = match protect {
        Protect::Passphrase(text) | Protect::Stretched(text, _) if text.is_empty() => {
            return Err(Error::new(ErrorKind::Invalid, "the passphrase is empty"));
        }
        Protect::Passphrase(text) => Slot::passphrase(random, keys, text, Stretch::default())?,
        Protect::Stretched(text, cost) => Slot::passphrase(random, keys, text, *cost)?,
        Protect::KeyFile(file) => Slot::key_file(random, keys, file)?,
        Protect::Writer(file) => Slot::writer(random, keys, file)?,
        Protect::Open => Slot::open(keys)?,
    };
    if let Some(label) = label {
        slot = slot.labelled(keys, label)?;
    }
    let name = hex(&random::fresh::<8>(random)?);
    let file = envelope::wrap(Kind::Slot, &slot.encode()?);
    storage.put(&slot_file(&name)?, &file)?;
    Ok(name)
}

pub(crate) fn slot_file(name: &str) -> Result<FileName> {
    format!("keys/{name}").parse()
}

fn slot_name(file: &FileName) -> String {
    file.as_str()
        .strip_prefix("keys/")
        .unwrap_or_default()
        .to_owned()
}

pub(crate) type Slots = Vec<(FileName, Slot)>;

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
pub(crate) fn read_slots(storage: &dyn Storage) -> Result<(Slots, Option<Error>)> {
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
    read_and_open(storage, name, limits::CONFIG_MAX, |file| {
        let body = envelope::check(Kind::Slot, name, file)?;
        Slot::decode(body).map_err(|e| {
            Error::with_source(
                ErrorKind::Corrupt,
                format!("key slot {name} is not readable"),
                e,
            )
        })
    })
}

/// The keys that open a repository, of the slots that were read, and the slot that they came from.
/// It is asked of keys whether they are the repository's.
pub(crate) fn unlock_keys(
    read: (Slots, Option<Error>),
    unlock: &Unlock,
    proves: impl Fn(&Keys) -> Result<bool>,
) -> Result<(Keys, Option<FileName>)> {
    let wrong = |why: &str| Error::new(ErrorKind::WrongKey, why.to_owned());
    if let Unlock::Recovery(kit) = unlock {
        let keys = Keys::new(Zeroizing::new(kit.0));
        let why = "the recovery kit is of another repository, or config was changed";
        return (proves(&keys)?.then_some((keys, None))).ok_or_else(|| wrong(why));
    }
    let (slots, mut damage) = read;
    if slots.is_empty() {
        let what = "the repository has no key slots; open it with its recovery kit";
        return Err(Error::new(ErrorKind::NotFound, what));
    }
    // A slot that an interrupted `init` left behind opens with the same passphrase, but holds a key
    // that the repository was then not made with.
    let mut strange = None;
    for (name, slot) in &slots {
        let keys = match unlock {
            Unlock::Passphrase(text) => slot.try_passphrase(text),
            Unlock::KeyFile(file) => slot.try_key_file(file),
            Unlock::Open => Ok(slot.try_open().map(Keys::new)),
            Unlock::Recovery(kit) => Ok(Some(Keys::new(Zeroizing::new(kit.0)))),
        };
        let keys = keys.unwrap_or_else(|e| {
            let what = format!("key slot {name} cannot be used");
            damage = Some(Error::with_source(e.kind(), what, e));
            None
        });
        if let Some(keys) = keys {
            if proves(&keys)? {
                return Ok((keys, Some(name.clone())));
            }
            strange = Some(name);
        }
    }
    let sealed = slots.iter().any(|(_, slot)| slot.kind() != OPEN);
    if let (Some(name), Unlock::Open, true) = (&strange, unlock, sealed) {
        let why = format!(
            "the repository is encrypted: give its passphrase or key file ({name} lies open, but \
             holds another key than the repository's: somebody without a key put it there)"
        );
        return Err(wrong(&why));
    }
    if strange.is_some() {
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
