//! `init`: a repository, its first key, and a recovery kit that was read back and tried.

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
    // Every place that a secret goes to is taken before there is a repository that needs it.
    let mut kit_file = NewSecret::claim(&init.write_recovery_kit)?;
    let mut key_file = (init.new_key_file.as_deref())
        .map(NewSecret::claim)
        .transpose()?;
    let (protect, key) = if init.no_encryption {
        (Protect::Open, "open")
    } else if let Some(file) = &mut key_file {
        let key = KeyFile::generate(&SystemRandom)?;
        file.write(&format!("{}\n", *key.to_text()))?;
        (Protect::KeyFile(key), "key-file")
    } else {
        (protect(settings)?, "passphrase")
    };
    let storage = Arc::new(LocalStorage::create(folder)?);
    let random = Arc::new(SystemRandom);
    let repository = Repository::init(
        Arc::clone(&storage) as _,
        Arc::clone(&random) as _,
        &protect,
        limits::CHUNK_DEFAULT,
    )
    .with_context(|| format!("cannot make the repository {}", folder.display()))?;
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
    Repository::open(storage, random, &Unlock::Recovery(kit))
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

/// A folder with something in it is somebody's already.
fn check_empty(folder: &Path) -> Result<()> {
    let cannot = || format!("cannot look into the folder {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(cannot)?,
    };
    for entry in entries {
        let name = entry.with_context(cannot)?.file_name();
        if name == "lost+found" {
            continue;
        }
        let what = if name == "config" {
            "there is a repository in it already"
        } else {
            "it is not empty"
        };
        let what = format!("cannot make a repository in {}: {what}", folder.display());
        return Err(fault(Code::Failed, what));
    }
    Ok(())
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
