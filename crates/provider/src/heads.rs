//! What a backup announces of bitmaps with fixed names, before the guest is read.

use snapkeep_api::{ArchiveName, Level, Result, StorageId};
use snapkeep_repo::{HeadPlace, Repository, SnapshotName};

use crate::error;
use crate::provider::Shared;

/// An announced archive. From its head on, the archives before it are no base any more: should
/// this backup be killed, nobody knows what became of the bitmaps, and the disks are read again.
#[derive(Debug)]
pub(crate) struct Announced {
    place: HeadPlace,
    /// What the head before named, or why that cannot be told.
    previous: Result<Option<SnapshotName>, String>,
}

impl Announced {
    /// Writes a head that names the archive. Without it nothing may be read: the bitmaps would
    /// become relative to this archive while the head named another.
    pub(crate) fn new(shared: &Shared, storage: &StorageId, archive: &ArchiveName) -> Result<Self> {
        let failed = |e| {
            let what =
                format!("cannot announce archive {archive} to later backups of storage {storage}");
            error::repository(what, e)
        };
        let archive: SnapshotName = archive.as_str().parse().map_err(failed)?;
        let place = HeadPlace::new(&archive, storage.as_str()).map_err(failed)?;
        let previous = shared.repository.latest_head(&place).map_err(|e| e.chain());
        let announced = Self { place, previous };
        announced.put(shared, &archive).map_err(failed)?;
        Ok(announced)
    }

    /// What the bitmaps of fixed names are relative to, or why nothing is.
    pub(crate) fn base(&self) -> Result<&SnapshotName, String> {
        match &self.previous {
            Ok(Some(archive)) => Ok(archive),
            Ok(None) => Err("no earlier backup is known of this storage".to_owned()),
            Err(why) => Err(format!("its head cannot be read: {why}")),
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

    fn put(&self, shared: &Shared, archive: &SnapshotName) -> snapkeep_repo::Result<()> {
        let repository: &Repository = &shared.repository;
        let head = repository.put_head(&self.place, archive)?;
        if let Err(error) = repository.remove_heads_before(&self.place, &head) {
            let line = format!("cannot remove old heads: {}", error.chain());
            shared.log.log(Level::Warn, &line);
        }
        Ok(())
    }
}
