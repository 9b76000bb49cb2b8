//! What is there when a mark or a sweep looks.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Run;
use super::folder::{Folder, Marker};
use super::needs::{Needs, unwalked};
use crate::attributes::ArchiveAttributes;
use crate::format::id::ChunkId;
use crate::format::prune::{Generation, Survivor, Survivors};
use crate::format::snapshot::{Snapshot, SnapshotName};
use crate::index::pack_file;
use crate::repair::put_empty;
use crate::repository::Repository;
use crate::storage::FileName;
use crate::{Error, ErrorKind, Result};

/// All archives, with what is said of them.
pub(super) struct Survey {
    pub(super) names: BTreeSet<SnapshotName>,
    attributes: BTreeMap<SnapshotName, ArchiveAttributes>,
    /// Late, and not whole: nobody was told that they are there, and nobody will be.
    lost: HashSet<SnapshotName>,
}

/// What the archives that stay need, and who wrote them.
pub(super) struct Kept<'r> {
    pub(super) needs: Needs<'r>,
    pub(super) writers: HashSet<String>,
}

impl Run<'_> {
    /// Lists what is there. Fails if it cannot be told of an archive whether it is forgotten.
    pub(super) fn survey(&self) -> Result<Survey> {
        let repository = self.repository;
        // Before archives are listed: of one that another pruning removes, these go last. Else it
        // would seem to be there, and not forgotten.
        let attributes_found = repository.attributes_of(None)?;
        let names: Vec<_> = repository.all_snapshots_of(None)?;
        let mut lost = repository.late(&names)?;
        if let Some((file, error)) = repository.damaged_markers().into_iter().next() {
            let what = format!(
                "nothing is pruned: {file} tells what was left of the last sweep and cannot be \
                 read; `snapkeep repair` mends that"
            );
            return Err(Error::with_source(error.kind(), what, error));
        }
        for name in lost.clone() {
            let read = repository.listed_snapshot(&name);
            let whole = read.and_then(|snapshot| Needs::of_all(repository).are_met(&snapshot));
            match whole {
                Ok(true) => drop(lost.remove(&name)),
                Ok(false) => {}
                // Damage is told, and nothing is deleted for it.
                Err(e) if e.kind() == ErrorKind::Corrupt => drop(lost.remove(&name)),
                // Its writer took it back.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(unwalked(name.as_str(), e)),
            }
        }
        let names = BTreeSet::from_iter(names);
        let mut attributes = BTreeMap::new();
        for (name, found) in attributes_found {
            match found {
                Ok(found) => drop(attributes.insert(name, found)),
                // Of an archive that was removed.
                Err(_) if !names.contains(&name) => {}
                Err(e) => {
                    let what = format!(
                        "nothing is pruned: whether archive {name} is forgotten or protected \
                         cannot be told"
                    );
                    return Err(Error::with_source(e.kind(), what, e));
                }
            }
        }
        Ok(Survey {
            names,
            attributes,
            lost,
        })
    }

    /// Fails, unless it was confirmed, if archives are missing that were there at the last sweep,
    /// or all of them are. One is missed if all markers name it: of two sweeps at once, one may have
    /// named what the other deleted. The newest marker without what is gone, if others explain
    /// that.
    pub(super) fn check_list(
        &self,
        survey: &Survey,
        folder: &Folder,
        generations: &[Generation],
    ) -> Result<Option<(u32, Survivors)>> {
        let packs = self.repository.counts().1;
        if survey.names.is_empty() && packs > 0 {
            let why = format!("no archive is listed at all, but {packs} packs are");
            self.ask(&why)?;
        }
        let mut markers = self.repository.markers(folder)?;
        markers.sort_by(|a, b| (a.number, &a.file).cmp(&(b.number, &b.file)));
        let Some(last) = markers.pop() else {
            return Ok(None);
        };
        let others: Result<Vec<_>> = markers.iter().map(Marker::survivors).collect();
        let others = others?;
        let known = (survey.names.iter())
            .chain(generations.iter().flat_map(|g| &g.archives))
            .map(Survivor::of);
        let known: HashSet<_> = known.collect();
        let survivors = last.survivors()?;
        let is_known = |one: &&Survivor| known.contains(one);
        let is_told = |one: &&Survivor| others.iter().all(|other| other.names(one));
        let missing = (survivors.iter()).filter(|one| !is_known(one) && is_told(one));
        let missing = missing.count();
        if missing > 0 {
            let why = format!(
                "of {} archives that were there at the last sweep {missing} are not listed, though \
                 nobody forgot them (is all of the storage there?)",
                survivors.len()
            );
            self.ask(&why)?;
        }
        // What is missing may be back tomorrow.
        let rest = survivors.iter().filter(|one| is_known(one) || is_told(one));
        let rest = Survivors::new(rest.copied());
        Ok((rest.len() < survivors.len()).then_some((last.number, rest)))
    }

    /// Marks what the archives that stay need. Fails if anything of it cannot be read or found.
    pub(super) fn kept<'r>(
        &'r self,
        survey: &Survey,
        stays: impl Fn(&SnapshotName) -> bool,
    ) -> Result<Kept<'r>> {
        let repository: &Repository = self.repository;
        // What the archives need that were listed by now was stored before.
        repository.refresh()?;
        self.settle_adopted()?;
        let mut kept = Kept {
            needs: Needs::of_all(repository),
            writers: HashSet::new(),
        };
        self.check_index()?;
        self.check_lost(survey)?;
        let mut objects = HashSet::new();
        repository.storage.list(&"index".parse()?, &mut |file, _| {
            objects.insert(file.clone());
            Ok(())
        })?;
        for name in survey.names.iter().filter(|name| stays(name)) {
            let snapshot = match repository.listed_snapshot(name) {
                Ok(snapshot) => snapshot,
                // Its writer, or another pruning, removed it.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(unwalked(name.as_str(), e)),
            };
            self.check_objects(name, &snapshot, &objects)?;
            (kept.needs.snapshot(&snapshot)).map_err(|e| unwalked(name.as_str(), e))?;
            kept.writers.insert(snapshot.writer);
        }
        for (name, attributes) in &survey.attributes {
            let log = attributes.task_log.as_ref().filter(|_| stays(name));
            for id in log.iter().flat_map(|log| &log.chunks) {
                kept.log(id)?;
            }
        }
        Ok(kept)
    }

    /// Makes what a killed writer left durable: what other packs lose may have its home there from now on,
    /// such as in the copies of a pruning that was cut off.
    fn settle_adopted(&self) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let adopted = self.repository.index().adopted().to_vec();
        for id in adopted {
            match self.repository.storage.settle(&pack_file(&id)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Fails if an archive that was lost is not, by lists that are read now: then one of them is wrong.
    fn check_lost(&self, survey: &Survey) -> Result<()> {
        for name in &survey.lost {
            let snapshot = match self.repository.listed_snapshot(name) {
                Ok(snapshot) => snapshot,
                Err(e) if e.kind().is_of_storage() => return Err(e),
                Err(_) => continue,
            };
            match Needs::of_all(self.repository).are_met(&snapshot) {
                Ok(true) => {
                    let what = format!(
                        "archive {name} lacked something, and now it does not: lists contradict each \
                         other, so nothing is pruned; prune again"
                    );
                    return Err(Error::new(ErrorKind::Io, what));
                }
                Err(e) if e.kind().is_of_storage() => return Err(e),
                Ok(false) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Fails if a file of packs or index could not be read for reasons that may pass.
    fn check_index(&self) -> Result<()> {
        let index = self.repository.index();
        if let Some(error) = &index.seen().trouble {
            return Err(error.clone());
        }
        let unread = (index.problems().iter()).find(|(_, e)| e.kind() != ErrorKind::Corrupt);
        match unread {
            None => Ok(()),
            Some((file, error)) => {
                let what = format!("nothing is pruned: {file} cannot be read");
                Err(Error::with_source(error.kind(), what, error.clone()))
            }
        }
    }

    /// Each writer numbers its index objects without gaps, and they stay as long as its archive.
    fn check_objects(
        &self,
        name: &SnapshotName,
        snapshot: &Snapshot,
        objects: &HashSet<FileName>,
    ) -> Result<()> {
        for number in 0..snapshot.index_objects {
            let file = format!("index/{}/{number:08}", snapshot.writer).parse()?;
            if objects.contains(&file) {
                continue;
            }
            match self.repository.storage.length(&file) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                // Lists are old.
                there => {
                    there?;
                    continue;
                }
            }
            let why = format!(
                "the index object {file} of archive {name} is not there (is all of the storage \
                 there?)"
            );
            self.ask(&why)?;
            if !self.options.dry_run {
                // So that nobody is asked again.
                put_empty(self.repository, &file)?;
            }
        }
        Ok(())
    }
}

impl Survey {
    /// Whether an archive is forgotten, or was never told to be there.
    pub(super) fn may_go(&self, name: &SnapshotName) -> bool {
        let attributes = self.attributes.get(name);
        let forgotten = attributes.is_some_and(|a| a.forgotten);
        let protected = attributes.is_some_and(|a| a.protected);
        self.names.contains(name) && (forgotten || self.is_lost(name) && !protected)
    }

    pub(super) fn is_lost(&self, name: &SnapshotName) -> bool {
        self.lost.contains(name)
    }
}

impl Kept<'_> {
    /// A log that is lost is missed by nothing else.
    fn log(&mut self, id: &ChunkId) -> Result<()> {
        let marked = self.needs.mark(id);
        if std::mem::take(&mut self.needs.lost) {
            return Ok(());
        }
        marked.map(drop)
    }
}
