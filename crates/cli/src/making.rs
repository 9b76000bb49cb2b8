//! A new repository, with a recovery kit that was read back and tried.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use snapkeep_api::{Cancel, Clock, SystemClock};
use snapkeep_repo::{
    ErrorKind, Protect, RecoveryKit, Repository, Storage, SystemRandom, Unlock, limits,
    unproven_config,
};
use snapkeep_s3::{Abilities, Retention};

use crate::failure::{Code, fault};
use crate::place::{self, Place};
use crate::secrets::NewSecret;

/// Hexadecimal digits of a key slot's name.
const SLOT_NAME: usize = 16;

/// A new repository.
pub(crate) struct Made {
    pub(crate) id: String,
    /// What a bucket's endpoint can do.
    pub(crate) abilities: Option<Abilities>,
}

/// Makes a repository in a place that [`check_empty`] has passed; what there is to tell of it. Every place that a
/// secret goes to was taken before: what is claimed and not written goes again.
pub(crate) fn make(
    place: &Place,
    protect: &Protect,
    kit_file: NewSecret,
    key_file: Option<NewSecret>,
    retention: Option<Retention>,
    cancel: &Cancel,
) -> Result<Made> {
    let storage = place.create()?;
    storage.obey(cancel.clone());
    let now = SystemClock::new().now().0;
    let abilities = (storage.bucket.as_ref().map(|bucket| bucket.abilities(now)))
        .transpose()
        .with_context(|| format!("cannot try what the storage of {place} can do"))?;
    if let (Some(retention), Some(bucket)) = (retention, &storage.bucket) {
        bucket
            .lock_with(retention)
            .with_context(|| format!("cannot lock the objects of {place}"))?;
    }
    let random = Arc::new(SystemRandom);
    let repository = Repository::init(
        Arc::clone(&storage) as _,
        Arc::clone(&random) as _,
        protect,
        limits::CHUNK_DEFAULT,
    )
    .with_context(|| format!("cannot make the repository {place}"))?;
    // From here on there is a repository: a first signal comes too late to keep its kit from it.
    if let Some(file) = key_file {
        file.keep();
    }
    let id = repository.config().repository.clone();
    let kit = write_kit(&repository, kit_file)?;
    Repository::open(storage, random, &Unlock::Recovery(kit)).context(
        "the recovery kit that was written does not open the repository: if somebody else made \
             one there at the same time, theirs is there, and what was written here opens nothing",
    )?;
    Ok(Made { id, abilities })
}

/// Writes the recovery kit of a repository; as it was read back.
pub(crate) fn write_kit(repository: &Repository, mut file: NewSecret) -> Result<RecoveryKit> {
    let kit = repository.recovery_kit()?;
    let text = format!(
        "Recovery kit of the Snapkeep repository {}.\nKeep it on paper, away from the repository. Whoever has it reads every archive.\n\n{}\n",
        repository.config().repository,
        *kit.to_text()
    );
    let written = file.write(&text)?.parse()?;
    if kit != written {
        let what = "the recovery kit that was written is not the repository's";
        return Err(fault(Code::Failed, what));
    }
    file.keep();
    Ok(written)
}

/// A folder with something in it is somebody's already, unless it is what a killed `init` left:
/// key slots of no repository, which open nothing, and files that did not get their names.
pub(crate) fn check_empty(place: &Place, retention: Option<Retention>) -> Result<()> {
    for around in place.around() {
        // Where nobody may look, nobody can tell.
        let config = around.open().map(|storage| unproven_config(&*storage));
        if config.is_ok_and(|config| config.is_ok()) {
            let what = format!("cannot make a repository in {place}: it lies in that of {around}");
            return Err(fault(Code::Failed, what));
        }
    }
    for below in place.below()? {
        if below
            .open()
            .is_ok_and(|storage| unproven_config(&*storage).is_ok())
        {
            let what = format!("cannot make a repository in {place}: that of {below} lies in it");
            return Err(fault(Code::Failed, what));
        }
    }
    match place {
        Place::Folder(folder) => check_empty_folder(folder),
        Place::Bucket(..) => check_empty_bucket(place, retention),
    }
}

/// A bucket, or the prefix in it, has no temporary files. Key slots that a killed `init` left are
/// told from others by nothing but their names, as in a folder; how objects are locked is said there too.
fn check_empty_bucket(place: &Place, retention: Option<Retention>) -> Result<()> {
    let refuse = |why: &str| {
        let what = format!("cannot make a repository in {place}: {why}");
        Err(fault(Code::Failed, what))
    };
    let storage = place.open()?;
    match storage.length(&"config".parse()?) {
        Ok(_) => return refuse("there is a repository in it already"),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot look into {place}")),
    }
    match place::first_file(&*storage).with_context(|| format!("cannot look into {place}"))? {
        None => Ok(()),
        Some(file) if file.as_str().starts_with("keys/") => Ok(()),
        // That of locks is the first thing that is put.
        Some(file) if retention.is_some_and(|retention| retention.is_said_by(&file)) => Ok(()),
        Some(file) => refuse(&format!("it is not empty, there is {file}")),
    }
}

fn check_empty_folder(folder: &Path) -> Result<()> {
    let cannot = || format!("cannot look into the folder {}", folder.display());
    let refuse = |why: &str| {
        let what = format!("cannot make a repository in {}: {why}", folder.display());
        Err(fault(Code::Failed, what))
    };
    if fs::symlink_metadata(folder.join("config")).is_ok() {
        return refuse("there is a repository in it already");
    }
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(cannot)?,
    };
    for entry in entries {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name();
        let left = if name == "keys" {
            only_slots(&entry.path()).with_context(cannot)?
        } else {
            name == "lost+found" || is_unnamed(&name)
        };
        if !left {
            return refuse("it is not empty");
        }
    }
    Ok(())
}

/// Whether this is a folder with nothing but key slots in it.
fn only_slots(keys: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(keys)?.is_dir() {
        return Ok(false);
    }
    for entry in fs::read_dir(keys)? {
        let name = entry?.file_name();
        let slot = name.len() == SLOT_NAME
            && (name.as_encoded_bytes().iter()).all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !slot && !is_unnamed(&name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the storage wrote this file and was killed before it gave it its name.
fn is_unnamed(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".put-")
}
