//! The proof of snapshots: their nodes are read, their chunks too as far as the depth wants it.

use super::{Depth, is_unread};
use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::format::snapshot::{BlobRef, Snapshot};
use crate::index::Location;
use crate::marks::Marks;
use crate::parallel::in_parallel;
use crate::reader::decode_node;
use crate::repository::Repository;
use crate::{Error, Result, map};

/// Chunks that are handed to the threads together.
const BATCH: usize = 4096;

/// What is proven of the snapshots so far.
pub(super) struct Proof<'a> {
    pub(super) repository: &'a Repository,
    depth: Depth,
    /// Chunks; nodes, once all that is below them is proven; and those of the next two lists.
    pub(super) proven: Marks,
    /// Nodes of this snapshot: what is below them may turn out to be damaged.
    pub(super) nodes: Vec<Location>,
    /// Chunks of this snapshot that are still to be read.
    waiting: Vec<(ChunkId, Location)>,
    /// Chunks and nodes that were read and proven.
    pub(super) read: u64,
}

impl<'a> Proof<'a> {
    /// `proven` are chunks that are proven already.
    pub(super) fn new(repository: &'a Repository, depth: Depth, proven: Marks) -> Self {
        Self {
            repository,
            depth,
            proven,
            nodes: Vec::new(),
            waiting: Vec::new(),
            read: 0,
        }
    }
}

impl Proof<'_> {
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let result = self.walk(snapshot).and_then(|()| self.read_waiting());
        if result.is_err() {
            // Another snapshot that shares a node shares the damage.
            let waiting = self.waiting.iter().map(|(_, place)| place);
            self.nodes
                .iter()
                .chain(waiting)
                .for_each(|place| self.proven.remove(place));
        }
        self.nodes.clear();
        self.waiting.clear();
        result
    }

    fn walk(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.configuration(&snapshot.guest_config)?;
        if let Some(config) = &snapshot.firewall_config {
            self.configuration(config)?;
        }
        for disk in &snapshot.disks {
            let levels = map::levels(disk.size, disk.chunk_size);
            let mut todo: Vec<_> = disk.root.map(|id| (levels, id)).into_iter().collect();
            while let Some((level, id)) = todo.pop() {
                let place = self.repository.find(&id)?;
                if self.proven.contains(&place) {
                    continue;
                }
                if level == 0 {
                    self.chunk(id, place)?;
                } else {
                    let children = decode_node(&id, &self.read_node(&id)?)?;
                    // Taken from the end: in the disk's order, which is about that of the packs.
                    let children = children.iter().rev().flatten();
                    todo.extend(children.map(|child| (level - 1, *child)));
                    self.proven.insert(&place);
                    self.nodes.push(place);
                }
            }
        }
        match &snapshot.tree {
            Some(record) => self.tree(record),
            None => Ok(()),
        }
    }

    fn configuration(&mut self, blob: &BlobRef) -> Result<()> {
        let Some(id) = blob.chunk else {
            return self.repository.read_blob(blob).map(drop);
        };
        let place = self.repository.find(&id)?;
        if place.plain != blob.length {
            let what = "a configuration has another length than its snapshot says";
            return Err(Error::corrupt(what));
        }
        if self.proven.contains(&place) {
            return Ok(());
        }
        self.chunk(id, place)
    }

    /// A node's bytes, of which every depth reads all.
    pub(super) fn read_node(&mut self, id: &ChunkId) -> Result<Vec<u8>> {
        self.read += 1;
        self.repository.read_chunk_twice(Class::Metadata, id)
    }

    /// Has a chunk read, with others, if it is to be read.
    pub(super) fn chunk(&mut self, id: ChunkId, place: Location) -> Result<()> {
        self.proven.insert(&place);
        if !self.depth.reads(id.as_bytes()) {
            return Ok(());
        }
        self.read += 1;
        self.waiting.push((id, place));
        if self.waiting.len() >= BATCH {
            self.read_waiting()?;
        }
        Ok(())
    }

    /// Reads the chunks that wait; if one fails, all go on waiting.
    fn read_waiting(&mut self) -> Result<()> {
        let failed = in_parallel(&self.waiting, |(id, _)| {
            let read = self.repository.read_chunk_twice(Class::Data, id);
            read.map(drop)
        });
        // What was read and is damaged tells more than what could not be read.
        let mut errors = failed.into_iter().map(|(_, error)| error);
        if let Some(first) = errors.next() {
            let tells = |error: &Error| !is_unread(error);
            return Err(if tells(&first) {
                first
            } else {
                errors.find(tells).unwrap_or(first)
            });
        }
        self.waiting.clear();
        Ok(())
    }
}
