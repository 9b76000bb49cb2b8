//! Whether a disk of an archive is whole, as far as that can be told without reading the disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::format::id::ChunkId;
use crate::format::node::Children;
use crate::format::pack::Class;
use crate::format::snapshot::DiskRecord;
use crate::index::{Location, pack_file};
use crate::parallel::in_parallel;
use crate::reader::decode_node;
use crate::repository::Repository;
use crate::{Result, limits, map};

/// Nodes of one level, by where they lie: the number of the pack and the offset in it. Each is
/// there once, so they are never more than the index knows.
type Nodes = BTreeMap<(u32, u32, ChunkId), Location>;

/// A node and where it lies.
type Found = (ChunkId, Location);

impl Repository {
    /// Fails with what a disk lacks. Every node of its map is read and proven, and each of its
    /// chunks must be in a pack that is there, with its full length, and not condemned. Nothing less will do: a pack
    /// that is lost together with the index objects that named it is missed by nobody else.
    ///
    /// A chunk whose bytes were changed in place is not noticed: that takes reading it, which is
    /// what [`verify`](crate::verify()) does.
    pub fn check_whole(&self, disk: &DiskRecord) -> Result<()> {
        let mut nodes = Nodes::new();
        if let Some(root) = disk.root {
            self.add(&mut nodes, root)?;
        }
        // Level by level, each in the order of the packs, so that neighbours are read together.
        for level in (0..map::levels(disk.size, disk.chunk_size)).rev() {
            let found = nodes.into_iter().map(|((_, _, id), place)| (id, place));
            let found: Vec<Found> = found.collect();
            let below = Mutex::new(Nodes::new());
            let failed = AtomicBool::new(false);
            let errors = in_parallel(&runs(&found, self.gap()), |run| {
                if failed.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let checked = self.check_run(run, (level > 0).then_some(&below));
                failed.fetch_or(checked.is_err(), Ordering::Relaxed);
                checked
            });
            if let Some((_, error)) = errors.into_iter().next() {
                return Err(error);
            }
            nodes = below.into_inner().unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    fn add(&self, nodes: &mut Nodes, id: ChunkId) -> Result<()> {
        let place = self.home(&id)?;
        nodes.insert((place.pack, place.offset, id), place);
        Ok(())
    }

    /// Proves nodes that lie side by side. Their children are added to the nodes below or, where
    /// there are none, must be chunks that are there.
    fn check_run(&self, run: &[Found], below: Option<&Mutex<Nodes>>) -> Result<()> {
        let mut read = self.read_run(run);
        for (id, place) in run {
            let together = read.as_mut().and_then(|read| self.node(read, id, place));
            // Alone, another copy will do; if there is none, the error tells what is wrong.
            let children = together.map_or_else(|| self.read_node(id), Ok)?;
            let mut children = children.into_iter().flatten();
            match below {
                Some(nodes) => {
                    let mut nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
                    children.try_for_each(|id| self.add(&mut nodes, id))?;
                }
                None => self.find_all(children)?,
            }
        }
        Ok(())
    }

    /// What several nodes lie in, and where in their pack that begins.
    fn read_run(&self, run: &[Found]) -> Option<(u32, Vec<u8>)> {
        let [(id, first), _, ..] = run else {
            return None;
        };
        let end = run.iter().map(|(_, place)| end(place)).max()?;
        let file = pack_file(&self.pack_of(id, first).ok()?.id);
        let range = u64::from(first.offset)..u64::from(end);
        Some((first.offset, self.storage.read(&file, range).ok()?))
    }

    fn node(&self, read: &mut (u32, Vec<u8>), id: &ChunkId, place: &Location) -> Option<Children> {
        let (start, bytes) = read;
        let from = (place.offset - *start) as usize;
        let sealed = bytes.get_mut(from..from + place.stored as usize)?;
        let pack = self.pack_of(id, place).ok()?;
        let mut node = vec![0; place.plain as usize];
        self.open_copy(Class::Metadata, id, place, &pack, sealed, &mut node)
            .ok()?;
        decode_node(id, &node).ok()
    }

    /// Fails with the first chunk that is nowhere.
    fn find_all(&self, chunks: impl Iterator<Item = ChunkId>) -> Result<()> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let is_missing = |id: &ChunkId| !matches!(index.home(id), Ok(Some(_)));
        let missing: Vec<_> = chunks.filter(is_missing).collect();
        drop(index);
        missing.iter().try_for_each(|id| self.home(id).map(drop))
    }
}

fn end(place: &Location) -> u32 {
    place.offset + place.stored
}

/// Cuts nodes into those that are read together: of one pack, with little between them.
fn runs(mut nodes: &[Found], gap: u64) -> Vec<&[Found]> {
    let most = limits::NODE_RUN as u64;
    let mut runs = Vec::new();
    while let [(_, first), rest @ ..] = nodes {
        let mut reached = u64::from(end(first));
        let joins = |(_, next): &&Found| {
            let near = u64::from(next.offset) <= reached + gap;
            reached = reached.max(u64::from(end(next)));
            next.pack == first.pack && near && reached - u64::from(first.offset) <= most
        };
        let (run, more) = nodes.split_at(1 + rest.iter().take_while(joins).count());
        runs.push(run);
        nodes = more;
    }
    runs
}
