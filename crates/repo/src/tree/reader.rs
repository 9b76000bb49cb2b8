//! Reads a directory tree of a snapshot, at any place, by several threads.

use std::sync::Arc;

use super::cache::Cache;
use super::check::check_extents;
use super::{Content, Extent, NodeKind, Place, TreeDirectory, TreeFile, TreeNode, TreeRecord};
use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::format::tree::Role;
use crate::format::tree::entry::{self, DirectoryNode, Items};
use crate::format::tree::extent::{self, ExtentNode};
use crate::format::tree::witness::{self, WitnessNode};
use crate::repository::Repository;
use crate::{Error, ErrorKind, Result, limits};

/// A directory tree of a snapshot. Everything that is read is proven, and refused as `Corrupt`
/// with its name if it is not what a writer makes.
#[derive(Debug)]
pub struct TreeReader {
    pub(super) repository: Arc<Repository>,
    pub(super) record: TreeRecord,
    root: TreeNode,
    directories: Cache<DirectoryNode>,
    extents: Cache<ExtentNode>,
    witnesses: Cache<WitnessNode>,
    chunks: Cache<Vec<u8>>,
}

/// A leaf of a directory, and the first name behind it.
type Leaf = (Arc<DirectoryNode>, Option<Vec<u8>>);

impl TreeReader {
    /// Opens a tree.
    pub fn open(repository: Arc<Repository>, record: &TreeRecord) -> Result<Self> {
        let body = repository.read_chunk(Class::Metadata, &record.root)?;
        let corrupt = |why| Role::Directory.corrupt(&record.root, why);
        let first = entry::decode(&body, true).map_err(corrupt)?;
        let Items::Entries(entries) = first.items else {
            return Err(corrupt("is not that of a tree's root"));
        };
        let root = (entries.into_iter().next())
            .filter(|root| matches!(root.kind, NodeKind::Directory(_)))
            .ok_or_else(|| corrupt("has a root that is no directory"))?;
        let root = handed_out(&root, 0, record.root);
        let nodes = (limits::TREE_CACHE_NODES, limits::TREE_CACHE_NODE_BYTES);
        let chunks = (limits::TREE_CACHE_CHUNKS, limits::TREE_CACHE_CHUNK_BYTES);
        Ok(Self {
            repository,
            record: record.clone(),
            root,
            directories: Cache::new(nodes.0, nodes.1),
            extents: Cache::new(nodes.0, nodes.1),
            witnesses: Cache::new(nodes.0, nodes.1),
            chunks: Cache::new(chunks.0, chunks.1),
        })
    }

    /// The root, whose name is empty.
    pub fn root(&self) -> &TreeNode {
        &self.root
    }

    /// What the snapshot says of the tree.
    pub fn record(&self) -> &TreeRecord {
        &self.record
    }

    /// The entries of a directory behind this name, or from the first, in order of names; at most
    /// so many. No more come if they are fewer.
    pub fn list(
        &self,
        directory: &TreeDirectory,
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Vec<TreeNode>> {
        let mut found = Vec::new();
        let mut from = after.unwrap_or_default().to_owned();
        while found.len() < max {
            let Some((leaf, next)) = self.leaf(directory, &from)? else {
                break;
            };
            let first = entries(&leaf).partition_point(|e| after.is_some_and(|a| &e.name[..] <= a));
            let wanted = entries(&leaf)[first..].iter().take(max - found.len());
            found.extend(wanted.map(|e| handed_out(e, directory.depth + 1, directory.origin)));
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(found)
    }

    /// The entry of a directory that has this name.
    pub fn lookup(&self, directory: &TreeDirectory, name: &[u8]) -> Result<Option<TreeNode>> {
        let Some((leaf, _)) = self.leaf(directory, name)? else {
            return Ok(None);
        };
        let entries = entries(&leaf);
        let place = entries.binary_search_by(|entry| entry.name[..].cmp(name));
        Ok(place
            .ok()
            .map(|place| handed_out(&entries[place], directory.depth + 1, directory.origin)))
    }

    /// The node of level 0 where this name is or would be.
    fn leaf(&self, directory: &TreeDirectory, name: &[u8]) -> Result<Option<Leaf>> {
        let Some(mut node) = self.first_node(directory)? else {
            return Ok(None);
        };
        let mut next = None;
        while let Items::Children(children) = &node.items {
            let number = children.partition_point(|(first, _)| &first[..] <= name);
            let number = number.saturating_sub(1);
            if let Some((behind, _)) = children.get(number + 1) {
                next = Some(behind.clone());
            }
            node = self.child(&node, number, next.as_deref())?;
        }
        Ok(Some((node, next)))
    }

    /// The node that a directory's entry names; `None` if the directory is empty.
    pub(super) fn first_node(
        &self,
        directory: &TreeDirectory,
    ) -> Result<Option<Arc<DirectoryNode>>> {
        let corrupt = |why: &str| Err(Role::Directory.corrupt(&directory.origin, why));
        if directory.depth >= limits::TREE_DEPTH_MAX && directory.place != Place::Nowhere {
            return corrupt("has deeper entries than are allowed");
        }
        match &directory.place {
            Place::Nowhere => Ok(None),
            Place::Node(id) => self.directory_node(id).map(Some),
            Place::Inline(body) => inline_node(body, &directory.origin).map(Some),
        }
    }

    pub(super) fn directory_node(&self, id: &ChunkId) -> Result<Arc<DirectoryNode>> {
        self.directories.get(id, || {
            let body = self.repository.read_chunk(Class::Metadata, id)?;
            let node = entry::decode(&body, false);
            Ok((
                node.map_err(|why| Role::Directory.corrupt(id, why))?,
                body.len(),
            ))
        })
    }

    pub(super) fn witness_node(&self, id: &ChunkId) -> Result<Arc<WitnessNode>> {
        self.witnesses.get(id, || {
            let body = self.repository.read_chunk(Class::Metadata, id)?;
            let node = witness::decode(&body);
            Ok((
                node.map_err(|why| Role::Witness.corrupt(id, why))?,
                body.len(),
            ))
        })
    }

    /// A node below another one, that ends before this name.
    pub(super) fn child(
        &self,
        node: &DirectoryNode,
        number: usize,
        next: Option<&[u8]>,
    ) -> Result<Arc<DirectoryNode>> {
        let Items::Children(children) = &node.items else {
            unreachable!("a node of level 0 has no children");
        };
        let (first, id) = &children[number];
        let child = self.directory_node(id)?;
        check_child(node.level, first, next, &child)
            .map_err(|why| Role::Directory.corrupt(id, why))?;
        Ok(child)
    }

    /// Fills the buffer from this offset of a file; an error of kind `Invalid` past its end.
    pub fn read_at(&self, file: &TreeFile, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > file.size) {
            let what = format!(
                "cannot read {} bytes at offset {offset} of a file of {}",
                buffer.len(),
                file.size
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let mut done = 0;
        while done < buffer.len() {
            let position = offset + done as u64;
            let left = &mut buffer[done..];
            let Some(extent) = self.extent(file, position)? else {
                left.fill(0);
                break;
            };
            let hole = extent.offset.saturating_sub(position);
            let hole = usize::try_from(hole).unwrap_or(usize::MAX).min(left.len());
            let (zeroes, left) = left.split_at_mut(hole);
            zeroes.fill(0);
            done += hole;
            if left.is_empty() {
                break;
            }
            let skip = (position + hole as u64) - extent.offset;
            let skip = usize::try_from(skip).expect("an extent fits in memory");
            let take = (extent.length as usize - skip).min(left.len());
            self.read_extent(&extent, skip, &mut left[..take])?;
            done += take;
        }
        Ok(())
    }

    /// Reads a part of an extent that is not empty.
    fn read_extent(&self, extent: &Extent, skip: usize, target: &mut [u8]) -> Result<()> {
        let id = &extent.chunk;
        if skip == 0 && extent.within == 0 && target.len() == extent.length as usize {
            // What is read whole is rarely read again soon.
            let place = self.repository.find(id)?;
            if place.plain == extent.length {
                return self.repository.read_chunk_to(Class::Data, id, target);
            }
        }
        let chunk = self.chunks.get(id, || {
            let chunk = self.repository.read_chunk(Class::Data, id)?;
            let length = chunk.len();
            Ok((chunk, length))
        })?;
        let from = extent.within as usize + skip;
        let Some(found) = chunk.get(from..from + target.len()) else {
            let what = format!("chunk {id} is shorter than a file that lies in it");
            return Err(Error::corrupt(what));
        };
        target.copy_from_slice(found);
        Ok(())
    }

    /// The next run of data of a file at or after this offset, as offset and length; it ends at a
    /// hole or earlier.
    pub fn next_data(&self, file: &TreeFile, offset: u64) -> Result<Option<(u64, u64)>> {
        let extent = self.extent(file, offset)?;
        Ok(extent.map(|extent| {
            let from = extent.offset.max(offset);
            (from, extent.end() - from)
        }))
    }

    /// The first extent that ends behind this offset.
    fn extent(&self, file: &TreeFile, offset: u64) -> Result<Option<Extent>> {
        let root = match &file.content {
            Content::Extents(extents) => return Ok(find(extents, offset)),
            Content::Node(id) => id,
        };
        let mut offset = offset;
        loop {
            let mut node = self.extent_node(root)?;
            let (mut id, mut from, mut to) = (*root, 0, file.size);
            let mut more = false;
            while let extent::Items::Children(children) = &node.items {
                let number = children.partition_point(|(first, _)| *first <= offset);
                let number = number.saturating_sub(1);
                let (first, child) = children[number];
                (id, from) = (child, first);
                if let Some((next, _)) = children.get(number + 1) {
                    (to, more) = (to.min(*next), true);
                }
                let below = self.extent_node(&id)?;
                if !below.is_below(node.level, first) {
                    return Err(Role::Extents.corrupt(&id, "is not the one that belongs there"));
                }
                node = below;
            }
            if let extent::Items::Extents(extents) = &node.items {
                check_extents(extents, from, to).map_err(|why| Role::Extents.corrupt(&id, why))?;
                match find(extents, offset) {
                    // It may be in the node behind this one.
                    None if more && offset < to => offset = to,
                    found => return Ok(found),
                }
            }
        }
    }

    fn extent_node(&self, id: &ChunkId) -> Result<Arc<ExtentNode>> {
        self.extents.get(id, || {
            let body = self.repository.read_chunk(Class::Metadata, id)?;
            let node = extent::decode(&body);
            Ok((
                node.map_err(|why| Role::Extents.corrupt(id, why))?,
                body.len(),
            ))
        })
    }

    /// Whether everything that a file's content needs is in the repository for a new archive to
    /// rely on, as far as the index tells: false if a node of it is damaged.
    pub fn is_present(&self, file: &TreeFile) -> Result<bool> {
        let root = match &file.content {
            Content::Extents(extents) => return self.all_present(extents),
            Content::Node(id) => id,
        };
        // A node, the level above it if there is one, its first offset and that of the next.
        let mut todo = vec![(*root, None, 0, file.size)];
        while let Some((id, above, from, to)) = todo.pop() {
            let node = match self.extent_node(&id) {
                Ok(node) => node,
                Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                    return Ok(false);
                }
                Err(e) => return Err(e),
            };
            if above.is_some_and(|level| !node.is_below(level, from)) {
                return Ok(false);
            }
            match &node.items {
                extent::Items::Extents(extents) => {
                    let proper = check_extents(extents, from, to).is_ok();
                    if !proper || !self.all_present(extents)? {
                        return Ok(false);
                    }
                }
                extent::Items::Children(children) => {
                    let mut behind = to;
                    for (first, child) in children.iter().rev() {
                        todo.push((*child, Some(node.level), *first, behind));
                        behind = *first;
                    }
                }
            }
        }
        Ok(true)
    }

    fn all_present(&self, extents: &[Extent]) -> Result<bool> {
        for extent in extents {
            match self.repository.home(&extent.chunk) {
                Ok(place) if u64::from(place.plain) >= end_in_chunk(extent) => {}
                Ok(_) => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Corrupt => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

/// Where an extent ends in its chunk.
pub(crate) fn end_in_chunk(extent: &Extent) -> u64 {
    u64::from(extent.within) + u64::from(extent.length)
}

/// The first extent that ends behind this offset.
fn find(extents: &[Extent], offset: u64) -> Option<Extent> {
    let number = extents.partition_point(|extent| extent.end() <= offset);
    extents.get(number).copied()
}

/// A directory's node that lies in an entry of this one.
pub(super) fn inline_node(body: &[u8], origin: &ChunkId) -> Result<Arc<DirectoryNode>> {
    let corrupt = |why: &str| Err(Role::Directory.corrupt(origin, why));
    match entry::decode(body, false) {
        Ok(node) if node.level == 0 => Ok(Arc::new(node)),
        Ok(_) => corrupt("has a directory of several levels in an entry"),
        Err(why) => corrupt(&format!("has a directory in an entry that {why}")),
    }
}

/// The entries of a node of level 0.
pub(super) fn entries(node: &DirectoryNode) -> &[TreeNode] {
    match &node.items {
        Items::Entries(entries) => entries,
        Items::Children(_) => &[],
    }
}

/// An entry as a caller gets it, who knows from it how deep it is and where it was found.
pub(super) fn handed_out(entry: &TreeNode, depth: usize, origin: ChunkId) -> TreeNode {
    let mut entry = entry.clone();
    if let NodeKind::Directory(directory) = &mut entry.kind {
        directory.depth = depth;
        directory.origin = match directory.place {
            Place::Node(id) => id,
            Place::Inline(_) | Place::Nowhere => origin,
        };
    }
    entry
}

/// Fails unless a node is what the one above, of this level, says of it: of the next lower level,
/// from this name on, and before this one.
pub(crate) fn check_child(
    level: u8,
    first: &[u8],
    next: Option<&[u8]>,
    child: &DirectoryNode,
) -> Result<(), &'static str> {
    if child.level + 1 != level {
        return Err("is of another level than the node above it says");
    }
    if child.first() != first || next.is_some_and(|next| child.last() >= next) {
        return Err("has other names than the node above it says");
    }
    Ok(())
}
