//! Disk maps: a node's children are copied, then the node is written with their identities.

use super::One;
use crate::format::id::ChunkId;
use crate::format::node::{self, Children, FAN_OUT};
use crate::format::pack::Class;
use crate::format::snapshot::DiskRecord;
use crate::reader::decode_node;
use crate::{Error, Result, map};

/// A node of the source's base, and what the target has of it.
type Old = Option<(ChunkId, ChunkId)>;

impl One<'_> {
    /// Copies a disk; the root of its map.
    pub(super) fn disk(
        &self,
        disk: &DiskRecord,
        base: Option<(&DiskRecord, &DiskRecord)>,
    ) -> Result<Option<ChunkId>> {
        let levels = map::levels(disk.size, disk.chunk_size);
        // Children have the same places only in maps of the same shape.
        let alike = |other: &DiskRecord| {
            other.chunk_size == disk.chunk_size
                && map::levels(other.size, other.chunk_size) == levels
        };
        let old = base.filter(|(source, target)| alike(source) && alike(target));
        let old = old.and_then(|(source, target)| Some((source.root?, target.root?)));
        disk.root
            .map(|root| self.node(root, levels - 1, old))
            .transpose()
    }

    /// Copies a node that is `level` above the lowest, with what is below it.
    fn node(&self, id: ChunkId, level: u32, old: Old) -> Result<ChunkId> {
        if let Some((source, target)) = old
            && source == id
        {
            return Ok(target);
        }
        // Of the same level, for one that is not would not fit anywhere.
        if let Some(there) = self.known(&id) {
            return Ok(there);
        }
        let children = decode_node(&id, &self.read(Class::Metadata, &id)?)?;
        let old = self.old(old)?;
        let mut made: Children = [None; FAN_OUT];
        if level == 0 {
            let changed = (children.iter().zip(&old)).filter_map(|(id, old)| {
                Some((*id)?).filter(|id| old.is_none_or(|old| old.0 != *id))
            });
            self.chunks(changed)?;
        }
        for ((made, id), old) in made.iter_mut().zip(children).zip(old) {
            *made = match (id, old) {
                (None, _) => None,
                (Some(id), Some((source, target))) if source == id => Some(target),
                (Some(id), _) if level == 0 => Some(self.chunk(&id)?),
                (Some(id), old) => Some(self.node(id, level - 1, old)?),
            };
        }
        let there = self.store(Class::Metadata, &node::encode(&made))?;
        self.learn(id, there);
        Ok(there)
    }

    /// The children of a node of the base, of both repositories.
    fn old(&self, old: Old) -> Result<[Old; FAN_OUT]> {
        let mut pairs = [None; FAN_OUT];
        let Some((source, target)) = old else {
            return Ok(pairs);
        };
        let there = decode_node(&target, &self.target.read_chunk(Class::Metadata, &target)?)?;
        let here = decode_node(&source, &self.read(Class::Metadata, &source)?)?;
        for ((pair, here), there) in pairs.iter_mut().zip(here).zip(there) {
            *pair = match (here, there) {
                (Some(here), Some(there)) => Some((here, there)),
                (None, None) => None,
                _ => {
                    let what = format!("map node {target} is no copy of node {source}");
                    return Err(Error::corrupt(what));
                }
            };
        }
        Ok(pairs)
    }
}
