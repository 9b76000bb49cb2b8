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

/// Fails with `Swept` unless everything that an archive needs has a home, by lists that are read
/// now; the highest number in `prune/` that was there before them.
pub(crate) fn prove(
    repository: &Repository,
    name: &SnapshotName,
    snapshot: &Snapshot,
) -> Result<u32> {
    repository.refresh()?;
    repository.refresh_condemned()?;
    if repository.index().seen().vanished {
        repository.refresh()?;
    }
    let (newest, vanished) = {
        let index = repository.index();
        (index.seen().newest, index.seen().vanished)
    };
    // Twice in a row: lists are old, and may show packs that are gone. What is condemned later than
    // this is known to the index at most too early.
    if !vanished && Needs::of_homes(repository).are_met(snapshot)? {
        return Ok(newest);
    }
    repository.check_there()?;
    let what = format!(
        "archive {name} is not kept: something that it relies on was pruned while it was made. \
         The next backup stores that anew"
    );
    Err(Error::new(ErrorKind::Swept, what))
}

/// The second look of a commit, after its snapshot was put: if a sweep has begun that may not have
/// seen it, or if the writer slept since it began, the archive is proven, or removed.
pub(crate) fn look_again(
    repository: &Repository,
    name: &SnapshotName,
    snapshot: &Snapshot,
    begun: Moment,
) -> Result<()> {
    let folder = Folder::list(&*repository.storage)?;
    if !begun.is_before(&*repository.clock, limits::WRITER_SECONDS_MAX) {
        if folder.newest_marker() <= snapshot.generation {
            return Ok(());
        }
        let markers = repository.markers(&folder)?;
        // One that vanished meanwhile was replaced by one that this has not seen.
        let all = markers.len() == folder.markers.len();
        if all && !is_late(&markers, name, snapshot, false) {
            return Ok(());
        }
    }
    let file = name.file();
    let proven = || {
        prove(repository, name, snapshot)
            .and_then(|_| repository.check_not_doomed(name))
            .and_then(|()| repository.storage.length(&file).map(drop))
    };
    let error = loop {
        let at = Moment::now(&*repository.clock);
        match proven() {
            Ok(()) => return Ok(()),
            // A sweep may have come upon it since, and count on it.
            Err(e)
                if e.kind() == ErrorKind::Swept
                    && at.is_before(&*repository.clock, limits::LOOK_SECONDS_MAX) => {}
            Err(e) => break e,
        }
    };
    if error.kind() == ErrorKind::Swept {
        // What stays behind is late, so it is not listed.
        take_away(repository, name, snapshot);
    } else if error.kind() == ErrorKind::NotFound {
        let what = format!("archive {name} is not kept: it was pruned before it was proven");
        return Err(Error::with_source(ErrorKind::Swept, what, error));
    }
    Err(error)
}

/// Removes an archive that nobody was told of, as far as that can be done, but not another of its name:
/// two may copy it at once.
pub(crate) fn take_away(repository: &Repository, name: &SnapshotName, snapshot: &Snapshot) {
    let there = repository.any_snapshot(name);
    if there.is_ok_and(|there| there.id == snapshot.id) {
        drop(repository.storage.remove(&name.file()));
    }
}

/// Whether a sweep may have missed an archive: its writer had not seen what was condemned, and it
/// is not among those that the sweep found. Of markers that cannot be read this is taken for what
/// they say.
fn is_late(markers: &[Marker], name: &SnapshotName, snapshot: &Snapshot, damaged: bool) -> bool {
    let mut later = (markers.iter()).filter(|marker| marker.number > snapshot.generation);
    later.any(|marker| !marker.names(name, damaged))
}

impl Repository {
    /// Those of these archives that are late: a sweep may have missed them, and not all that they
    /// need has a home. Their writers have not told anybody that they are there, and will not.
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
            if !is_late(&markers, name, &snapshot, true) {
                continue;
            }
            if !std::mem::replace(&mut refreshed, true) {
                self.refresh()?;
            }
            match Needs::of_homes(self).are_met(&snapshot) {
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
