//! The proof of a directory tree: its nodes one after the other, with what they say of each other.

use std::sync::Arc;

use super::proof::Proof;
use crate::format::id::ChunkId;
use crate::format::tree::entry::{self, DirectoryNode, Items};
use crate::format::tree::{Role, extent, witness};
use crate::tree::{
    Content, Extent, NodeKind, Place, TreeNode, TreeRecord, check_child, check_extents,
    end_in_chunk,
};
use crate::{Error, Result, limits};

/// What is still to be proven. There are at most as many as the nodes on the way from the root
/// have items.
enum Todo {
    /// The first node of a directory that is so deep.
    Directory(ChunkId, usize),
    /// A directory's node that lies in the entry of this node.
    Inline(Arc<[u8]>, ChunkId, usize),
    /// A node below one of this level, from this name on and before that one.
    Part(ChunkId, u8, Vec<u8>, Option<Vec<u8>>, usize),
    /// An extent node below one of this level, from this offset on and before that one.
    Extents(ChunkId, Option<u8>, u64, u64),
}

impl Proof<'_> {
    /// Reads a tree's nodes, and has its chunks read.
    pub(super) fn tree(&mut self, record: &TreeRecord) -> Result<()> {
        let mut todo = Vec::new();
        if let Some(node) = self.directory_node(&record.root, true)?
            && let Items::Entries(entries) = node.items
        {
            for root in entries {
                if !matches!(root.kind, NodeKind::Directory(_)) {
                    let why = "has a root that is no directory";
                    return Err(Role::Directory.corrupt(&record.root, why));
                }
                self.entry(root, record.root, 0, &mut todo)?;
            }
        }
        while let Some(next) = todo.pop() {
            match next {
                Todo::Directory(id, depth) => {
                    if let Some(node) = self.directory_node(&id, false)? {
                        self.items(node, id, depth, None, &mut todo)?;
                    }
                }
                Todo::Inline(body, origin, depth) => {
                    let node = entry::decode(&body, false).and_then(|node| {
                        let why = "has several levels";
                        if node.level == 0 { Ok(node) } else { Err(why) }
                    });
                    let node = node.map_err(|why| {
                        let why = format!("has a directory in an entry that {why}");
                        Role::Directory.corrupt(&origin, &why)
                    })?;
                    self.items(node, origin, depth, None, &mut todo)?;
                }
                Todo::Part(id, level, first, behind, depth) => {
                    if let Some(node) = self.directory_node(&id, false)? {
                        check_child(level, &first, behind.as_deref(), &node)
                            .map_err(|why| Role::Directory.corrupt(&id, why))?;
                        self.items(node, id, depth, behind, &mut todo)?;
                    }
                }
                Todo::Extents(id, level, from, to) => {
                    self.extent_node(id, level, from, to, &mut todo)?;
                }
            }
        }
        Ok(())
    }

    /// A node's bytes; `None` if it is proven already.
    fn node(&mut self, id: &ChunkId) -> Result<Option<Vec<u8>>> {
        let place = self.repository.find(id)?;
        if self.proven.contains(&place) {
            return Ok(None);
        }
        let body = self.read_node(id)?;
        self.proven.insert(&place);
        self.nodes.push(place);
        Ok(Some(body))
    }

    fn directory_node(&mut self, id: &ChunkId, is_root: bool) -> Result<Option<DirectoryNode>> {
        let Some(body) = self.node(id)? else {
            return Ok(None);
        };
        let node = entry::decode(&body, is_root);
        node.map(Some)
            .map_err(|why| Role::Directory.corrupt(id, why))
    }

    /// Takes up what is below the items of a directory's node.
    fn items(
        &mut self,
        node: DirectoryNode,
        id: ChunkId,
        depth: usize,
        behind: Option<Vec<u8>>,
        todo: &mut Vec<Todo>,
    ) -> Result<()> {
        // Taken from the end: in the order in which they were stored.
        match node.items {
            Items::Entries(entries) => {
                if depth >= limits::TREE_DEPTH_MAX {
                    let why = "has deeper entries than are allowed";
                    return Err(Role::Directory.corrupt(&id, why));
                }
                let begun = todo.len();
                for entry in entries {
                    self.entry(entry, id, depth + 1, todo)?;
                }
                todo[begun..].reverse();
            }
            Items::Children(children) => {
                let mut behind = behind;
                for (first, child) in children.into_iter().rev() {
                    let next = behind.replace(first.clone());
                    todo.push(Todo::Part(child, node.level, first, next, depth));
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: TreeNode,
        origin: ChunkId,
        depth: usize,
        todo: &mut Vec<Todo>,
    ) -> Result<()> {
        match entry.kind {
            NodeKind::Directory(directory) => match directory.place {
                Place::Nowhere => {}
                Place::Inline(body) => todo.push(Todo::Inline(body, origin, depth)),
                Place::Node(id) => todo.push(Todo::Directory(id, depth)),
            },
            NodeKind::File(file) => match file.content {
                Content::Extents(extents) => self.extents(&extents)?,
                Content::Node(id) => todo.push(Todo::Extents(id, None, 0, file.size)),
            },
            NodeKind::Symlink { .. }
            | NodeKind::HardLink { .. }
            | NodeKind::Fifo
            | NodeKind::Socket
            | NodeKind::CharDevice { .. }
            | NodeKind::BlockDevice { .. } => {}
        }
        Ok(())
    }

    fn extents(&mut self, extents: &[Extent]) -> Result<()> {
        for extent in extents {
            let id = extent.chunk;
            let place = self.repository.find(&id)?;
            if u64::from(place.plain) < end_in_chunk(extent) {
                let what = format!("chunk {id} is shorter than a file that lies in it");
                return Err(Error::corrupt(what));
            }
            if !self.proven.contains(&place) {
                self.chunk(id, place)?;
            }
        }
        Ok(())
    }

    fn extent_node(
        &mut self,
        id: ChunkId,
        level: Option<u8>,
        from: u64,
        to: u64,
        todo: &mut Vec<Todo>,
    ) -> Result<()> {
        // Also if it is proven: another file that has it may be shorter.
        let place = self.repository.find(&id)?;
        let body = self.read_node(&id)?;
        if !self.proven.contains(&place) {
            self.proven.insert(&place);
            self.nodes.push(place);
        }
        let corrupt = |why| Role::Extents.corrupt(&id, why);
        let node = extent::decode(&body).map_err(corrupt)?;
        if level.is_some_and(|level| !node.is_below(level, from)) {
            return Err(corrupt("is not the one that belongs there"));
        }
        match node.items {
            extent::Items::Extents(extents) => {
                check_extents(&extents, from, to).map_err(corrupt)?;
                self.extents(&extents)
            }
            extent::Items::Children(children) => {
                let mut behind = to;
                for (first, child) in children.into_iter().rev() {
                    todo.push(Todo::Extents(child, Some(node.level), first, behind));
                    behind = first;
                }
                Ok(())
            }
        }
    }

    /// Reads the witness nodes of a tree that is whole. Without them the next backup only reads
    /// more.
    pub(super) fn witnesses(&mut self, record: &TreeRecord) -> Result<()> {
        let read = self.read_witnesses(record);
        if read.is_err() {
            // Another snapshot that shares them is to tell it too.
            self.nodes
                .iter()
                .for_each(|place| self.proven.remove(place));
        }
        self.nodes.clear();
        read.map_err(|error| {
            let what = "everything can be restored, but what the next backup compares with is \
                        damaged: it will read more";
            Error::with_source(error.kind(), what, error)
        })
    }

    fn read_witnesses(&mut self, record: &TreeRecord) -> Result<()> {
        let mut todo: Vec<_> = record.witness.map(Place::Node).into_iter().collect();
        let mut origin = record.root;
        while let Some(place) = todo.pop() {
            let node = match place {
                Place::Nowhere => continue,
                Place::Inline(body) => witness::decode(&body),
                Place::Node(id) => {
                    origin = id;
                    match self.node(&id)? {
                        None => continue,
                        Some(body) => witness::decode(&body),
                    }
                }
            };
            let node = node.map_err(|why| Role::Witness.corrupt(&origin, why))?;
            todo.extend(node.items.into_iter().rev().map(|(_, below)| below));
        }
        Ok(())
    }
}
