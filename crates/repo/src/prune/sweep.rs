//! The sweep: deletes what was condemned a grace period ago, after what is needed of it after all
//! was copied.

use std::collections::{BTreeSet, HashSet};

use super::folder::{Folder, read_generation};
use super::mark::Copier;
use super::survey::{Kept, Survey};
use super::{Amount, Run, Swept, time};
use crate::format::envelope::Kind;
use crate::format::id::PackId;
use crate::format::prune::{Generation, PruneFile, Survivor, Survivors};
use crate::format::snapshot::SnapshotName;
use crate::index::{Index, Location, Pack, object_of, pack_file, pack_of, read_object, stands};
use crate::marks::Marks;
use crate::storage::FileName;
use crate::{Error, ErrorKind, Result, limits};

/// A generation that is swept.
struct Due {
    file: FileName,
    number: u32,
    generation: Generation,
}

impl Run<'_> {
    /// Sweeps the generations that are in the folder.
    pub(super) fn sweep(&self, folder: &Folder) -> Result<Swept> {
        let mut due = Vec::new();
        for (file, number) in &folder.generations {
            match read_generation(&*self.repository.storage, &self.repository.keys, file) {
                Ok(generation) => due.push(Due {
                    file: file.clone(),
                    number: *number,
                    generation,
                }),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let mut swept = Swept::default();
        if due.is_empty() {
            return Ok(swept);
        }
        let (marker, number) = if self.options.dry_run {
            (None, folder.newest() + 1)
        } else {
            let (marker, number) = self.put_marker(folder, &due)?;
            (Some(marker), number)
        };
        // From here on, whoever commits sees the marker, or is seen.
        let folder = Folder::list(&*self.repository.storage)?;
        due.retain(|due| folder.generations.iter().any(|(file, _)| *file == due.file));
        self.repository.refresh()?;
        let survey = self.survey()?;
        let generations: Vec<_> = due.iter().map(|due| due.generation.clone()).collect();
        self.check_list(&survey, &folder, &generations)?;
        let named: BTreeSet<&SnapshotName> = due
            .iter()
            .flat_map(|due| &due.generation.archives)
            .collect();
        let goes = |name: &SnapshotName| named.contains(name) && survey.may_go(name);
        // One that nobody was told of, and that is not whole, needs nothing.
        let stays = |name: &SnapshotName| !goes(name) && !survey.is_lost(name);
        let kept = self.kept(&survey, stays)?;
        swept.rescued = self.rescue(&kept)?;
        let condemned: HashSet<PackId> = due
            .iter()
            .flat_map(|due| due.generation.packs.iter().copied())
            .collect();
        let Some(marker) = marker else {
            swept.archives = named.iter().filter(|name| goes(name)).count() as u64;
            swept.deleted = self.condemned()?;
            return Ok(swept);
        };
        self.check_awake(&marker)?;
        for name in named.iter().filter(|name| goes(name)) {
            self.repository.storage.remove(&name.file())?;
            swept.archives += 1;
        }
        for name in named
            .iter()
            .filter(|name| goes(name) || !survey.names.contains(name))
        {
            for (file, _) in self.repository.attribute_files_of(name)? {
                self.repository.storage.remove(&file)?;
            }
        }
        self.delete_packs(&condemned, &kept, &mut swept)?;
        if self.may_end(&folder, &marker, &due, &survey, &goes)? {
            for due in &due {
                self.repository.storage.remove(&due.file)?;
            }
            for (file, old) in &folder.markers {
                if *old < number {
                    self.repository.storage.remove(file)?;
                }
            }
        }
        self.repository.refresh()?;
        Ok(swept)
    }

    /// Puts a marker that names the archives that stay; its name and number.
    fn put_marker(&self, folder: &Folder, due: &[Due]) -> Result<(FileName, u32)> {
        self.repository.refresh()?;
        let survey = self.survey()?;
        let generations: Vec<_> = due.iter().map(|due| due.generation.clone()).collect();
        self.check_list(&survey, folder, &generations)?;
        let names: Vec<_> = survey.names.iter().cloned().collect();
        let late = self.repository.late(&names)?;
        let named: BTreeSet<&SnapshotName> = generations.iter().flat_map(|g| &g.archives).collect();
        // One that is late stays, but is not whole before its chunks were copied.
        let stays = (names.iter())
            .filter(|name| !(late.contains(*name) || named.contains(name) && survey.may_go(name)));
        let survivors = Survivors::new(stays.map(Survivor::of));
        if survivors.len() > limits::SURVIVORS_MAX {
            let what = "the repository has more archives than a sweep can name; forget some";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        self.put_numbered(Kind::Sweep, PruneFile::Marker, &survivors.encode())
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

    /// Whoever slept for long must not delete archives: another pruning may have ended this one, and
    /// an archive been taken back since.
    fn check_awake(&self, marker: &FileName) -> Result<()> {
        let began = self.repository.storage.modified(marker)?;
        let now = time(self.repository)?;
        if now.abs_diff(began) > limits::SWEEP_SECONDS_MAX {
            let what = "nothing is deleted: the sweep took longer than it may; prune again";
            return Err(Error::new(ErrorKind::Io, what));
        }
        Ok(())
    }

    /// Deletes condemned packs, after the index objects that name nothing else.
    fn delete_packs(
        &self,
        condemned: &HashSet<PackId>,
        kept: &Kept<'_>,
        swept: &mut Swept,
    ) -> Result<()> {
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
                    storage.remove(&file)?;
                }
                Ok(_) => {}
                // Verification tells of one that is damaged.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {}
                Err(e) => return Err(e),
            }
        }
        for (id, length) in packs {
            storage.remove(&pack_file(&id))?;
            swept.deleted.add(length);
        }
        Ok(())
    }

    /// Whether the generations may be removed: not while an archive that one of them names is kept
    /// after all, and another sweep may be about to delete it.
    fn may_end(
        &self,
        folder: &Folder,
        marker: &FileName,
        due: &[Due],
        survey: &Survey,
        goes: &dyn Fn(&SnapshotName) -> bool,
    ) -> Result<bool> {
        let kept_after_all = |due: &&Due| {
            let mut archives = due.generation.archives.iter();
            archives.any(|name| survey.names.contains(name) && !goes(name))
        };
        let Some(first) = due
            .iter()
            .filter(kept_after_all)
            .map(|due| due.number)
            .min()
        else {
            return Ok(true);
        };
        for (file, number) in &folder.markers {
            if file == marker || *number <= first {
                continue;
            }
            match self.repository.storage.modified(file) {
                Ok(began) if self.has_passed(began, 2 * limits::SWEEP_SECONDS_MAX) => {}
                Ok(_) => return Ok(false),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

/// The place that stands for a chunk that is needed, if none of its places is a home.
fn homeless(index: &Index, marks: &Marks, places: &[Location]) -> Option<Location> {
    let is_home = |place: &Location| index.pack(place.pack).is_some_and(Pack::is_home);
    stands(places).filter(|first| marks.contains(first) && !places.iter().any(is_home))
}
