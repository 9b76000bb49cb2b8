//! Reading a file tree in memory.

use std::ops::Bound;
use std::sync::Arc;

use super::index;
use super::tree::{MemoryNode, MemoryTree};
use crate::tree::{EntryKind, Name, Place, TreeNode, TreeReader, TreeTotals};
use crate::{Error, ErrorKind, Region, Result};

impl TreeReader for MemoryTree {
    fn root(&self) -> Result<TreeNode> {
        Ok(node(self.shared_root()))
    }

    fn totals(&self) -> TreeTotals {
        Self::totals(self)
    }

    fn list(
        &self,
        directory: &TreeNode,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, TreeNode)>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let children = &folder(directory)?.children;
        let children = children.range::<Name, _>((from, Bound::Unbounded));
        let listed = children.map(|(name, child)| (name.clone(), node(child)));
        Ok(listed.take(max).collect())
    }

    fn lookup(&self, directory: &TreeNode, name: &Name) -> Result<Option<TreeNode>> {
        Ok(folder(directory)?.children.get(name).map(node))
    }

    fn read_at(&self, file: &TreeNode, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = content(file)?;
        let end = offset.checked_add(buffer.len() as u64);
        let end = end.filter(|end| *end <= file.size());
        let end = end.ok_or_else(|| protocol("a read passes the end of the file"))?;
        buffer.fill(0);
        // The last run that begins before the read, and those that begin in it.
        let first = file.data.range(..=offset).next_back();
        let first = first.map_or(offset, |(start, _)| *start);
        for (start, run) in file.data.range(first..end) {
            let (from, to) = ((*start).max(offset), (start + run.len() as u64).min(end));
            if from < to {
                let bytes = &run[index(from - start)..index(to - start)];
                buffer[index(from - offset)..index(to - offset)].copy_from_slice(bytes);
            }
        }
        Ok(())
    }

    fn next_data(&self, file: &TreeNode, offset: u64) -> Result<Option<Region>> {
        let data = &content(file)?.data;
        let mut runs = data
            .iter()
            .map(|(start, run)| (*start, start + run.len() as u64));
        let found = runs.find(|(_, end)| *end > offset);
        let region = found.map(|(start, end)| (start.max(offset), end));
        region
            .map(|(start, end)| Region::new(start, end - start))
            .transpose()
    }
}

fn node(node: &Arc<MemoryNode>) -> TreeNode {
    TreeNode {
        entry: node.entry.clone(),
        identity: None,
        place: Place::new(Arc::clone(node)),
    }
}

fn place(node: &TreeNode) -> Result<&MemoryNode> {
    let place = node.place.get::<Arc<MemoryNode>>();
    place
        .map(|node| &**node)
        .ok_or_else(|| protocol("the node is of another reader"))
}

fn folder(node: &TreeNode) -> Result<&MemoryNode> {
    let folder = place(node)?;
    if folder.entry.kind.is_directory() {
        Ok(folder)
    } else {
        Err(protocol("what is no folder has no entries"))
    }
}

fn content(node: &TreeNode) -> Result<&MemoryNode> {
    match node.entry.kind {
        EntryKind::File { .. } => place(node),
        EntryKind::Directory
        | EntryKind::Symlink { .. }
        | EntryKind::HardLink { .. }
        | EntryKind::Fifo
        | EntryKind::Socket
        | EntryKind::CharDevice(_)
        | EntryKind::BlockDevice(_) => Err(protocol("what is no file has no content")),
    }
}

fn protocol(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, what)
}
