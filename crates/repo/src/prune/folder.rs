//! The folder `prune/`, as everybody reads it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};

use crate::format::envelope::{self, Kind};
use crate::format::id::PackId;
use crate::format::prune::{Generation, PruneFile, Survivors};
use crate::format::snapshot::SnapshotName;
use crate::keys::Keys;
use crate::repository::Repository;
use crate::storage::{FileName, Storage, read_and_open};
use crate::{Error, ErrorKind, Result, limits, random};

/// Generations and markers, each with its number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folder {
    pub(crate) generations: Vec<(FileName, u32)>,
    pub(crate) markers: Vec<(FileName, u32)>,
    pub(crate) probes: Vec<FileName>,
    files: usize,
}

impl Folder {
    pub(crate) fn list(storage: &dyn Storage) -> Result<Self> {
        let mut folder = Self::default();
        storage.list(&"prune".parse()?, &mut |file, _| folder.add(file))?;
        Ok(folder)
    }

    /// The same, and when each file was put.
    pub(crate) fn list_dated(storage: &dyn Storage) -> Result<(Self, BTreeMap<FileName, i64>)> {
        let (mut folder, mut times) = (Self::default(), BTreeMap::new());
        storage.list_dated(&"prune".parse()?, &mut |file, _, time| {
            times.insert(file.clone(), time);
            folder.add(file)
        })?;
        Ok((folder, times))
    }

    fn add(&mut self, file: &FileName) -> Result<()> {
        self.files += 1;
        if self.files > limits::PRUNE_FILES_MAX {
            let what = "the folder prune has more files than are allowed";
            return Err(Error::corrupt(what));
        }
        match PruneFile::parse(file) {
            Some(PruneFile::Generation(number)) => self.generations.push((file.clone(), number)),
            Some(PruneFile::Marker(number)) => self.markers.push((file.clone(), number)),
            Some(PruneFile::Probe) => self.probes.push(file.clone()),
            None => {}
        }
        Ok(())
    }

    /// Whether the same generations and markers are in both.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        names(self.clone()) == names(other.clone())
    }

    /// The highest number; 0 if there is none. It never falls: the newest marker stays.
    pub(crate) fn newest(&self) -> u32 {
        let both = self.generations.iter().chain(&self.markers);
        both.map(|(_, number)| *number).max().unwrap_or(0)
    }

    /// The highest number of a marker; 0 if there is none.
    pub(crate) fn newest_marker(&self) -> u32 {
        let markers = self.markers.iter().map(|(_, number)| *number);
        markers.max().unwrap_or(0)
    }
}

/// What whoever read `prune/` and then the index must treat as absent, and knows of.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    files: BTreeSet<FileName>,
    /// The highest number.
    pub(crate) newest: u32,
    /// Each with the lowest number of a generation that condemns it.
    pub(crate) condemned: HashMap<PackId, u32>,
    /// A generation is listed, and not there: it was just swept, or lists are old.
    pub(crate) vanished: bool,
    /// Why it is not known what is condemned, if it is not.
    pub(crate) trouble: Option<Error>,
}

impl Seen {
    /// What there is by this list.
    pub(crate) fn read(storage: &dyn Storage, keys: &Keys, folder: Folder) -> Self {
        let mut seen = Self {
            newest: folder.newest(),
            ..Self::default()
        };
        for (file, number) in &folder.generations {
            match read_generation(storage, keys, file) {
                Ok(generation) => {
                    for pack in generation.packs {
                        let lowest = seen.condemned.entry(pack).or_insert(*number);
                        *lowest = (*lowest).min(*number);
                    }
                }
                // It was swept since, so its packs are gone.
                Err(e) if e.kind() == ErrorKind::NotFound => seen.vanished = true,
                Err(e) => {
                    let what = format!("what {file} condemns is not known");
                    let what = if e.kind() == ErrorKind::Corrupt {
                        format!("{what}, so nothing is written: `snapkeep repair` mends that")
                    } else {
                        what
                    };
                    let error = Error::with_source(e.kind(), what, e);
                    seen.trouble.get_or_insert(error);
                }
            }
        }
        seen.files = names(folder);
        seen
    }

    /// Whether this is what is there.
    pub(crate) fn is(&self, folder: Folder) -> bool {
        self.files == names(folder)
    }
}

fn names(folder: Folder) -> BTreeSet<FileName> {
    let both = folder.generations.into_iter().chain(folder.markers);
    both.map(|(file, _)| file).collect()
}

pub(crate) fn read_generation(
    storage: &dyn Storage,
    keys: &Keys,
    file: &FileName,
) -> Result<Generation> {
    read_and_open(storage, file, limits::SEALED_MAX, |sealed| {
        let body = envelope::open(keys, Kind::Generation, file, sealed)?;
        Generation::decode(file, &body)
    })
}

/// What a sweep's marker says.
pub(crate) struct Marker {
    pub(crate) file: FileName,
    pub(crate) number: u32,
    /// Nobody knows if it is damaged.
    survivors: Result<Survivors>,
}

impl Marker {
    /// Whether it names an archive; `damaged` if nobody can tell.
    pub(crate) fn names(&self, archive: &SnapshotName, damaged: bool) -> bool {
        let survivors = self.survivors.as_ref().ok();
        survivors.map_or(damaged, |survivors| survivors.contains(archive))
    }

    /// The archives that it names; fails if it is damaged.
    pub(crate) fn survivors(&self) -> Result<&Survivors> {
        self.survivors.as_ref().map_err(Clone::clone)
    }
}

impl Repository {
    /// What the markers say that are there.
    pub(crate) fn markers(&self, folder: &Folder) -> Result<Vec<Marker>> {
        let mut markers = Vec::new();
        for (file, number) in &folder.markers {
            let survivors = match self.marker(file) {
                // A newer one is there, and says all that this one said.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) if e.kind() != ErrorKind::Corrupt => return Err(e),
                read => read,
            };
            markers.push(Marker {
                file: file.clone(),
                number: *number,
                survivors,
            });
        }
        Ok(markers)
    }

    /// What all markers say: one that is replaced meanwhile is not passed over.
    pub(crate) fn all_markers(&self) -> Result<Vec<Marker>> {
        for _ in 0..limits::ATTRIBUTE_TRIES {
            let folder = Folder::list(&*self.storage)?;
            let markers = self.markers(&folder)?;
            // Whoever removes one has put another that says as much; old lists still have both.
            let newest = markers.iter().map(|marker| marker.number).max();
            if newest == folder.markers.iter().map(|(_, number)| *number).max() {
                let damaged = markers.iter().filter_map(|marker| {
                    let error = marker.survivors().err()?;
                    Some((marker.file.clone(), error))
                });
                *self.unread_markers() = damaged.collect();
                return Ok(markers);
            }
        }
        let what = "the markers in the folder prune are replaced all the time; try again";
        Err(Error::new(ErrorKind::Io, what))
    }

    /// The markers that could not be read when it was last told which archives are late: of them it
    /// is not known whether they say so.
    pub fn damaged_markers(&self) -> Vec<(FileName, Error)> {
        self.unread_markers().clone()
    }

    fn unread_markers(&self) -> MutexGuard<'_, Vec<(FileName, Error)>> {
        (self.damaged_markers.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Generations and markers that are damaged.
    pub(crate) fn damaged_prune_files(&self) -> Result<Vec<(FileName, Error)>> {
        let folder = Folder::list(&*self.storage)?;
        let generations = folder.generations.iter().map(|(file, _)| {
            let read = read_generation(&*self.storage, &self.keys, file);
            (file, read.map(drop))
        });
        let markers = folder.markers.iter();
        let markers = markers.map(|(file, _)| (file, self.marker(file).map(drop)));
        let mut damaged = Vec::new();
        for (file, read) in generations.chain(markers) {
            match read {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => damaged.push((file.clone(), e)),
                Ok(()) => {}
            }
        }
        Ok(damaged)
    }

    fn marker(&self, file: &FileName) -> Result<Survivors> {
        read_and_open(&*self.storage, file, limits::SEALED_MAX, |sealed| {
            let body = envelope::open(&self.keys, Kind::Sweep, file, sealed)?;
            Survivors::decode(file, &body)
        })
    }

    /// Puts a marker that names these archives; its name.
    pub(crate) fn put_survivors(&self, number: u32, survivors: &Survivors) -> Result<FileName> {
        if survivors.len() > limits::SURVIVORS_MAX {
            let what = "the repository has more archives than a sweep can name; forget some";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let body = survivors.encode();
        self.put_prune_file(Kind::Sweep, PruneFile::Marker(number), &body)
    }

    /// Puts a file into the folder; its name.
    pub(crate) fn put_prune_file(
        &self,
        kind: Kind,
        file: PruneFile,
        body: &[u8],
    ) -> Result<FileName> {
        let file = file.name(random::fresh(&*self.random)?);
        let sealed = envelope::seal(&self.keys, &*self.random, kind, &file, body)?;
        self.storage.put(&file, &sealed)?;
        Ok(file)
    }

    /// Fails with `Swept` if a sweep has begun that may delete this archive.
    pub(crate) fn check_not_doomed(&self, archive: &SnapshotName) -> Result<()> {
        let folder = Folder::list(&*self.storage)?;
        let swept = folder.newest_marker();
        if !self.is_named(&folder, archive, |number| number < swept)? {
            return Ok(());
        }
        let what =
            format!("archive {archive} is being removed by `snapkeep prune`, which has begun");
        Err(Error::new(ErrorKind::Swept, what))
    }

    /// Whether any generation names an archive.
    pub(crate) fn is_condemned(&self, archive: &SnapshotName) -> Result<bool> {
        let folder = Folder::list(&*self.storage)?;
        self.is_named(&folder, archive, |_| true)
    }

    fn is_named(
        &self,
        folder: &Folder,
        archive: &SnapshotName,
        by: impl Fn(u32) -> bool,
    ) -> Result<bool> {
        for (file, _) in folder.generations.iter().filter(|(_, number)| by(*number)) {
            match read_generation(&*self.storage, &self.keys, file) {
                Ok(generation) if generation.archives.binary_search(archive).is_ok() => {
                    return Ok(true);
                }
                Ok(_) => {}
                // That sweep has ended.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }
}
