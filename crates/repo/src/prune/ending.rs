//! What keeps a sweep from deleting what another one has deleted before it, and somebody has put
//! there anew since: archives that are copied keep their names. Each looks whether it was ended
//! shortly before it deletes an archive; who ends it takes away what it looks for, and waits.

use std::collections::{BTreeSet, HashSet};

use super::folder::Folder;
use super::sweep::{Begun, Due, slept};
use super::{Run, Times};
use crate::clock::Moment;
use crate::format::snapshot::SnapshotName;
use crate::storage::FileName;
use crate::{Error, ErrorKind, Result, limits};

/// What a sweep looks at before it deletes an archive.
pub(super) struct Watch<'s> {
    /// Its markers; the last one is the one that counts.
    pub(super) markers: Vec<&'s Begun>,
    pub(super) due: &'s [Due],
}

impl Watch<'_> {
    fn is_own(&self, file: &FileName) -> bool {
        self.markers.iter().any(|begun| begun.file == *file)
    }
}

impl Run<'_> {
    /// Removes a file whose name may come again, unless another pruning has ended this one. A storage
    /// that takes long is not asked again before this has looked again.
    pub(super) fn remove_watched(&self, watch: &Watch<'_>, file: &FileName) -> Result<()> {
        let clock = &*self.repository.clock;
        let mut looks = 0;
        loop {
            let at = Moment::now(clock);
            self.look(watch)?;
            let Some(left) = at.left(clock, limits::LOOK_SECONDS_MAX) else {
                continue;
            };
            let Some(error) = self.repository.storage.remove_within(file, left)? else {
                return Ok(());
            };
            looks += 1;
            if looks == limits::REMOVAL_LOOKS {
                return Err(error);
            }
        }
    }

    /// Fails if a marker of this sweep or one of its generations is gone, or if it slept for too long.
    /// They are asked for by their names: lists may be old.
    fn look(&self, watch: &Watch<'_>) -> Result<()> {
        self.check_awake_by(watch)?;
        let markers = watch.markers.iter().map(|begun| &begun.file);
        for file in markers.chain(watch.due.iter().map(|due| &due.file)) {
            if self.is_absent(file)? {
                return Err(ended());
            }
        }
        Ok(())
    }

    /// Removes the generations that were swept, and markers of earlier sweeps, unless another sweep may
    /// be about to delete an archive that one of them names. `kept` is the lowest number of a
    /// generation that names an archive which is kept after all: no other sweep may go on then.
    pub(super) fn end(&self, watch: &Watch<'_>, kept: Option<u32>) -> Result<()> {
        let storage = &self.repository.storage;
        let Some(own) = watch.markers.first() else {
            return Ok(());
        };
        // Where none names an archive, another sweep of these generations deletes packs and index objects
        // alone, which are gone by now and whose names never come again: a higher marker keeps nothing.
        // That sweep finds the generations gone and has nothing to do, or is deleting the same. Its
        // marker may name what this one deleted, but later prunings miss only what both name.
        let archives = (watch.due.iter()).any(|due| !due.generation.archives.is_empty());
        let (folder, times) = Folder::list_dated(&**storage)?;
        let (mut known, mut lower) = (HashSet::new(), Vec::new());
        for (file, number) in &folder.markers {
            if watch.is_own(file) {
                continue;
            }
            let over = |time: &i64| self.has_passed(*time, 2 * limits::SWEEP_SECONDS_MAX);
            let over = times.get(file).is_some_and(over);
            let higher = (*number, file) > (own.number, &own.file);
            if !over && (kept.is_some_and(|first| *number > first) || archives && higher) {
                return Ok(());
            }
            known.insert(file.clone());
            if !higher {
                lower.push(file);
            }
        }
        // Their sweeps stop where they look again, and no archive is put again before that.
        for file in lower {
            storage.remove(file)?;
        }
        // Whoever finds the generations gone must not be shown their packs, either: another sweep may
        // have deleted them just now.
        self.settle()?;
        let is_new = |file: &FileName| !watch.is_own(file) && !known.contains(file);
        let (mut left, mut lists) = (watch.due, 0);
        while !left.is_empty() {
            let at = Moment::now(&*self.repository.clock);
            let folder = Folder::list(&**storage)?;
            if archives && folder.markers.iter().any(|(file, _)| is_new(file)) {
                return Ok(());
            }
            // Another one has deleted what the marker names, and only a generation tells why.
            for name in watch.due.iter().flat_map(|due| &due.generation.archives) {
                let names = watch.markers.iter().any(|begun| begun.names.contains(name));
                if names && self.is_absent(&name.file())? {
                    return Ok(());
                }
            }
            self.check_awake_by(watch)?;
            let (rest, error) = self.remove_generations(left, at)?;
            left = rest;
            lists += 1;
            if let Some(error) = error.filter(|_| lists >= limits::REMOVAL_LOOKS) {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes generations as long as the list that was read from this moment on may be relied on: who
    /// begins after it waits for longer. Those that are left, and what kept one from being removed.
    fn remove_generations<'d>(
        &self,
        mut due: &'d [Due],
        at: Moment,
    ) -> Result<(&'d [Due], Option<Error>)> {
        while let [first, rest @ ..] = due {
            let Some(left) = at.left(&*self.repository.clock, limits::LOOK_SECONDS_MAX) else {
                break;
            };
            let error = (self.repository.storage).remove_within(&first.file, left)?;
            if error.is_some() {
                return Ok((due, error));
            }
            due = rest;
        }
        Ok((due, None))
    }

    fn check_awake_by(&self, watch: &Watch<'_>) -> Result<()> {
        let last = watch.markers.last();
        let clock = &*self.repository.clock;
        if last.is_some_and(|last| last.at.is_before(clock, limits::SWEEP_SECONDS_MAX)) {
            return Err(slept());
        }
        Ok(())
    }

    pub(super) fn is_absent(&self, file: &FileName) -> Result<bool> {
        match self.repository.storage.length(file) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
            there => there.map(|_| false),
        }
    }

    /// Until when a sweep must not begin: it could not end, since one of its generations names an
    /// archive that is kept after all, and another sweep may be about to delete that. Whoever began
    /// all the same would keep the next one waiting.
    pub(super) fn held(&self, folder: &Folder, times: &Times, kept: Option<u32>) -> Option<i64> {
        let first = kept?;
        let after = folder.markers.iter().filter(|(_, number)| *number > first);
        let over = |time: &i64| self.has_passed(*time, 2 * limits::SWEEP_SECONDS_MAX);
        let times = after.filter_map(|(file, _)| times.get(file));
        let last = times.filter(|time| !over(time)).max()?;
        let wait = i64::try_from(2 * limits::SWEEP_SECONDS_MAX).unwrap_or(i64::MAX);
        Some(last.saturating_add(wait))
    }
}

/// The lowest number of a generation that names an archive which is there and does not go.
pub(super) fn kept_after_all(
    due: &[Due],
    names: &BTreeSet<SnapshotName>,
    goes: &dyn Fn(&SnapshotName) -> bool,
) -> Option<u32> {
    let keeps = due.iter().filter(|due| {
        let mut archives = due.generation.archives.iter();
        archives.any(|name| names.contains(name) && !goes(name))
    });
    keeps.map(|due| due.number).min()
}

pub(super) fn ended() -> Error {
    let what =
        "another pruning has swept what this one was to; what is left is pruned the next time";
    Error::new(ErrorKind::Swept, what)
}
