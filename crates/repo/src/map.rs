//! Disk maps: Merkle trees with a fixed fan-out over a disk's chunks. A change writes the lowest
//! nodes it touches and their path to the root.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Result;
use crate::format::id::ChunkId;
use crate::format::node::{self, Children, FAN_OUT};
use crate::format::pack::Class;
use crate::reader::Leaf;
use crate::repository::Repository;
use crate::writer::Worker;

/// Children of each node of a disk map.
pub const MAP_FAN_OUT: usize = FAN_OUT;

/// Levels of the map of a disk: the least number, at least one, that reaches all chunks.
pub(crate) fn levels(size: u64, chunk_size: u32) -> u32 {
    let chunks = size.div_ceil(u64::from(chunk_size));
    // 64 to the power of 11 exceeds what 64 bits can count.
    (1..11).find(|level| chunks <= span(*level)).unwrap_or(11)
}

/// Chunks below one node that is `level` above the lowest (0 for the lowest).
pub(crate) fn span(level: u32) -> u64 {
    (FAN_OUT as u64).saturating_pow(level)
}

/// The identity of one lowest node.
pub(crate) fn leaf_id(
    root: Option<ChunkId>,
    levels: u32,
    leaf: u64,
    read: impl Fn(&ChunkId) -> Result<Arc<Children>>,
) -> Result<Option<ChunkId>> {
    let mut next = root;
    for level in (1..levels).rev() {
        let Some(id) = next else { return Ok(None) };
        next = read(&id)?[child(leaf, level - 1)];
    }
    Ok(next)
}

fn child(number: u64, level: u32) -> usize {
    usize::try_from(number / span(level) % FAN_OUT as u64).expect("a remainder is small")
}

impl Worker<'_> {
    /// Stores a lowest node; `None` if all its chunks are zeroes.
    pub fn store_leaf(&mut self, leaf: &Leaf) -> Result<Option<ChunkId>> {
        self.store_node(leaf)
    }

    fn store_node(&mut self, children: &Children) -> Result<Option<ChunkId>> {
        if children.iter().all(Option::is_none) {
            return Ok(None);
        }
        self.store(Class::Metadata, &node::encode(children))
            .map(|stored| Some(stored.id))
    }
}

/// The root of a map in which these lowest nodes differ from a base (`None`: all zeroes).
pub fn update_map(
    repository: &Repository,
    worker: &mut Worker<'_>,
    size: u64,
    chunk_size: u32,
    base: Option<ChunkId>,
    leaves: BTreeMap<u64, Option<ChunkId>>,
) -> Result<Option<ChunkId>> {
    let levels = levels(size, chunk_size);
    let mut changed = leaves;
    for level in 1..levels {
        let mut parents = BTreeMap::new();
        let mut rest = changed.into_iter().peekable();
        while let Some((number, id)) = rest.next() {
            let parent = number / FAN_OUT as u64;
            // The node that the base has in this place, `level` above the lowest.
            let old = ancestor(repository, base, levels, parent, level)?;
            let mut children = match old {
                Some(id) => repository.read_node(&id)?,
                None => [None; FAN_OUT],
            };
            children[child(number, 0)] = id;
            while let Some((number, id)) = rest.next_if(|(n, _)| n / FAN_OUT as u64 == parent) {
                children[child(number, 0)] = id;
            }
            parents.insert(parent, worker.store_node(&children)?);
        }
        changed = parents;
    }
    Ok(changed.remove(&0).unwrap_or(base))
}

/// The identity of a base's node: the one with this number, `level` above the lowest.
fn ancestor(
    repository: &Repository,
    root: Option<ChunkId>,
    levels: u32,
    number: u64,
    level: u32,
) -> Result<Option<ChunkId>> {
    leaf_id(root, levels - level, number, |id| {
        repository.read_node(id).map(Arc::new)
    })
}
