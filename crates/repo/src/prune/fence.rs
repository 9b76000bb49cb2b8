//! What keeps writers and sweeps apart without a lock: each puts what the other looks for before it
//! looks itself, so at least one sees the other.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};

use super::folder::{Folder, Marker};
use super::needs::Needs;
use crate::clock::Moment;
use crate::format::snapshot::{Snapshot, SnapshotName};
use crate::repository::Repository;
use crate::{Error, ErrorKind, Result, limits};

/// Whether a sweep has begun since the writer of a snapshot that is still to be put looked.
pub(crate) fn is_swept_since(repository: &Repository, snapshot: &Snapshot) -> Result<bool> {
    let folder = Folder::list(&*repository.storage)?;
    Ok(folder.newest_marker() > snapshot.generation)
}

/// What lists tell of an archive that are read now.
enum Proof {
    /// Everything that it needs has a home; the highest number in `prune/` that was there before.
    Whole(u32),
    Broken,
    /// They are old, or other prunings are at work: twice in a row they showed what is gone.
    Unknown,
}

/// Fails with `Swept` unless everything that an archive needs has a home, by lists that are read
/// now; the highest number in `prune/` that was there before them.
pub(crate) fn prove(
    repository: &Repository,
    name: &SnapshotName,
    snapshot: &Snapshot,
) -> Result<u32> {
    match look_for_homes(repository, snapshot, u32::MAX)? {
        Proof::Whole(newest) => Ok(newest),
        Proof::Broken => Err(broken(name)),
        Proof::Unknown => Err(unproven(name)),
    }
}

fn broken(name: &SnapshotName) -> Error {
    let what = format!(
        "archive {name} is not kept: something that it relies on was pruned while it was made. \
         The next backup stores that anew"
    );
    Error::new(ErrorKind::Swept, what)
}

fn unproven(name: &SnapshotName) -> Error {
    let what = format!(
        "archive {name} could not be proven: prunings are at work on what it relies on. Once they \
         have ended, it is listed if it is whole; the next backup stores what is not"
    );
    Error::new(ErrorKind::Swept, what)
}

/// What is condemned by generations with higher numbers than `until` counts as home.
fn look_for_homes(repository: &Repository, snapshot: &Snapshot, until: u32) -> Result<Proof> {
    repository.refresh()?;
    repository.refresh_condemned()?;
    if repository.index().seen().vanished {
        repository.refresh()?;
    }
    let (newest, vanished) = {
        let index = repository.index();
        (index.seen().newest, index.seen().vanished)
    };
    // Then packs may be shown that are gone. What is condemned later than this is known to the index
    // at most too early.
    let proof = if vanished {
        Proof::Unknown
    } else if Needs::of_homes_until(repository, until).are_met(snapshot)? {
        return Ok(Proof::Whole(newest));
    } else {
        Proof::Broken
    };
    repository.check_there()?;
    Ok(proof)
}

/// The second look of a commit, after its snapshot was put: if a sweep has begun that may not have
/// seen it, or if the writer slept since it began, the archive is proven. One that cannot be is removed if
/// something of it is nowhere: no sweep counts on that. Of others one may: they stay, and are listed
/// once they are whole.
pub(crate) fn look_again(
    repository: &Repository,
    name: &SnapshotName,
    snapshot: &Snapshot,
    begun: Moment,
) -> Result<()> {
    let until = if begun.is_before(&*repository.clock, limits::WRITER_SECONDS_MAX) {
        u32::MAX
    } else if let Some(marker) = missed_by(repository, name, snapshot)? {
        marker
    } else {
        return Ok(());
    };
    match look_for_homes(repository, snapshot, until)? {
        Proof::Whole(_) => check_still_there(repository, name),
        Proof::Broken if !Needs::of_all(repository).are_met(snapshot)? => {
            take_away(repository, name, snapshot);
            Err(broken(name))
        }
        Proof::Broken | Proof::Unknown => Err(unproven(name)),
    }
}

/// Fails if a sweep has removed an archive that was proven, or may be about to.
fn check_still_there(repository: &Repository, name: &SnapshotName) -> Result<()> {
    repository.check_not_doomed(name)?;
    match repository.storage.length(&name.file()) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let what = format!("archive {name} is not kept: it was pruned before it was proven");
            Err(Error::with_source(ErrorKind::Swept, what, e))
        }
        there => there.map(drop),
    }
}

/// Removes an archive that nobody was told of, as far as that can be done, but not another of its name:
/// two may copy it at once.
pub(crate) fn take_away(repository: &Repository, name: &SnapshotName, snapshot: &Snapshot) {
    let there = repository.any_snapshot(name);
    if there.is_ok_and(|there| there.id == snapshot.id) {
        drop(repository.storage.remove(&name.file()));
    }
}

/// The highest number of a marker whose sweep may have missed an archive that was just put, by what is
/// in `prune/` now.
fn missed_by(
    repository: &Repository,
    name: &SnapshotName,
    snapshot: &Snapshot,
) -> Result<Option<u32>> {
    let folder = Folder::list(&*repository.storage)?;
    if folder.newest_marker() <= snapshot.generation {
        return Ok(None);
    }
    let markers = repository.markers(&folder)?;
    // One that vanished meanwhile was replaced by one that this has not seen.
    if markers.len() < folder.markers.len() {
        return Ok(Some(u32::MAX));
    }
    Ok(late_by(&markers, name, snapshot, false))
}

/// The highest number of a marker whose sweep may have missed an archive: its writer had not seen what
/// was condemned, and it is not among those that the sweep found. What is condemned by generations
/// with higher numbers is swept by others, which come upon it. Of markers that cannot be read
/// `damaged` is taken for what they say.
fn late_by(
    markers: &[Marker],
    name: &SnapshotName,
    snapshot: &Snapshot,
    damaged: bool,
) -> Option<u32> {
    let later = (markers.iter()).filter(|marker| marker.number > snapshot.generation);
    let missed = later.filter(|marker| !marker.names(name, damaged));
    missed.map(|marker| marker.number).max()
}

impl Repository {
    /// Those of these archives that are late: a sweep may have missed them, and not all that they
    /// need lies where that one deletes nothing. Nobody was told that they are there, or a sweep that
    /// has come upon them is about to make them whole.
    /// Markers that cannot be read make none late: see [`damaged_markers`](Self::damaged_markers).
    pub fn late(&self, names: &[SnapshotName]) -> Result<HashSet<SnapshotName>> {
        let mut late = HashSet::new();
        let markers = self.all_markers()?;
        if markers.is_empty() {
            return Ok(late);
        }
        let mut refreshed = false;
        for name in names {
            let told = |marker: &Marker| marker.names(name, true);
            if markers.iter().all(told) || self.whole().contains(name) {
                continue;
            }
            let snapshot = match self.listed_snapshot(name) {
                Ok(snapshot) => snapshot,
                Err(e) if e.kind().is_of_storage() => return Err(e),
                // Whoever reads it tells what is wrong with it.
                Err(_) => continue,
            };
            let Some(marker) = late_by(&markers, name, &snapshot, true) else {
                continue;
            };
            if !std::mem::replace(&mut refreshed, true) {
                self.refresh()?;
            }
            match Needs::of_homes_until(self, marker).are_met(&snapshot) {
                Ok(true) => drop(self.whole().insert(name.clone())),
                Ok(false) => drop(late.insert(name.clone())),
                // One that is damaged is listed, and whoever reads it is told.
                Err(e) if e.kind() == ErrorKind::Corrupt => {}
                Err(e) => return Err(e),
            }
        }
        Ok(late)
    }

    fn whole(&self) -> MutexGuard<'_, HashSet<SnapshotName>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
