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
        let holder = Lock::holder(place);
        if holder.as_ref().is_none_or(|life| !life.has_ended()) {
            let owner = owner.with_process(holder.map(|life| life.id()));
            return Ok(Some(Finding::in_use(KIND, what, shown.display(), owner)));
        }
        let users = Lock::users(place);
        let healing = format!(
            "none while a process that it started has its lock ({}): once that has ended, look again",
            users
                .first()
                .map_or("which is not known".to_owned(), u32::to_string)
        );
        let owner = owner.with_process(users.first().copied());
        let finding = Finding::stale(KIND, what, shown.display(), owner);
        return Ok(Some(finding.costs(cost(&journal)).heals_by(healing)));
    }
    let finding = Finding::stale(KIND, what, shown.display(), owner)
        .costs(cost(&journal))
        .heals_by("it is taken back, as the container's next backup would do");
    let place = place.clone();
    Ok(Some(finding.with_remedy(move |log, cancel| {
        take_back(&place, log, cancel)
    })))
}

fn cost(journal: &Journal) -> &'static str {
    if journal.steps.iter().any(Step::may_stand_still) {
        "the container, or a file system, may stand still until its next backup"
    } else {
        "the snapshot's space, until the container's next backup"
    }
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

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::container::life::Life;
    use crate::container::limits::Timeouts;
    use crate::container::lxc::Lxc;
    use crate::doctor::State;

    #[test]
    fn a_lock_is_no_sign_of_life_once_its_holder_has_ended() {
        let folder = tempfile::TempDir::new().unwrap();
        let place = Place::new(folder.path(), "web", Path::new("/a")).unwrap();
        let lxc = Lxc::new(Path::new("/var/lib/lxc"), "web", None).unwrap();
        let mut journal = Journal::new(Timeouts::default());
        journal.add(&place, Step::Stop { lxc, life: None }).unwrap();
        let lock = Lock::take(&place).unwrap().unwrap();
        let found = look(&place).unwrap().unwrap();
        assert_eq!(found.state, State::InUse);
        let mut dead = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let life = serde_json::to_vec(&Life::of(dead.id()).unwrap()).unwrap();
        drop(dead.stdin.take());
        dead.wait().unwrap();
        std::fs::write(place.lock(), life).unwrap();
        let found = look(&place).unwrap().unwrap();
        assert_eq!(found.state, State::Stale);
        assert!(found.healing.contains("has its lock"), "{}", found.healing);
        drop(lock);
        assert!(
            look(&place)
                .unwrap()
                .unwrap()
                .healing
                .contains("taken back")
        );
    }
}
