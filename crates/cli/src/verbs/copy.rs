//! `copy`: archives to another repository, with keys of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use snapkeep_repo::{Copier, CopyOutcome, Error, ErrorKind, SnapshotName, Unlock};

use crate::args::copy::Copy;
use crate::failure::{Code, fault};
use crate::place::Place;
use crate::progress::Progress;
use crate::report::{self, Report, remark};
use crate::secrets;
use crate::session::{self, ANY, Session};
use crate::settings::{Secret, Settings};
use crate::units::human;

#[derive(Serialize)]
struct Copied {
    to: String,
    archives: Vec<Row>,
    failed: Vec<Failed>,
}

#[derive(Serialize)]
struct Row {
    archive: String,
    /// It was there.
    skipped: bool,
    /// The archive it was compared with.
    base: Option<String>,
    read_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
}

#[derive(Serialize)]
struct Failed {
    archive: String,
    error: String,
}

impl Report for Copied {
    fn lines(&self) -> Vec<String> {
        let line = |archive: &Row| {
            let name = &archive.archive;
            if archive.skipped {
                return format!("{name}  was there");
            }
            format!(
                "{name}  copied, read {}, stored {}",
                human(archive.read_bytes),
                human(archive.stored_bytes)
            )
        };
        let failed = (self.failed.iter())
            .map(|failed| format!("{}  not copied: {}", failed.archive, failed.error));
        self.archives.iter().map(line).chain(failed).collect()
    }
}

pub(super) fn run(settings: &Settings, wanted: &Copy, json: bool) -> Result<ExitCode> {
    let session = Session::open(settings)?;
    if let Some(limit) = wanted.bandwidth_limit {
        session.storage.pace(limit, Arc::clone(&session.clock));
    }
    let archives = chosen(&session, settings, wanted)?;
    let place = Place::new(&wanted.to, &settings.config.s3)?;
    let storage = (place.open()).with_context(|| format!("cannot open the repository {place}"))?;
    storage.obey(session.stop.cancel.clone());
    let secrets = [
        wanted.to_recovery_kit.clone().map(Secret::RecoveryKit),
        wanted.to_key_file.clone().map(Secret::KeyFile),
        wanted
            .to_passphrase_file
            .clone()
            .map(Secret::PassphraseFile),
    ];
    let secret = secrets.into_iter().flatten().next();
    let ask = || Ok(Unlock::Passphrase(secrets::ask()?));
    let target = session::repository(&storage, secret.as_ref(), ask)
        .with_context(|| format!("cannot open the repository {place}"))?;
    let target = Arc::new(target);
    let mut copier = Copier::new(Arc::clone(&session.repository), Arc::clone(&target))?;
    let clock = Arc::clone(&session.clock);
    let progress = Arc::new(Progress::start("copying", None, settings.quiet, clock));
    let bar = Arc::clone(&progress);
    session
        .storage
        .observe(Some(Arc::new(move |read| bar.set(read))));
    let mut copied = Copied {
        to: place.to_string(),
        archives: Vec::new(),
        failed: Vec::new(),
    };
    for name in &archives {
        let outcome = match copier.copy(name) {
            // Another `copy` may have put it there meanwhile: then it is looked at as one that was there.
            Err(error) if error.kind() == ErrorKind::Io && target.any_snapshot(name).is_ok() => {
                copier.copy(name)
            }
            outcome => outcome,
        };
        session.stop.cancel.check()?;
        match outcome {
            Ok(outcome) => copied.archives.push(told(name, outcome)),
            // It was forgotten, or pruned, since it was listed: then nobody wants it there.
            Err(error) if may_be_gone(&error) && is_gone(&session, name) => {
                remark(&format!(
                    "archive {name} is not copied, for it was forgotten meanwhile"
                ));
            }
            // What is damaged here does not keep the others from getting there.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let error = error.chain();
                remark(&format!("archive {name} is not copied: {error}"));
                let archive = name.to_string();
                copied.failed.push(Failed { archive, error });
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot copy archive {name}"));
            }
        }
    }
    session.storage.observe(None);
    drop(progress);
    report::result(&copied, json)?;
    Ok(if copied.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        Code::Damaged.into()
    })
}

/// What is said of an archive that is removed while it is read.
fn may_be_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt)
}

/// Whether an archive of the source is none any more.
fn is_gone(session: &Session, name: &SnapshotName) -> bool {
    let found = session.repository.snapshot(name);
    found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn told(name: &SnapshotName, outcome: CopyOutcome) -> Row {
    let (skipped, base, stats) = match outcome {
        CopyOutcome::Skipped => (true, None, snapkeep_repo::Stats::default()),
        CopyOutcome::Copied { base, stats } => (false, base, stats),
    };
    Row {
        archive: name.to_string(),
        skipped,
        base: base.map(|base| base.to_string()),
        read_bytes: stats.read,
        new_bytes: stats.new,
        stored_bytes: stats.stored,
    }
}

/// The archives that are wanted, of each guest oldest first: each is compared with the one before.
fn chosen(session: &Session, settings: &Settings, wanted: &Copy) -> Result<Vec<SnapshotName>> {
    let mut chosen = BTreeSet::new();
    if wanted.all {
        chosen.extend(session.repository.snapshots()?);
    }
    for text in &wanted.archives {
        let (name, _) = session.archive(settings, text, ANY)?;
        chosen.insert(name.as_str().parse()?);
    }
    for guest in &wanted.guests {
        let found = session.archives_of(settings, guest, ANY)?;
        if found.is_empty() {
            let namespace = &settings.namespace;
            let what = format!("there is no archive of guest {guest} in the namespace {namespace}");
            return Err(fault(Code::NotFound, what));
        }
        chosen.extend(found);
    }
    let Some(newest) = wanted.newest else {
        return Ok(chosen.into_iter().collect());
    };
    let mut of_guests: BTreeMap<String, Vec<SnapshotName>> = BTreeMap::new();
    for name in chosen {
        let group = name.group().to_owned();
        of_guests.entry(group).or_default().push(name);
    }
    let newest = of_guests.into_values().flat_map(|mut names| {
        let from = names.len().saturating_sub(newest.get());
        names.split_off(from)
    });
    Ok(newest.collect())
}
