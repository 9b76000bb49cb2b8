//! `init`: a repository, its first key, and a recovery kit that was read back and tried.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Serialize;
use snapkeep_repo::{KeyFile, Protect, SystemRandom};
use snapkeep_s3::{Abilities, LockMode, Retention};

use crate::args::Init;
use crate::failure::usage;
use crate::making;
use crate::past::Past;
use crate::place::Place;
use crate::report::{self, Report, remark};
use crate::secrets::{self, NewSecret};
use crate::session;
use crate::settings::{Secret, Settings};
use crate::signals::Stop;
use crate::units::counted;

#[derive(Serialize)]
struct Made {
    repository: String,
    folder: String,
    key: &'static str,
    key_file: Option<String>,
    recovery_kit: String,
    /// Of a bucket alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<Told>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_lock: Option<Locked>,
}

/// How objects are locked.
#[derive(Serialize)]
struct Locked {
    mode: String,
    days: u32,
}

/// What a bucket's endpoint can do, as it is told.
#[derive(Serialize)]
pub(super) struct Told {
    conditional_put: bool,
    lists_at_once: bool,
    lists_in_order: bool,
    clock_ahead_seconds: i64,
    keeps_versions: Option<bool>,
    object_lock: Option<bool>,
}

impl From<Abilities> for Told {
    fn from(found: Abilities) -> Self {
        Self {
            conditional_put: found.conditional_put,
            lists_at_once: found.lists_at_once,
            lists_in_order: found.lists_in_order,
            keeps_versions: found.keeps_versions,
            object_lock: found.locks,
            clock_ahead_seconds: found.clock_ahead,
        }
    }
}

impl Told {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "the storage puts on conditions: {}; lists at once what was put: {}, in order: {} (none of it is needed)",
            yes(self.conditional_put),
            yes(self.lists_at_once),
            yes(self.lists_in_order)
        )];
        lines.push(format!(
            "the bucket keeps old versions: {}; has Object Lock: {}",
            told(self.keeps_versions),
            told(self.object_lock)
        ));
        if self.clock_ahead_seconds.unsigned_abs() > CLOCK_TOLD {
            lines.push(format!(
                "the storage's clock differs from this host's by {} seconds",
                self.clock_ahead_seconds.unsigned_abs()
            ));
        }
        lines
    }
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn told(is: Option<bool>) -> &'static str {
    is.map_or("it does not tell", yes)
}

/// A difference of clocks, in seconds, that is worth a line.
const CLOCK_TOLD: u64 = 60;

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
        lines.extend(self.storage.iter().flat_map(Told::lines));
        lines.extend(self.object_lock.iter().map(|lock| {
            format!(
                "what is put is locked for {}, mode {}; `snapkeep prune` renews the locks of what stays",
                counted(lock.days.into(), "day"),
                lock.mode
            )
        }));
        lines
    }
}

pub(super) fn run(settings: &Settings, init: &Init, json: bool) -> Result<()> {
    let place = session::place(settings)?;
    let retention = retention(init, &place)?;
    making::check_empty(&place, retention)?;
    // Asked before signals are watched for, so that a question can be interrupted.
    let passphrase = if init.no_encryption || init.new_key_file.is_some() {
        None
    } else {
        Some(protect(settings)?)
    };
    let stop = Stop::watch(settings.quiet)?;
    // Every place that a secret goes to is taken before there is a repository that needs it.
    let kit_file = NewSecret::claim(&init.write_recovery_kit)?;
    let left = (init.new_key_file.as_deref())
        .filter(|_| kit_file.was_left())
        .and_then(secrets::left_key);
    if let (Some(_), Some(path)) = (&left, &init.new_key_file) {
        remark(&format!(
            "the key in {} is taken, which a killed init left",
            path.display()
        ));
    }
    let mut key_file = (init.new_key_file.as_deref())
        .filter(|_| left.is_none())
        .map(NewSecret::claim)
        .transpose()?;
    let (protect, key) = if let Some(passphrase) = passphrase {
        (passphrase, "passphrase")
    } else if let Some(key) = left {
        (Protect::KeyFile(key), "key-file")
    } else if let Some(file) = &mut key_file {
        let key = KeyFile::generate(&SystemRandom)?;
        file.write(&format!("{}\n", *key.to_text()))?;
        (Protect::KeyFile(key), "key-file")
    } else {
        (Protect::Open, "open")
    };
    let made = making::make(
        &place,
        &protect,
        kit_file,
        key_file,
        retention,
        &stop.cancel,
    )?;
    // Whoever makes a new one where another was knows that it is gone.
    let past = Past::new(settings, &place);
    let accepted = past.accept(&made.id, &BTreeSet::new());
    if let Err(error) = accepted.and_then(|()| past.saw_locks(&made.id, retention)) {
        remark(&format!(
            "warning: this host may take it for one that was replaced: {error:#}"
        ));
    }
    let made = Made {
        repository: made.id,
        storage: made.abilities.map(Told::from),
        object_lock: retention.map(|retention| Locked {
            mode: retention.mode().to_string(),
            days: retention.days(),
        }),
        folder: place.to_string(),
        key,
        key_file: (init.new_key_file.as_ref()).map(|path| path.display().to_string()),
        recovery_kit: init.write_recovery_kit.display().to_string(),
    };
    report::result(&made, json)
}

/// How the repository's objects are to be locked, if they are.
fn retention(init: &Init, place: &Place) -> Result<Option<Retention>> {
    let Some(days) = init.object_lock else {
        return Ok(None);
    };
    if let Place::Folder(_) = place {
        let what =
            "--object-lock is for a repository in a bucket: nobody locks the files of a folder";
        return Err(usage(what));
    }
    let mode = init.object_lock_mode.unwrap_or(LockMode::Compliance);
    let retention = Retention::new(mode, days).map_err(|e| usage(e.chain()))?;
    Ok(Some(retention))
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
