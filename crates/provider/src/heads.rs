//! What a backup announces of bitmaps with fixed names, before the guest is read.

use snapkeep_api::{ArchiveName, Error, Level, Result};
use snapkeep_repo::{HeadPlace, Repository, SnapshotName};

use crate::error;
use crate::memory::BitmapStorage;
use crate::provider::Shared;

/// An announced archive. From its head on, the archives before it are no base any more: should
/// this backup be killed, nobody knows what became of the bitmaps, and the disks are read again.
#[derive(Debug)]
pub(crate) struct Announced {
    storage: BitmapStorage,
    place: HeadPlace,
    /// What the head before named, or why that cannot be told.
    previous: Result<Option<SnapshotName>, String>,
}

impl Announced {
    /// Writes a head that names the archive. Without it nothing may be read: the bitmaps would
    /// become relative to this archive while the head named another.
    pub(crate) fn new(
        shared: &Shared,
        storage: &BitmapStorage,
        archive: &ArchiveName,
    ) -> Result<Self> {
        let id = &storage.id;
        let what = format!("cannot announce archive {archive} to later backups of storage {id}");
        let failed = |e| error::repository(what.clone(), e);
        let archive: SnapshotName = archive.as_str().parse().map_err(failed)?;
        let place = HeadPlace::new(&archive, id.as_str()).map_err(failed)?;
        let previous = previous(shared, storage, &place);
        let announced = Self {
            storage: storage.clone(),
            place,
            previous,
        };
        announced
            .put(shared, &archive)
            .map_err(|e| Error::with_source(e.kind(), what.clone(), e))?;
        Ok(announced)
    }

    /// What the bitmaps of fixed names are relative to, or why nothing is.
    pub(crate) fn base(&self) -> Result<&SnapshotName, String> {
        match &self.previous {
            Ok(Some(archive)) => Ok(archive),
            Ok(None) => Err("no earlier backup is known of this storage".to_owned()),
            Err(why) => Err(why.clone()),
        }
    }

    /// After a backup that failed in good order: its caller has kept the bitmaps, so they are
    /// relative to what they were relative to before.
    pub(crate) fn take_back(&self, shared: &Shared) {
        if let Ok(Some(archive)) = &self.previous
            && let Err(error) = self.put(shared, archive)
        {
            let line = format!(
                "the next backup will read the whole disks: {}",
                error.chain()
            );
            shared.log.log(Level::Warn, &line);
        }
    }

    fn put(&self, shared: &Shared, archive: &SnapshotName) -> Result<()> {
        let repository: &Repository = &shared.repository;
        let head = (repository.put_head(&self.place, archive))
            .map_err(|e| error::repository("cannot write a head", e))?;
        (self.storage.memory).remember(self.place.as_str(), &head.to_string())?;
        if let Err(error) = repository.remove_heads_before(&self.place, &head) {
            let line = format!("cannot remove old heads: {}", error.chain());
            shared.log.log(Level::Warn, &line);
        }
        Ok(())
    }
}

/// The archive of the newest head, if that is the one that is remembered.
fn previous(
    shared: &Shared,
    storage: &BitmapStorage,
    place: &HeadPlace,
) -> Result<Option<SnapshotName>, String> {
    let newest = (shared.repository.latest_head(place))
        .map_err(|e| format!("its head cannot be read: {}", e.chain()))?;
    let remembered = (storage.memory.remembered(place.as_str())).map_err(|e| {
        format!(
            "what is remembered of its head cannot be read: {}",
            e.chain()
        )
    })?;
    match (newest, remembered) {
        (None, None) => Ok(None),
        (Some((head, archive)), Some(remembered)) if head.to_string() == remembered => {
            Ok(Some(archive))
        }
        (Some(_), None) => Err("no backup of this guest is remembered here".to_owned()),
        (newest, Some(remembered)) => {
            let found = newest.map_or("none".to_owned(), |(head, _)| head.to_string());
            let line = format!(
                "the newest head of this guest is {found}, but {remembered} is remembered: the \
                 repository was put back from another time or replaced, somebody else backs the \
                 guest up to it by this storage, or a backup was killed as it began"
            );
            shared.log.log(Level::Warn, &line);
            Err("its head is not the one that is remembered".to_owned())
        }
    }
}
