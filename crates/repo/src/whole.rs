//! Whether a disk of an archive is whole, as far as that can be told without reading the disk.

use std::collections::HashSet;

use crate::Result;
use crate::format::id::ChunkId;
use crate::format::snapshot::DiskRecord;
use crate::map;
use crate::repository::Repository;

impl Repository {
    /// Fails with what a disk lacks. Every node of its map is read and proven, and each of its
    /// chunks must be in a pack that is there, with its full length. Nothing less will do: a pack
    /// that is lost together with the index objects that named it is missed by nobody else.
    ///
    /// A chunk whose bytes were changed in place is not noticed: that takes reading it, which is
    /// what [`verify`](crate::verify()) does.
    pub fn check_whole(&self, disk: &DiskRecord) -> Result<()> {
        let levels = map::levels(disk.size, disk.chunk_size);
        let mut nodes: Vec<(u32, ChunkId)> = disk.root.map(|id| (levels, id)).into_iter().collect();
        // The same node may be in many places of a disk.
        let mut seen = HashSet::new();
        while let Some((level, id)) = nodes.pop() {
            if !seen.insert((level, id)) {
                continue;
            }
            let children = self.read_node(&id)?;
            let mut children = children.iter().flatten();
            if level > 1 {
                nodes.extend(children.map(|child| (level - 1, *child)));
            } else {
                children.try_for_each(|id| self.find(id).map(drop))?;
            }
        }
        Ok(())
    }
}
