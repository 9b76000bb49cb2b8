//! A tree in memory, which may be damaged.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_api::tree::{
    Attributes, Entry, EntryKind, Name, Place, TreeNode, TreePath, TreeReader, TreeTotals,
};
use snapkeep_api::{Error, ErrorKind, Region, Result, VolumeReader};
use snapkeep_mount::Node;

/// An entry, and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    /// A file's data.
    pub(crate) runs: Runs,
    pub(crate) children: BTreeMap<Name, Arc<Item>>,
    pub(crate) state: State,
}

/// What happens when an item is read or listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    Whole,
    Damaged,
    Panics,
}

pub(crate) fn name(text: impl AsRef<[u8]>) -> Name {
    Name::new(text.as_ref()).unwrap()
}

impl Item {
    pub(crate) fn new(kind: EntryKind) -> Self {
        let attributes = Attributes {
            permissions: 0o755,
            ..Attributes::default()
        };
        Self {
            entry: Entry { attributes, kind },
            runs: Runs::default(),
            children: BTreeMap::new(),
            state: State::Whole,
        }
    }

    pub(crate) fn file(content: &[u8]) -> Self {
        let size = content.len() as u64;
        let runs = (size > 0).then(|| (0, content.to_vec()));
        Self::sparse(size, Runs(runs.into_iter().collect()))
    }

    pub(crate) fn sparse(size: u64, runs: Runs) -> Self {
        Self {
            runs,
            ..Self::new(EntryKind::File { size, links: 1 })
        }
    }

    pub(crate) fn folder(children: impl IntoIterator<Item = (Name, Item)>) -> Self {
        let children = children.into_iter();
        Self {
            children: children.map(|(n, item)| (n, Arc::new(item))).collect(),
            ..Self::new(EntryKind::Directory)
        }
    }

    pub(crate) fn link(to: &str) -> Self {
        let to = TreePath::new(to).unwrap();
        Self::new(EntryKind::HardLink { to })
    }

    pub(crate) fn in_state(self, state: State) -> Self {
        Self { state, ..self }
    }

    fn check(&self) -> Result<()> {
        match self.state {
            State::Whole => Ok(()),
            State::Damaged => Err(Error::new(ErrorKind::Corrupt, "a chunk is damaged")),
            State::Panics => panic!("as the test wants it"),
        }
    }
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
        directory.check()?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = directory.children.range((after, Bound::Unbounded));
        let found = found
            .take(max)
            .map(|(name, item)| (name.clone(), node(item)));
        Ok(found.collect())
    }

    fn lookup(&self, directory: &TreeNode, name: &Name) -> Result<Option<TreeNode>> {
        let directory = item(directory);
        directory.check()?;
        Ok(directory.children.get(name).map(node))
    }

    fn read_at(&self, file: &TreeNode, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = item(file);
        file.check()?;
        file.runs.read_at(offset, buffer);
        Ok(())
    }

    fn next_data(&self, file: &TreeNode, offset: u64) -> Result<Option<Region>> {
        let file = item(file);
        file.check()?;
        file.runs.next(offset)
    }
}

/// Runs of data, with holes between them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(pub(crate) Vec<(u64, Vec<u8>)>);

impl Runs {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        for (at, data) in &self.0 {
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
    }

    fn next(&self, offset: u64) -> Result<Option<Region>> {
        let ends = |(at, data): &&(u64, Vec<u8>)| at + data.len() as u64 > offset;
        let region = self.0.iter().find(ends).map(|(at, data)| {
            let begin = offset.max(*at);
            Region::new(begin, at + data.len() as u64 - begin)
        });
        region.transpose()
    }

    /// The whole of it.
    pub(crate) fn bytes(&self, size: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        self.read_at(0, &mut bytes);
        bytes
    }
}

/// A virtual machine's disk.
pub(crate) struct MemoryVolume(pub(crate) u64, pub(crate) Runs);

impl VolumeReader for MemoryVolume {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.1.read_at(offset, buffer);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        self.1.next(offset)
    }
}
