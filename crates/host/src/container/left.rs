//! What killed backups of containers left that neither their guards nor a later backup took back.

use std::io;
use std::path::Path;

use snapkeep_api::{Cancel, Error, ErrorKind, Result, TaskLog};

use super::journal::{Journal, Step};
use super::limits::JOURNALS_MAX;
use super::lock::Lock;
use super::place::{Place, cannot};
use super::undo::Undo;
use crate::doctor::{Finding, Owner};
use crate::process;

/// What this module finds.
const KIND: &str = "container";
/// How the names of journals end.
const JOURNAL: &str = ".journal";

/// Looks at a folder of states; one that is not there has none. The lock of a container is not
/// taken: a guard that is about to take back what is left would believe that a backup does, and a
/// backup that is about to begin would fail.
pub fn left(state_folder: &Path) -> Vec<Finding> {
    let unseen = |e: &Error| vec![Finding::unseen(KIND, state_folder.display(), e)];
    let entries = match std::fs::read_dir(state_folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => return unseen(&cannot("look at", state_folder, e)),
    };
    let mut stems = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => {
                let name = entry.file_name();
                let stem = name.to_str().and_then(|name| name.strip_suffix(JOURNAL));
                stems.extend(stem.map(str::to_owned));
            }
            Err(e) => return unseen(&cannot("look at", state_folder, e)),
        }
        if stems.len() > JOURNALS_MAX {
            let what = format!("there are more than {JOURNALS_MAX} journals");
            return unseen(&Error::new(ErrorKind::Invalid, what));
        }
    }
    stems.sort();
    let found = stems.iter().filter_map(|stem| {
        let found = Place::named(state_folder, stem).and_then(|place| look(&place));
        found.unwrap_or_else(|e| {
            let journal = state_folder.join(format!("{stem}{JOURNAL}"));
            Some(Finding::unseen(KIND, journal.display(), &e))
        })
    });
    found.collect()
}

fn look(place: &Place) -> Result<Option<Finding>> {
    let held = is_held(place)?;
    let Some(journal) = Journal::load(place)? else {
        return Ok(None);
    };
    let steps: Vec<String> = journal.steps.iter().map(told).collect();
    let what = format!("what a backup of a container changed: {}", steps.join(", "));
    let shown = place.journal();
    let owner = Owner::ours(format!("backup of {}", place.stem()));
    if held {
        let holder = Lock::holder(place).filter(|life| !life.has_ended());
        let owner = owner.with_process(holder.map(|life| life.id()));
        return Ok(Some(Finding::in_use(KIND, what, shown.display(), owner)));
    }
    let cost = if journal.steps.iter().any(Step::may_stand_still) {
        "the container, or a file system, may stand still until its next backup"
    } else {
        "the snapshot's space, until the container's next backup"
    };
    let finding = Finding::stale(KIND, what, shown.display(), owner)
        .costs(cost)
        .heals_by("it is taken back, as the container's next backup would do");
    let place = place.clone();
    Ok(Some(finding.with_remedy(move |log, cancel| {
        take_back(&place, log, cancel)
    })))
}

/// A change, for a message.
fn told(step: &Step) -> String {
    match step {
        Step::Freeze { lxc, .. } => format!("container {} is frozen", lxc.name),
        Step::Stop { lxc, .. } => format!("container {} is stopped", lxc.name),
        Step::Snapshot(snapshot) => snapshot.what(),
    }
}

/// Whether a backup, its guard, or a program that one of them runs has the lock.
fn is_held(place: &Place) -> Result<bool> {
    let path = place.lock();
    let failed = |e| cannot("look at", &path, e);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(failed(e)),
    };
    process::is_locked(&file).map_err(failed)
}

fn take_back(place: &Place, log: &dyn TaskLog, cancel: &Cancel) -> Result<String> {
    let Some(lock) = Lock::take(place)? else {
        let what = "a backup, or its guard, has it by now";
        return Err(Error::new(ErrorKind::Unavailable, what));
    };
    let Some(mut journal) = Journal::load(place)? else {
        return Ok("it was taken back already".to_owned());
    };
    let undo = Undo {
        place,
        lock: &lock,
        log,
        cancel,
        is_anothers: true,
    };
    undo.all(&mut journal)?;
    lock.release();
    Ok("it is taken back".to_owned())
}
