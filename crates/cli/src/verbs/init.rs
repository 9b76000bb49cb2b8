//! `init`: a repository, its first key, and a recovery kit that was read back and tried.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_repo::{
    KeyFile, LocalStorage, Protect, RecoveryKit, Repository, SystemRandom, Unlock, limits,
};

use crate::args::Init;
use crate::failure::{Code, fault, usage};
use crate::report::{self, Report};
use crate::secrets::{self, NewSecret};
use crate::session;
use crate::settings::{Secret, Settings};
use crate::signals::Stop;
use crate::watched::Watched;

/// Hexadecimal digits of a key slot's name.
const SLOT_NAME: usize = 16;

#[derive(Serialize)]
struct Made {
    repository: String,
    folder: String,
    key: &'static str,
    key_file: Option<String>,
    recovery_kit: String,
}

impl Report for Made {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "made repository {} in {}",
            self.repository, self.folder
        )];
        lines.extend((self.key_file.iter()).map(|path| format!("key file written to {path}")));
        lines.push(format!(
            "recovery kit written to {} and tested",
            self.recovery_kit
        ));
        lines
    }
}

pub(super) fn run(settings: &Settings, init: &Init, json: bool) -> Result<()> {
    let folder = session::folder(settings)?;
    check_empty(folder)?;
    // Asked before signals are watched for, so that a question can be interrupted.
    let passphrase = if init.no_encryption || init.new_key_file.is_some() {
        None
    } else {
        Some(protect(settings)?)
    };
    let stop = Stop::watch(settings.quiet)?;
    // Every place that a secret goes to is taken before there is a repository that needs it.
    let mut kit_file = NewSecret::claim(&init.write_recovery_kit)?;
    let mut key_file = (init.new_key_file.as_deref())
        .map(NewSecret::claim)
        .transpose()?;
    let (protect, key) = if let Some(passphrase) = passphrase {
        (passphrase, "passphrase")
    } else if let Some(file) = &mut key_file {
        let key = KeyFile::generate(&SystemRandom)?;
        file.write(&format!("{}\n", *key.to_text()))?;
        (Protect::KeyFile(key), "key-file")
    } else {
        (Protect::Open, "open")
    };
    let storage = Arc::new(Watched::new(LocalStorage::create(folder)?));
    storage.obey(stop.cancel.clone());
    let random = Arc::new(SystemRandom);
    let repository = Repository::init(
        storage,
        Arc::clone(&random) as _,
        &protect,
        limits::CHUNK_DEFAULT,
    )
    .with_context(|| format!("cannot make the repository {}", folder.display()))?;
    // From here on there is a repository: a first signal comes too late to keep its kit from it.
    if let Some(file) = key_file {
        file.keep();
    }
    let id = repository.config().repository.clone();
    let text = format!(
        "Recovery kit of the Snapkeep repository {id}.\nKeep it on paper, away from the repository. Whoever has it reads every archive.\n\n{}\n",
        *repository.recovery_kit().to_text()
    );
    let written = kit_file.write(&text)?;
    kit_file.keep();
    let kit: RecoveryKit = written.parse()?;
    let storage = LocalStorage::open(folder)?;
    Repository::open(Arc::new(storage), random, &Unlock::Recovery(kit))
        .context("the recovery kit that was written does not open the repository")?;
    let made = Made {
        repository: id,
        folder: folder.display().to_string(),
        key,
        key_file: (init.new_key_file.as_ref()).map(|path| path.display().to_string()),
        recovery_kit: init.write_recovery_kit.display().to_string(),
    };
    report::result(&made, json)
}

/// A folder with something in it is somebody's already, unless it is what a killed `init` left:
/// key slots of no repository, which open nothing, and files that did not get their names.
fn check_empty(folder: &Path) -> Result<()> {
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

/// A passphrase: what was given, or asked for twice.
fn protect(settings: &Settings) -> Result<Protect> {
    Ok(Protect::Passphrase(match &settings.secret {
        None => secrets::ask_new()?,
        Some(Secret::Passphrase(text)) => text.clone(),
        Some(Secret::PassphraseFile(path)) => secrets::passphrase_in(path)?,
        Some(Secret::KeyFile(_) | Secret::RecoveryKit(_)) => {
            let what = "a new repository is protected by a passphrase or a new key file: give --passphrase-file or --new-key-file";
            return Err(usage(what));
        }
    }))
}
