//! A tree in memory, which may be damaged.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_api::tree::{Entry, Name, Place, TreeNode, TreeReader, TreeTotals};
use snapkeep_api::{Region, Result};
use snapkeep_mount::Node;

/// An entry, and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    /// Runs of a file's data.
    pub(crate) runs: Vec<(u64, Vec<u8>)>,
    pub(crate) children: BTreeMap<Name, Arc<Item>>,
}

pub(crate) fn name(text: impl AsRef<[u8]>) -> Name {
    Name::new(text.as_ref()).unwrap()
}

/// The tree with this root.
pub(crate) struct MemoryTree(pub(crate) Arc<Item>);

/// A tree to mount.
pub(crate) fn tree(root: Item) -> Node {
    Node::Tree(Arc::new(MemoryTree(Arc::new(root))))
}

fn node(item: &Arc<Item>) -> TreeNode {
    TreeNode {
        entry: item.entry.clone(),
        identity: None,
        place: Place::new(Arc::clone(item)),
    }
}

fn item(node: &TreeNode) -> &Item {
    node.place.get::<Arc<Item>>().unwrap()
}

impl TreeReader for MemoryTree {
    fn root(&self) -> Result<TreeNode> {
        Ok(node(&self.0))
    }

    fn totals(&self) -> TreeTotals {
        TreeTotals {
            entries: 1234,
            bytes: 5678,
        }
    }

    fn list(
        &self,
        directory: &TreeNode,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, TreeNode)>> {
        use std::ops::Bound;
        let directory = item(directory);
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = directory.children.range((after, Bound::Unbounded));
        let found = found
            .take(max)
            .map(|(name, item)| (name.clone(), node(item)));
        Ok(found.collect())
    }

    fn lookup(&self, directory: &TreeNode, name: &Name) -> Result<Option<TreeNode>> {
        let directory = item(directory);
        Ok(directory.children.get(name).map(node))
    }

    fn read_at(&self, file: &TreeNode, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = item(file);
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        for (at, data) in &file.runs {
            let data_end = at + data.len() as u64;
            let (from, to) = (offset.max(*at), end.min(data_end));
            if from < to {
                let range = |base: u64| {
                    let index = |at| usize::try_from(at - base).unwrap();
                    index(from)..index(to)
                };
                buffer[range(offset)].copy_from_slice(&data[range(*at)]);
            }
        }
        Ok(())
    }

    fn next_data(&self, file: &TreeNode, offset: u64) -> Result<Option<Region>> {
        let file = item(file);
        let ends = |(at, data): &&(u64, Vec<u8>)| at + data.len() as u64 > offset;
        let run = file.runs.iter().find(ends);
        let region = run.map(|(at, data)| {
            let begin = offset.max(*at);
            Region::new(begin, at + data.len() as u64 - begin)
        });
        region.transpose()
    }
}
