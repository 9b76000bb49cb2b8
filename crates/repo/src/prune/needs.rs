//! What snapshots need: every node and chunk, each told once.

use std::sync::Arc;

use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::format::snapshot::Snapshot;
use crate::format::tree::entry::{self, DirectoryNode, Items};
use crate::format::tree::{Role, extent, witness};
use crate::index::Location;
use crate::map;
use crate::marks::Marks;
use crate::repository::Repository;
use crate::tree::{Content, NodeKind, Place, TreeNode, TreeRecord};
use crate::{Error, ErrorKind, Result, limits};

/// What is needed so far, in a bit for each chunk that the index knows.
pub(crate) struct Needs<'r> {
    repository: &'r Repository,
    /// By the places that stand for chunks.
    pub(crate) marks: Marks,
    /// Up to which generation none may condemn where a chunk lies; if `None`, any place will do.
    homes: Option<u32>,
    /// Whether the last failure was that a chunk is nowhere.
    pub(crate) lost: bool,
    /// Chunks that are still to be marked: in order of their identities they are found sooner.
    waiting: Vec<ChunkId>,
    /// The state of the index that the marks are of.
    version: u64,
}

/// A node whose children are still to be told.
enum Todo {
    /// So many levels above the chunks.
    Map(ChunkId, u32),
    Root(ChunkId),
    Directory(ChunkId),
    Inline(Arc<[u8]>, ChunkId),
    Extents(ChunkId),
    Witness(ChunkId),
    InlineWitness(Arc<[u8]>),
}

impl<'r> Needs<'r> {
    /// Of chunks that are anywhere.
    pub(crate) fn of_all(repository: &'r Repository) -> Self {
        Self::new(repository, None)
    }

    /// Of chunks that have a home.
    pub(crate) fn of_homes(repository: &'r Repository) -> Self {
        Self::new(repository, Some(u32::MAX))
    }

    /// Of chunks that would have one if generations with higher numbers than this condemned nothing.
    pub(crate) fn of_homes_until(repository: &'r Repository, generation: u32) -> Self {
        Self::new(repository, Some(generation))
    }

    fn new(repository: &'r Repository, homes: Option<u32>) -> Self {
        Self {
            repository,
            marks: Marks::default(),
            homes,
            lost: false,
            waiting: Vec::new(),
            version: repository.index().version(),
        }
    }

    /// Fails if the index is not as it was: then its chunks may be marked by other places.
    pub(crate) fn check_index(&self) -> Result<()> {
        if self.repository.index().version() == self.version {
            return Ok(());
        }
        let what = "nothing is pruned: another pruning is at work; try again later";
        Err(Error::new(ErrorKind::Swept, what))
    }

    /// Marks what a snapshot needs. It fails with what cannot be found or read, but for what no
    /// reader needs.
    pub(crate) fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.lost = false;
        let configs = [
            Some(&snapshot.guest_config),
            snapshot.firewall_config.as_ref(),
        ];
        for id in configs.into_iter().flatten().filter_map(|c| c.chunk) {
            self.mark(&id)?;
        }
        let mut todo = Vec::new();
        for disk in &snapshot.disks {
            let levels = map::levels(disk.size, disk.chunk_size);
            todo.extend(disk.root.map(|id| Todo::Map(id, levels)));
        }
        if let Some(TreeRecord { root, witness, .. }) = &snapshot.tree {
            todo.push(Todo::Root(*root));
            todo.extend(witness.map(Todo::Witness));
        }
        while let Some(next) = todo.pop() {
            self.node(next, &mut todo)?;
        }
        self.mark_waiting()
    }

    /// Whether all that a snapshot needs is found. An error says nothing of that; it is `Corrupt` if
    /// something was found that is damaged.
    pub(crate) fn are_met(mut self, snapshot: &Snapshot) -> Result<bool> {
        match self.snapshot(snapshot) {
            Ok(()) => Ok(true),
            Err(_) if self.lost => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Marks a chunk; false if it was marked.
    pub(crate) fn mark(&mut self, id: &ChunkId) -> Result<bool> {
        let Some(place) = self.place(id)? else {
            self.lost = true;
            return Err(self.repository.index().absent(id));
        };
        let new = !self.marks.contains(&place);
        if new {
            self.marks.insert(&place);
        }
        Ok(new)
    }

    /// Marks a chunk of which nothing more is to be read, with others.
    fn mark_later(&mut self, id: ChunkId) -> Result<()> {
        self.waiting.push(id);
        if self.waiting.len() >= limits::NEEDS_WAITING {
            self.mark_waiting()?;
        }
        Ok(())
    }

    fn mark_waiting(&mut self) -> Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_unstable();
        waiting.dedup();
        for id in &waiting {
            self.mark(id)?;
        }
        waiting.clear();
        self.waiting = waiting;
        Ok(())
    }

    /// The place that stands for a chunk; `None` if it is nowhere.
    fn place(&self, id: &ChunkId) -> Result<Option<Location>> {
        let found = match self.homes {
            Some(generation) => self.repository.home_until(id, generation),
            None => self.repository.find(id),
        };
        match found {
            Ok(_) => self.repository.index().standing(id),
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn node(&mut self, next: Todo, todo: &mut Vec<Todo>) -> Result<()> {
        match next {
            Todo::Map(id, 0) => self.mark_later(id),
            Todo::Map(id, level) => {
                if self.mark(&id)? {
                    // Taken from the end: in the disk's order.
                    let children = self.repository.read_node(&id)?;
                    let children = children.into_iter().rev().flatten();
                    todo.extend(children.map(|child| Todo::Map(child, level - 1)));
                }
                Ok(())
            }
            Todo::Root(id) => self.directory(id, true, todo),
            Todo::Directory(id) => self.directory(id, false, todo),
            Todo::Inline(body, origin) => {
                let node = entry::decode(&body, false);
                let node = node.map_err(|why| Role::Directory.corrupt(&origin, why))?;
                self.items(node, origin, todo)
            }
            Todo::Extents(id) => self.extents(id, todo),
            Todo::Witness(id) => self.witnesses(id, todo),
            Todo::InlineWitness(body) => {
                // One that is damaged says nothing.
                if let Ok(node) = witness::decode(&body) {
                    push_witnesses(node, todo);
                }
                Ok(())
            }
        }
    }

    /// A node's bytes; `None` if it was marked.
    fn read(&mut self, id: &ChunkId) -> Result<Option<Vec<u8>>> {
        if !self.mark(id)? {
            return Ok(None);
        }
        let read = self.repository.read_chunk(Class::Metadata, id);
        read.map(Some)
    }

    fn directory(&mut self, id: ChunkId, is_root: bool, todo: &mut Vec<Todo>) -> Result<()> {
        let Some(body) = self.read(&id)? else {
            return Ok(());
        };
        let node = entry::decode(&body, is_root);
        let node = node.map_err(|why| Role::Directory.corrupt(&id, why))?;
        self.items(node, id, todo)
    }

    fn items(&mut self, node: DirectoryNode, origin: ChunkId, todo: &mut Vec<Todo>) -> Result<()> {
        match node.items {
            Items::Entries(entries) => {
                (entries.into_iter().rev()).try_for_each(|entry| self.entry(entry, origin, todo))
            }
            Items::Children(children) => {
                let children = children.into_iter().rev();
                todo.extend(children.map(|(_, id)| Todo::Directory(id)));
                Ok(())
            }
        }
    }

    fn entry(&mut self, entry: TreeNode, origin: ChunkId, todo: &mut Vec<Todo>) -> Result<()> {
        match entry.kind {
            NodeKind::Directory(directory) => match directory.place {
                Place::Nowhere => {}
                Place::Inline(body) => todo.push(Todo::Inline(body, origin)),
                Place::Node(id) => todo.push(Todo::Directory(id)),
            },
            NodeKind::File(file) => match file.content {
                Content::Extents(extents) => {
                    for extent in &extents {
                        self.mark_later(extent.chunk)?;
                    }
                }
                Content::Node(id) => todo.push(Todo::Extents(id)),
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

    fn extents(&mut self, id: ChunkId, todo: &mut Vec<Todo>) -> Result<()> {
        let Some(body) = self.read(&id)? else {
            return Ok(());
        };
        let node = extent::decode(&body).map_err(|why| Role::Extents.corrupt(&id, why))?;
        match node.items {
            extent::Items::Extents(extents) => {
                for extent in &extents {
                    self.mark_later(extent.chunk)?;
                }
            }
            extent::Items::Children(children) => {
                let children = children.into_iter().rev();
                todo.extend(children.map(|(_, id)| Todo::Extents(id)));
            }
        }
        Ok(())
    }

    /// What is missing or damaged here costs the next backup time, and nothing else.
    fn witnesses(&mut self, id: ChunkId, todo: &mut Vec<Todo>) -> Result<()> {
        let read = self.read(&id);
        let lost = std::mem::take(&mut self.lost);
        match read {
            Ok(None) => Ok(()),
            Ok(Some(body)) => {
                if let Ok(node) = witness::decode(&body) {
                    push_witnesses(node, todo);
                }
                Ok(())
            }
            Err(e) if lost || e.kind() == ErrorKind::Corrupt => Ok(()),
            Err(e) => Err(e),
        }
    }
}

fn push_witnesses(node: witness::WitnessNode, todo: &mut Vec<Todo>) {
    todo.extend(node.items.into_iter().filter_map(|(_, below)| match below {
        Place::Nowhere => None,
        Place::Inline(body) => Some(Todo::InlineWitness(body)),
        Place::Node(id) => Some(Todo::Witness(id)),
    }));
}

/// The error about an archive that cannot be walked.
pub(crate) fn unwalked(archive: &str, error: Error) -> Error {
    let what = if error.kind().is_of_storage() {
        format!(
            "nothing is pruned: what archive {archive} needs could not be read now: prune again"
        )
    } else {
        format!(
            "nothing is pruned: what archive {archive} needs cannot be told; verify, and forget it \
             if it cannot be healed"
        )
    };
    Error::with_source(error.kind(), what, error)
}
