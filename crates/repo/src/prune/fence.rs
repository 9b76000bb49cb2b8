//! What keeps writers and sweeps apart without a lock: each puts what the other looks for before it
//! looks itself, so at least one sees the other.

use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};

use super::folder::{Folder, Marker};
use super::needs::Needs;
use crate::format::snapshot::{Snapshot, SnapshotName};
use crate::repository::Repository;
use crate::{Error, ErrorKind, Result};

/// Fails with `Swept` unless everything that an archive needs has a home, by lists that are read now.
pub(crate) fn prove(
    repository: &Repository,
    name: &SnapshotName,
    snapshot: &Snapshot,
) -> Result<()> {
    repository.refresh()?;
    repository.refresh_condemned()?;
    if Needs::of_homes(repository).are_met(snapshot)? {
        return Ok(());
    }
    repository.check_there()?;
    let what = format!(
        "archive {name} is not kept: something that it relies on was pruned while it was made. \
         The next backup stores that anew"
    );
    Err(Error::new(ErrorKind::Swept, what))
}

/// The second look of a commit, after its snapshot was put: if a sweep has begun that may not have
/// seen it, the archive is proven, or removed.
pub(crate) fn look_again(
    repository: &Repository,
    name: &SnapshotName,
    snapshot: &Snapshot,
) -> Result<()> {
    let folder = Folder::list(&*repository.storage)?;
    if folder.newest_marker() <= snapshot.generation {
        return Ok(());
    }
    let markers = repository.markers(&folder)?;
    // One that vanished meanwhile was replaced by one that this has not seen.
    let all = markers.len() == folder.markers.len();
    if all && !is_late(&markers, name, snapshot) {
        return Ok(());
    }
    let file = name.file();
    let proven = prove(repository, name, snapshot)
        .and_then(|()| repository.check_not_doomed(name))
        .and_then(|()| repository.storage.length(&file).map(drop));
    let Err(error) = proven else {
        return Ok(());
    };
    if error.kind() == ErrorKind::Swept {
        // What stays behind is late, so it is not listed.
        drop(repository.storage.remove(&file));
    } else if error.kind() == ErrorKind::NotFound {
        let what = format!("archive {name} is not kept: it was pruned before it was proven");
        return Err(Error::with_source(ErrorKind::Swept, what, error));
    }
    Err(error)
}

/// Whether a sweep may have missed an archive: its writer had not seen what was condemned, and it
/// is not among those that the sweep found.
pub(crate) fn is_late(markers: &[Marker], name: &SnapshotName, snapshot: &Snapshot) -> bool {
    let mut later = (markers.iter()).filter(|marker| marker.number > snapshot.generation);
    later.any(|marker| !marker.survivors.contains(name))
}

impl Repository {
    /// Those of these archives that are late: a sweep may have missed them, and not all that they
    /// need has a home. Their writers have not told anybody that they are there, and will not.
    pub fn late(&self, names: &[SnapshotName]) -> Result<HashSet<SnapshotName>> {
        let mut late = HashSet::new();
        let markers = self.all_markers()?;
        if markers.is_empty() {
            return Ok(late);
        }
        let mut refreshed = false;
        for name in names {
            let told = |marker: &Marker| marker.survivors.contains(name);
            if markers.iter().all(told) || self.whole().contains(name) {
                continue;
            }
            let snapshot = match self.listed_snapshot(name) {
                Ok(snapshot) => snapshot,
                Err(e) if e.kind().is_of_storage() => return Err(e),
                // Whoever reads it tells what is wrong with it.
                Err(_) => continue,
            };
            if !is_late(&markers, name, &snapshot) {
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
