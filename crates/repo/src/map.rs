//! Disk maps: Merkle trees with a fixed fan-out over a disk's chunks. A change writes the lowest
//! nodes it touches and their path to the root.

use std::collections::BTreeMap;
use std::iter::Peekable;

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

/// The root of a map in which these lowest nodes differ from a base (`None`: all zeroes). Each
/// node of the base above them is read once.
pub fn update_map(
    repository: &Repository,
    worker: &mut Worker<'_>,
    size: u64,
    chunk_size: u32,
    base: Option<ChunkId>,
    leaves: BTreeMap<u64, Option<ChunkId>>,
) -> Result<Option<ChunkId>> {
    let level = levels(size, chunk_size) - 1;
    let mut leaves = leaves.into_iter().peekable();
    update_node(repository, worker, base, level, 0, &mut leaves)
}

/// The node with this number, `level` above the lowest, with what is below it.
fn update_node(
    repository: &Repository,
    worker: &mut Worker<'_>,
    base: Option<ChunkId>,
    level: u32,
    number: u64,
    leaves: &mut Peekable<impl Iterator<Item = (u64, Option<ChunkId>)>>,
) -> Result<Option<ChunkId>> {
    let below = |leaf: u64| leaf / span(level) == number;
    let Some(mut leaf) = leaves.peek().map(|(leaf, _)| *leaf).filter(|l| below(*l)) else {
        return Ok(base);
    };
    if level == 0 {
        return Ok(leaves.next().and_then(|(_, id)| id));
    }
    let mut children = match base {
        Some(id) => repository.read_node(&id)?,
        None => [None; FAN_OUT],
    };
    loop {
        let place = child(leaf, level - 1);
        let number = leaf / span(level - 1);
        let old = children[place];
        children[place] = update_node(repository, worker, old, level - 1, number, leaves)?;
        match leaves.peek() {
            Some((next, _)) if below(*next) => leaf = *next,
            _ => return worker.store_node(&children),
        }
    }
}
