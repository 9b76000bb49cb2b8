//! The folder `prune/`, as everybody reads it.

use std::collections::{BTreeSet, HashSet};

use crate::format::envelope::{self, Kind};
use crate::format::id::PackId;
use crate::format::prune::{Generation, PruneFile, Survivors};
use crate::format::snapshot::SnapshotName;
use crate::keys::Keys;
use crate::repository::Repository;
use crate::storage::{FileName, Storage, read_all};
use crate::{Error, ErrorKind, Result, limits};

/// Generations and markers, each with its number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folder {
    pub(crate) generations: Vec<(FileName, u32)>,
    pub(crate) markers: Vec<(FileName, u32)>,
    pub(crate) probes: Vec<FileName>,
}

impl Folder {
    pub(crate) fn list(storage: &dyn Storage) -> Result<Self> {
        let mut folder = Self::default();
        let mut files = 0;
        storage.list(&"prune".parse()?, &mut |file, _| {
            files += 1;
            if files > limits::PRUNE_FILES_MAX {
                let what = "the folder prune has more files than are allowed";
                return Err(Error::corrupt(what));
            }
            match PruneFile::parse(file) {
                Some(PruneFile::Generation(number)) => {
                    folder.generations.push((file.clone(), number));
                }
                Some(PruneFile::Marker(number)) => folder.markers.push((file.clone(), number)),
                Some(PruneFile::Probe) => folder.probes.push(file.clone()),
                None => {}
            }
            Ok(())
        })?;
        Ok(folder)
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
    pub(crate) condemned: HashSet<PackId>,
    /// Why it is not known what is condemned, if it is not.
    pub(crate) trouble: Option<Error>,
}

impl Seen {
    pub(crate) fn read(storage: &dyn Storage, keys: &Keys) -> Result<Self> {
        let folder = Folder::list(storage)?;
        let mut seen = Self {
            newest: folder.newest(),
            ..Self::default()
        };
        for (file, _) in &folder.generations {
            match read_generation(storage, keys, file) {
                Ok(generation) => seen.condemned.extend(generation.packs),
                // It was swept since, so its packs are gone.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => {
                    seen.trouble.get_or_insert(e);
                }
            }
        }
        seen.files = names(folder);
        Ok(seen)
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
    let sealed = read_all(storage, file, limits::SEALED_MAX)?;
    let body = envelope::open(keys, Kind::Generation, file, &sealed)?;
    Generation::decode(file, &body)
}

/// What a sweep's marker says.
pub(crate) struct Marker {
    pub(crate) number: u32,
    pub(crate) survivors: Survivors,
}

impl Repository {
    /// What the markers say that are there.
    pub(crate) fn markers(&self, folder: &Folder) -> Result<Vec<Marker>> {
        let mut markers = Vec::new();
        for (file, number) in &folder.markers {
            match self.marker(file) {
                Ok(survivors) => markers.push(Marker {
                    number: *number,
                    survivors,
                }),
                // A newer one is there, and says all that this one said.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(markers)
    }

    /// What all markers say: one that is replaced meanwhile is not passed over.
    pub(crate) fn all_markers(&self) -> Result<Vec<Marker>> {
        for _ in 0..limits::ATTRIBUTE_TRIES {
            let folder = Folder::list(&*self.storage)?;
            let markers = self.markers(&folder)?;
            if markers.len() == folder.markers.len() {
                return Ok(markers);
            }
        }
        let what = "the markers in the folder prune are replaced all the time; try again";
        Err(Error::new(ErrorKind::Io, what))
    }

    fn marker(&self, file: &FileName) -> Result<Survivors> {
        let sealed = read_all(&*self.storage, file, limits::SEALED_MAX)?;
        let body = envelope::open(&self.keys, Kind::Sweep, file, &sealed)?;
        Survivors::decode(file, &body)
    }

    /// Fails with `Swept` if a sweep has begun that may delete this archive.
    pub(crate) fn check_not_doomed(&self, archive: &SnapshotName) -> Result<()> {
        let folder = Folder::list(&*self.storage)?;
        let swept = folder.newest_marker();
        for (file, number) in &folder.generations {
            if *number >= swept {
                continue;
            }
            match read_generation(&*self.storage, &self.keys, file) {
                Ok(generation) if generation.archives.binary_search(archive).is_ok() => {
                    let what = format!(
                        "archive {archive} is being removed by `snapkeep prune`, which has begun"
                    );
                    return Err(Error::new(ErrorKind::Swept, what));
                }
                Ok(_) => {}
                // That sweep has ended.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
