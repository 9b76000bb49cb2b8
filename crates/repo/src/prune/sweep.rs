//! The sweep: deletes what was condemned a grace period ago, after what is needed of it after all
//! was copied.

use std::collections::{BTreeSet, HashSet};

use super::ending::{Watch, ended, kept_after_all};
use super::folder::{Folder, read_generation};
use super::locked::unless_locked;
use super::mark::Copier;
use super::survey::{Kept, Survey};
use super::{Amount, Run, Swept, Times, time};
use crate::clock::Moment;
use crate::format::id::PackId;
use crate::format::index::IndexedPack;
use crate::format::prune::{Generation, Survivor, Survivors};
use crate::format::snapshot::SnapshotName;
use crate::index::{Index, Location, Pack, object_of, pack_file, pack_of, read_object, stands};
use crate::marks::Marks;
use crate::storage::FileName;
use crate::{Error, ErrorKind, Result, limits};

/// A generation that is swept.
pub(super) struct Due {
    pub(super) file: FileName,
    pub(super) number: u32,
    pub(super) generation: Generation,
}

/// A marker that this sweep has put.
pub(super) struct Begun {
    pub(super) file: FileName,
    pub(super) number: u32,
    /// The archives that it names.
    pub(super) names: BTreeSet<SnapshotName>,
    pub(super) at: Moment,
}

impl Run<'_> {
    /// Sweeps the generations that are in the folder; nothing if it may not begin, since it could not
    /// end.
    pub(super) fn sweep(&self, folder: &Folder, times: &Times) -> Result<Option<Swept>> {
        let mut due = self.read_due(folder)?;
        let mut swept = Swept::default();
        if due.is_empty() {
            return Ok(Some(swept));
        }
        let begun = if self.options.dry_run {
            None
        } else {
            let Some(begun) = self.put_marker(folder, times, &due)? else {
                return Ok(None);
            };
            self.settle()?;
            Some(begun)
        };
        // From here on, whoever commits sees the marker, or is seen.
        let now = Folder::list(&*self.repository.storage)?;
        let condemned = archives_of(&due);
        due.retain(|due| due.is_in(&now));
        if due.is_empty() {
            return Ok(Some(swept));
        }
        let survey = self.survey()?;
        let generations: Vec<_> = due.iter().map(|due| due.generation.clone()).collect();
        let mut others = now.clone();
        if let Some(begun) = &begun {
            others.markers.retain(|(file, _)| *file != begun.file);
            self.check_gone(begun, &survey, &condemned)?;
        }
        self.check_list(&survey, &others, &generations)?;
        if let Some(begun) = &begun {
            self.remove_swept_markers(folder, times, begun.number)?;
        }
        let named = archives_of(&due);
        // What the marker names stays, also if it was forgotten again since: later prunings would
        // miss it.
        let survives =
            |name: &SnapshotName| (begun.as_ref()).is_some_and(|b| b.names.contains(name));
        let goes =
            |name: &SnapshotName| named.contains(name) && survey.may_go(name) && !survives(name);
        // One that nobody was told of, and that is not whole, needs nothing.
        let stays = |name: &SnapshotName| !goes(name) && !survey.is_lost(name);
        let walked = self.kept(&survey, stays).and_then(|kept| {
            let rescued = self.rescue(&kept)?;
            Ok((kept, rescued))
        });
        let (kept, rescued) = walked.map_err(|e| self.given_way(&now, e))?;
        swept.rescued = rescued;
        let condemned: HashSet<PackId> = due
            .iter()
            .flat_map(|due| due.generation.packs.iter().copied())
            .collect();
        let Some(begun) = &begun else {
            swept.archives = named.iter().filter(|name| goes(name)).count() as u64;
            swept.deleted = self.condemned()?;
            return Ok(Some(swept));
        };
        let there = survey.names.iter();
        let stay: BTreeSet<_> = there.clone().filter(|name| stays(name)).cloned().collect();
        let going: Vec<_> = there.filter(|name| goes(name)).cloned().collect();
        let last = self.go_on(begun, &due, stay, &going)?;
        let latest = last.as_ref().unwrap_or(begun);
        self.check_awake(latest)?;
        let watch = Watch {
            markers: std::iter::once(begun).chain(&last).collect(),
            due: &due,
        };
        let forgotten = (named.iter()).filter(|name| goes(name) || !survey.names.contains(*name));
        let mut all_gone = self.delete_archives(&watch, &going, forgotten, &mut swept)?;
        all_gone &= self.delete_packs(&condemned, &kept, latest, &mut swept)?;
        if all_gone {
            let kept = kept_after_all(&due, &survey.names, &goes);
            self.end(&watch, kept)?;
        }
        if last.is_some() {
            self.repository.storage.remove(&begun.file)?;
        }
        Ok(Some(swept))
    }

    fn read_due(&self, folder: &Folder) -> Result<Vec<Due>> {
        let mut due = Vec::new();
        for (file, number) in &folder.generations {
            match read_generation(&*self.repository.storage, &self.repository.keys, file) {
                Ok(generation) => due.push(Due {
                    file: file.clone(),
                    number: *number,
                    generation,
                }),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) if e.kind() == ErrorKind::Corrupt => {
                    let what = format!(
                        "nothing is pruned: {file} tells what is condemned and cannot be read; \
                         `snapkeep repair` mends that"
                    );
                    return Err(Error::with_source(ErrorKind::Corrupt, what, e));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(due)
    }

    /// Puts a marker that names the archives that stay; none if the sweep could not end, or another one
    /// has begun meanwhile.
    fn put_marker(&self, folder: &Folder, times: &Times, due: &[Due]) -> Result<Option<Begun>> {
        let survey = self.survey()?;
        let kept = kept_after_all(due, &survey.names, &|name| survey.may_go(name));
        if let Some(until) = self.held(folder, times, kept) {
            self.held_until.set(Some(until));
            return Ok(None);
        }
        let generations: Vec<_> = due.iter().map(|due| due.generation.clone()).collect();
        self.check_list(&survey, folder, &generations)?;
        let named = archives_of(due);
        let goes = |name: &&SnapshotName| named.contains(*name) && survey.may_go(name);
        let names = survey.names.iter().filter(|name| !goes(name));
        let names: Vec<_> = names.cloned().collect();
        // One that is late stays, but is not whole before its chunks were copied.
        let late = self.repository.late(&names)?;
        let stays = names.into_iter().filter(|name| !late.contains(name));
        let stays: BTreeSet<_> = stays.collect();
        loop {
            let at = Moment::now(&*self.repository.clock);
            // Before the look: a marker that this one is to be higher than is seen by it.
            let number = self.next_number()?.max(folder.newest() + 1);
            // Another sweep that began since may delete what this marker would name.
            if !Folder::list(&*self.repository.storage)?.is_same(folder) {
                return Ok(None);
            }
            if !at.is_before(&*self.repository.clock, limits::LOOK_SECONDS_MAX) {
                return self.put_survivors(number, stays).map(Some);
            }
        }
    }

    fn put_survivors(&self, number: u32, names: BTreeSet<SnapshotName>) -> Result<Begun> {
        let at = Moment::now(&*self.repository.clock);
        let survivors = Survivors::new(names.iter().map(Survivor::of));
        let file = self.repository.put_survivors(number, &survivors)?;
        Ok(Begun {
            file,
            number,
            names,
            at,
        })
    }

    /// Fails if an archive that the marker names is not listed any more, unless it is gone and another
    /// sweep of the same generations may have removed it: then these condemn it.
    fn check_gone(
        &self,
        begun: &Begun,
        survey: &Survey,
        condemned: &BTreeSet<SnapshotName>,
    ) -> Result<()> {
        for name in begun.names.difference(&survey.names) {
            if self.is_absent(&name.file())? {
                if !condemned.contains(name) {
                    let why = format!(
                        "archive {name} was there when this began and is gone now, though nobody \
                         forgot it (is all of the storage there?)"
                    );
                    self.ask(&why)?;
                }
            } else {
                let what = format!(
                    "nothing is deleted: archive {name} is there, and not listed any more: lists \
                     contradict each other; prune again"
                );
                return Err(Error::new(ErrorKind::Io, what));
            }
        }
        Ok(())
    }

    /// What is missing is not damaged if another sweep has begun meanwhile: an archive may have been
    /// forgotten again, and that one has deleted it.
    fn given_way(&self, folder: &Folder, error: Error) -> Error {
        if error.kind() != ErrorKind::Corrupt {
            return error;
        }
        match Folder::list(&*self.repository.storage) {
            Ok(now) if now.is_same(folder) => error,
            Ok(_) => ended(),
            Err(_) => error,
        }
    }

    /// Removes the markers that earlier sweeps left which failed: a newer one says all that they
    /// say, and whoever put them deletes nothing any more.
    fn remove_swept_markers(&self, folder: &Folder, times: &Times, number: u32) -> Result<()> {
        for (file, old) in &folder.markers {
            let over = |time: &i64| self.has_passed(*time, 2 * limits::SWEEP_SECONDS_MAX);
            if *old < number && times.get(file).is_some_and(over) {
                self.repository.storage.remove(file)?;
            }
        }
        Ok(())
    }

    /// Before anything is deleted: if archives stay that the marker does not name, since they were
    /// committed after it or were late, if it names some that do not, which later prunings would
    /// miss, or if it was put long ago, another one of the same number takes its place. All that stay
    /// have homes by now.
    fn go_on(
        &self,
        begun: &Begun,
        due: &[Due],
        stay: BTreeSet<SnapshotName>,
        going: &[SnapshotName],
    ) -> Result<Option<Begun>> {
        let slow = self.took(begun, limits::SWEEP_SECONDS_MAX / 2)?;
        if !slow && stay == begun.names {
            return Ok(None);
        }
        let last = self.put_survivors(begun.number, self.settled(begun, stay)?)?;
        if slow {
            self.settle()?;
            let folder = Folder::list(&*self.repository.storage)?;
            if !due.iter().all(|due| due.is_in(&folder)) {
                return Err(ended());
            }
            self.check_still_going(going)?;
        }
        Ok(Some(last))
    }

    /// Those of the archives that stay which are still there a while later: a writer that found that
    /// something of its own is nowhere, by an older list, has removed it by then.
    fn settled(
        &self,
        begun: &Begun,
        mut stay: BTreeSet<SnapshotName>,
    ) -> Result<BTreeSet<SnapshotName>> {
        self.settle()?;
        let unnamed: Vec<_> = stay.difference(&begun.names).cloned().collect();
        for name in unnamed {
            if self.is_absent(&name.file())? {
                stay.remove(&name);
            }
        }
        Ok(stay)
    }

    /// Fails if an archive was taken back while this slept, and another pruning ended.
    fn check_still_going(&self, going: &[SnapshotName]) -> Result<()> {
        let survey = self.survey()?;
        let back = |name: &&SnapshotName| survey.names.contains(name) && !survey.may_go(name);
        match going.iter().find(back) {
            None => Ok(()),
            Some(name) => {
                let what = format!(
                    "nothing is deleted: archive {name} was taken back meanwhile; prune again"
                );
                Err(Error::new(ErrorKind::Swept, what))
            }
        }
    }

    /// Copies what is needed and lies in condemned packs alone.
    fn rescue(&self, kept: &Kept<'_>) -> Result<Amount> {
        kept.needs.check_index()?;
        let repository = self.repository;
        let marks = &kept.needs.marks;
        let mut packs = BTreeSet::new();
        {
            let index = repository.index();
            index.each(&mut |_, places| {
                packs.extend(homeless(&index, marks, places).map(|place| place.pack));
                Ok(())
            })?;
        }
        let mut rescued = Amount::default();
        if packs.is_empty() {
            return Ok(rescued);
        }
        let mut copier = Copier::new(self)?;
        for number in packs {
            let Some(pack) = repository.index().pack(number).cloned() else {
                continue;
            };
            let copied = copier.copy(&pack, &|place, id| {
                let index = repository.index();
                let first = homeless(&index, marks, &index.all(id)?);
                Ok(first.is_some_and(|first| (first.pack, first.number) == (number, place)))
            })?;
            rescued.number += copied.number;
            rescued.bytes += copied.bytes;
        }
        copier.finish()?;
        Ok(rescued)
    }

    /// Whether more seconds have passed since a marker was put, by this machine's clock or by the
    /// storage's.
    fn took(&self, begun: &Begun, seconds: u64) -> Result<bool> {
        if begun.at.is_before(&*self.repository.clock, seconds) {
            return Ok(true);
        }
        let then = match self.repository.storage.modified(&begun.file) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(ended()),
            then => then?,
        };
        Ok(time(self.repository)?.abs_diff(then) > seconds)
    }

    /// Whoever slept for long must not delete anything: another pruning may have ended this one, and
    /// an archive been taken back since.
    fn check_awake(&self, begun: &Begun) -> Result<()> {
        if self.took(begun, limits::SWEEP_SECONDS_MAX)? {
            return Err(slept());
        }
        Ok(())
    }

    /// Whether each of these packs is condemned, or is not there if it is asked for by its name.
    fn are_gone(&self, packs: &[IndexedPack], condemned: &HashSet<PackId>) -> Result<bool> {
        for pack in packs.iter().filter(|pack| !condemned.contains(&pack.id)) {
            if !self.is_absent(&pack_file(&pack.id))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes archives, and the attributes of those and of others whose records are gone. Whether
    /// none of that is there any more.
    fn delete_archives<'n>(
        &self,
        watch: &Watch<'_>,
        going: &[SnapshotName],
        forgotten: impl Iterator<Item = &'n SnapshotName>,
        swept: &mut Swept,
    ) -> Result<bool> {
        let mut kept = BTreeSet::new();
        for name in going {
            let removed = self.remove_watched(watch, &name.file());
            if unless_locked(removed, 0, swept)? {
                swept.archives += 1;
            } else {
                kept.insert(name);
            }
        }
        let mut all_gone = kept.is_empty();
        // As long as its record is there, an archive must stay forgotten.
        for name in forgotten.filter(|name| !kept.contains(name)) {
            for (file, _) in self.repository.attribute_files_of(name)? {
                all_gone &= unless_locked(self.remove_watched(watch, &file), 0, swept)?;
            }
        }
        Ok(all_gone)
    }

    /// Deletes condemned packs, after the index objects that name nothing else. Whether none of the
    /// packs is there any more: an index object alone says nothing.
    fn delete_packs(
        &self,
        condemned: &HashSet<PackId>,
        kept: &Kept<'_>,
        begun: &Begun,
        swept: &mut Swept,
    ) -> Result<bool> {
        let storage = &self.repository.storage;
        let mut objects = Vec::new();
        storage.list(&"index".parse()?, &mut |file, _| {
            objects.extend(object_of(file).map(|_| file.clone()));
            Ok(())
        })?;
        // After the objects, whose packs were stored before them.
        let mut packs = Vec::new();
        let mut stay = HashSet::new();
        storage.list(&"packs".parse()?, &mut |file, length| {
            if let Some(id) = pack_of(file) {
                if condemned.contains(&id) {
                    packs.push((id, length));
                } else {
                    stay.insert(id);
                }
            }
            Ok(())
        })?;
        for file in objects {
            let mut parts = file.as_str().split('/').skip(1);
            if parts
                .next()
                .is_none_or(|writer| kept.writers.contains(writer))
            {
                continue;
            }
            match read_object(&**storage, &self.repository.keys, &file) {
                Ok(named) if named.iter().all(|pack| !stay.contains(&pack.id)) => {
                    // One that is at work may have put it a moment ago, and lists be old.
                    if self.are_gone(&named, condemned)? {
                        unless_locked(storage.remove(&file), 0, swept)?;
                    }
                }
                Ok(_) => {}
                // Verification tells of one that is damaged.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
                Err(e) => return Err(e),
            }
        }
        self.check_awake(begun)?;
        let mut all_gone = true;
        for (id, length) in packs {
            // Cheap enough to be asked each time.
            if (begun.at).is_before(&*self.repository.clock, limits::SWEEP_SECONDS_MAX) {
                return Err(slept());
            }
            if unless_locked(storage.remove(&pack_file(&id)), length, swept)? {
                swept.deleted.add(length);
            } else {
                all_gone = false;
            }
        }
        Ok(all_gone)
    }
}

/// The archives that generations name.
fn archives_of(due: &[Due]) -> BTreeSet<SnapshotName> {
    let all = due.iter().flat_map(|due| &due.generation.archives);
    all.cloned().collect()
}

pub(super) fn slept() -> Error {
    let what = "the sweep took longer than it may; prune again, and it goes on";
    Error::new(ErrorKind::Io, what)
}

impl Due {
    fn is_in(&self, folder: &Folder) -> bool {
        folder
            .generations
            .iter()
            .any(|(file, _)| *file == self.file)
    }
}

/// The place that stands for a chunk that is needed, if none of its places is a home.
fn homeless(index: &Index, marks: &Marks, places: &[Location]) -> Option<Location> {
    let is_home = |place: &Location| index.pack(place.pack).is_some_and(Pack::is_home);
    stands(places).filter(|first| marks.contains(first) && !places.iter().any(is_home))
}
