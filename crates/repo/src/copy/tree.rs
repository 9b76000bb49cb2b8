//! Directory trees: nodes are cut as they are in the source, and name what the target has.

use std::collections::HashMap;
use std::sync::Arc;

use super::One;
use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::format::tree::entry::{self, DirectoryNode, Items};
use crate::format::tree::{Role, extent, header};
use crate::tree::{Content, Extent, NodeKind, Place, TreeNode, TreeRecord};
use crate::{Error, Result, limits};

/// A directory of the source's base, and the target's of it; or the extents of a file.
type Old<T> = Option<(T, T)>;

/// What the base has under a name: a directory, or a large file's extents.
#[derive(Clone)]
enum Named {
    Directory(Place, Place),
    Extents(ChunkId, ChunkId),
}

type Names = HashMap<Vec<u8>, Named>;

impl One<'_> {
    /// Copies a tree. What tells the next backup what has not changed is left out: it is of the
    /// source's next backup.
    pub(super) fn tree(&self, record: &TreeRecord, base: Old<&TreeRecord>) -> Result<TreeRecord> {
        let root = match base {
            Some((source, target)) if source.root == record.root => target.root,
            _ => {
                let old = base.map(|(source, target)| (source.root, target.root));
                let names = old.map(|(source, target)| {
                    self.names(&Place::Node(source), &Place::Node(target), true)
                });
                let names = names.transpose()?.unwrap_or_default();
                self.directory_node(&record.root, true, &names)?
            }
        };
        Ok(TreeRecord {
            root,
            witness: None,
            ..record.clone()
        })
    }

    /// Copies a directory; where its first node lies in the target.
    fn directory(&self, place: &Place, old: Old<&Place>) -> Result<Place> {
        if let Some((source, target)) = old
            && source == place
        {
            return Ok(target.clone());
        }
        if let Place::Node(id) = place
            && let Some(there) = self.known(id)
        {
            return Ok(Place::Node(there));
        }
        let names = match old {
            Some((source, target)) => self.names(source, target, false)?,
            None => Names::new(),
        };
        match place {
            Place::Nowhere => Ok(Place::Nowhere),
            Place::Node(id) => self.directory_node(id, false, &names).map(Place::Node),
            Place::Inline(body) => {
                let node = inline(body)?;
                Ok(Place::Inline(Arc::from(self.directory_body(node, &names)?)))
            }
        }
    }

    fn directory_node(&self, id: &ChunkId, is_root: bool, names: &Names) -> Result<ChunkId> {
        if let Some(there) = self.known(id) {
            return Ok(there);
        }
        let node = self.decoded(id, is_root)?;
        let body = self.directory_body(node, names)?;
        let there = self.store(Class::Metadata, &body)?;
        self.learn(*id, there);
        Ok(there)
    }

    fn decoded(&self, id: &ChunkId, is_root: bool) -> Result<DirectoryNode> {
        let body = self.read(Class::Metadata, id)?;
        entry::decode(&body, is_root).map_err(|why| Role::Directory.corrupt(id, why))
    }

    /// The bytes of a directory's node as they are in the target.
    fn directory_body(&self, node: DirectoryNode, names: &Names) -> Result<Vec<u8>> {
        let mut body = header(Role::Directory, node.level, node.len()).to_vec();
        match node.items {
            Items::Children(children) => {
                for (first, id) in children {
                    body.push(u8::try_from(first.len()).expect("a name that was read is short"));
                    body.extend_from_slice(&first);
                    let there = self.directory_node(&id, false, names)?;
                    body.extend_from_slice(there.as_bytes());
                }
            }
            Items::Entries(entries) => {
                let chunks = entries.iter().flat_map(extents);
                self.chunks(chunks.map(|extent| extent.chunk))?;
                for mut entry in entries {
                    self.entry(&mut entry, names)?;
                    entry::encode(&entry, &mut body);
                }
            }
        }
        Ok(body)
    }

    /// Gives an entry the identities of the target.
    fn entry(&self, entry: &mut TreeNode, names: &Names) -> Result<()> {
        let old = names.get(&entry.name);
        match &mut entry.kind {
            NodeKind::Directory(directory) => {
                let old = old.and_then(|old| match old {
                    Named::Directory(source, target) => Some((source, target)),
                    Named::Extents(..) => None,
                });
                directory.place = self.directory(&directory.place, old)?;
            }
            NodeKind::File(file) => match &mut file.content {
                Content::Extents(extents) => {
                    for extent in extents {
                        extent.chunk = self.chunk(&extent.chunk)?;
                    }
                }
                Content::Node(id) => {
                    if let Some(Named::Extents(source, target)) = old
                        && source != id
                    {
                        self.learn_extents(source, target)?;
                    }
                    *id = self.extent_node(id)?;
                }
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

    fn extent_node(&self, id: &ChunkId) -> Result<ChunkId> {
        if let Some(there) = self.known(id) {
            return Ok(there);
        }
        let body = self.read(Class::Metadata, id)?;
        let node = extent::decode(&body).map_err(|why| Role::Extents.corrupt(id, why))?;
        let made = match node.items {
            extent::Items::Extents(extents) => {
                let mut made = header(Role::Extents, node.level, extents.len()).to_vec();
                self.chunks(extents.iter().map(|extent| extent.chunk))?;
                for mut extent in extents {
                    extent.chunk = self.chunk(&extent.chunk)?;
                    extent::encode(&extent, &mut made);
                }
                made
            }
            extent::Items::Children(children) => {
                let mut made = header(Role::Extents, node.level, children.len()).to_vec();
                for (first, child) in children {
                    made.extend_from_slice(&first.to_le_bytes());
                    made.extend_from_slice(self.extent_node(&child)?.as_bytes());
                }
                made
            }
        };
        let there = self.store(Class::Metadata, &made)?;
        self.learn(*id, there);
        Ok(there)
    }

    /// Goes through a directory of the base in both repositories, learns what it has, and tells its
    /// directories and large files by their names.
    fn names(&self, source: &Place, target: &Place, is_root: bool) -> Result<Names> {
        let mut names = Names::new();
        let mut todo = vec![(source.clone(), target.clone())];
        while let Some(places) = todo.pop() {
            let (here, there) = match &places {
                (Place::Nowhere, Place::Nowhere) => continue,
                (Place::Inline(here), Place::Inline(there)) => (inline(here)?, inline(there)?),
                (Place::Node(here), Place::Node(there)) => {
                    self.learn(*here, *there);
                    let body = self.target.read_chunk(Class::Metadata, there)?;
                    let decoded = entry::decode(&body, is_root);
                    let decoded = decoded.map_err(|why| Role::Directory.corrupt(there, why))?;
                    (self.decoded(here, is_root)?, decoded)
                }
                _ => return Err(no_copy()),
            };
            if here.len() != there.len() {
                return Err(no_copy());
            }
            match (here.items, there.items) {
                (Items::Children(here), Items::Children(there)) => {
                    let pairs = here.into_iter().zip(there);
                    todo.extend(
                        pairs.map(|(here, there)| (Place::Node(here.1), Place::Node(there.1))),
                    );
                }
                (Items::Entries(here), Items::Entries(there)) => {
                    for (here, there) in here.into_iter().zip(there) {
                        self.learn_entry(here, there, &mut names)?;
                    }
                }
                _ => return Err(no_copy()),
            }
        }
        Ok(names)
    }

    fn learn_entry(&self, here: TreeNode, there: TreeNode, names: &mut Names) -> Result<()> {
        if here.name != there.name {
            return Err(no_copy());
        }
        for (here, there) in extents(&here).iter().zip(extents(&there)) {
            self.learn(here.chunk, there.chunk);
        }
        let named = match (here.kind, there.kind) {
            (NodeKind::Directory(here), NodeKind::Directory(there)) => {
                Named::Directory(here.place, there.place)
            }
            (NodeKind::File(here), NodeKind::File(there)) => match (here.content, there.content) {
                (Content::Node(here), Content::Node(there)) => {
                    self.learn(here, there);
                    Named::Extents(here, there)
                }
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        // Of what is left out more is read, and nothing else changes.
        if names.len() < limits::COPY_NAMES {
            names.insert(here.name, named);
        }
        Ok(())
    }

    /// Learns the chunks of a file of the base.
    fn learn_extents(&self, source: &ChunkId, target: &ChunkId) -> Result<()> {
        let mut todo = vec![(*source, *target)];
        while let Some((source, target)) = todo.pop() {
            self.learn(source, target);
            let decode = |id: &ChunkId, body: &[u8]| {
                extent::decode(body).map_err(|why| Role::Extents.corrupt(id, why))
            };
            let here = decode(&source, &self.read(Class::Metadata, &source)?)?;
            let there = self.target.read_chunk(Class::Metadata, &target)?;
            match (here.items, decode(&target, &there)?.items) {
                (extent::Items::Extents(here), extent::Items::Extents(there)) => {
                    for (here, there) in here.iter().zip(&there) {
                        self.learn(here.chunk, there.chunk);
                    }
                }
                (extent::Items::Children(here), extent::Items::Children(there)) => {
                    let pairs = here.into_iter().zip(there);
                    todo.extend(pairs.map(|(here, there)| (here.1, there.1)));
                }
                _ => return Err(no_copy()),
            }
        }
        Ok(())
    }
}

/// The extents that lie in an entry.
fn extents(entry: &TreeNode) -> &[Extent] {
    match &entry.kind {
        NodeKind::File(file) => match &file.content {
            Content::Extents(extents) => extents,
            Content::Node(_) => &[],
        },
        NodeKind::Directory(_)
        | NodeKind::Symlink { .. }
        | NodeKind::HardLink { .. }
        | NodeKind::Fifo
        | NodeKind::Socket
        | NodeKind::CharDevice { .. }
        | NodeKind::BlockDevice { .. } => &[],
    }
}

/// A directory's node that lies in an entry.
fn inline(body: &[u8]) -> Result<DirectoryNode> {
    entry::decode(body, false)
        .map_err(|why| Error::corrupt(format!("a directory in an entry {why}")))
}

fn no_copy() -> Error {
    Error::corrupt("the copy of the archive before this one is not what its original is")
}
