//! Whether a disk of an archive is whole, as far as that can be told without reading the disk.

use std::sync::PoisonError;

use crate::Result;
use crate::format::id::ChunkId;
use crate::format::snapshot::DiskRecord;
use crate::map;
use crate::repository::Repository;

impl Repository {
    /// Fails with what a disk lacks. Every node above the lowest is read and proven; the lowest
    /// must be in a pack that is there, with its full length. Only if the index knows of packs
    /// that are not there, the lowest nodes are read too, and each chunk must be in a pack.
    ///
    /// A chunk whose bytes were changed in place is not noticed: that takes reading it, which is
    /// what [`verify`](crate::verify()) does.
    pub fn check_whole(&self, disk: &DiskRecord) -> Result<()> {
        let index = || self.index.read().unwrap_or_else(PoisonError::into_inner);
        let there = |id: &ChunkId| {
            let index = index();
            index.find(id).map(drop).ok_or_else(|| index.absent(id))
        };
        let packs_are_missing = index().missing_packs() > 0;
        let levels = map::levels(disk.size, disk.chunk_size);
        let mut nodes: Vec<(u32, ChunkId)> = disk.root.map(|id| (levels, id)).into_iter().collect();
        while let Some((level, id)) = nodes.pop() {
            if level == 1 && levels > 1 && !packs_are_missing {
                there(&id)?;
                continue;
            }
            let children = self.read_node(&id)?;
            let mut children = children.iter().flatten();
            if level > 1 {
                nodes.extend(children.map(|child| (level - 1, *child)));
            } else {
                children.try_for_each(there)?;
            }
        }
        Ok(())
    }
}
