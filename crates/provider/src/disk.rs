//! One disk: dirty regions become chunks, chunks the lowest nodes of a map, and those its root.
//!
//! The unit of work is a window of a few chunks: a thread reads what is dirty in it and stores that; the
//! last one below a lowest node stores the node. A full backup is an incremental one to a base of
//! zeroes: what lies between the regions is the base's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope};

use snapkeep_api::{
    BlockSource, DeviceName, DirtyRegions, Error, ErrorKind, Level, Region, Result, VmMechanism,
    Volume,
};
use snapkeep_repo::{
    ChunkId, Class, DiskReader, DiskRecord, Leaf, MAP_FAN_OUT, Worker, Writer, update_map,
};

use crate::error;
use crate::interrupt::interruptible;
use crate::limits::{REGION_MEAN_MIN, WORKERS_MAX};
use crate::pace::Pace;
use crate::panics::caught;
use crate::progress::{Progress, add, value};
use crate::provider::Shared;

/// Bytes that one thread reads at once.
const READ: usize = 2 << 20;

/// What is needed to back up one disk.
pub(crate) struct DiskBackup<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) writer: &'a Writer,
    pub(crate) progress: &'a Progress,
    pub(crate) pace: &'a Pace,
    pub(crate) device: &'a DeviceName,
    pub(crate) size: u64,
    pub(crate) base: Option<&'a DiskRecord>,
}

/// A lowest node that is made: its windows are dealt out to the threads in the order of the disk,
/// so that what lies side by side on it does so in the packs.
struct Node {
    leaf: u64,
    /// What is dirty below it.
    regions: Vec<Region>,
    /// What was stored: the chunk's place in the node, and its identity.
    stored: Mutex<Vec<(usize, Option<ChunkId>)>>,
    /// Windows that are still to be stored.
    left: AtomicUsize,
}

/// A window of a node's part of the disk.
struct Task {
    node: Arc<Node>,
    /// Where it begins on the disk.
    start: u64,
}

/// What the threads have in common.
struct State {
    /// The new lowest nodes: one for each 64 chunks that something is dirty in.
    leaves: BTreeMap<u64, Option<ChunkId>>,
    failure: Option<Error>,
    discards: bool,
}

impl DiskBackup<'_> {
    /// Reads what is dirty; the root of the disk's map.
    pub(crate) fn run(&self, volume: Volume) -> Result<Option<ChunkId>> {
        let (source, regions) = volume.open(self.device)?;
        let cancel = &self.shared.cancel;
        let root = interruptible(cancel, &*source, || self.read(&*source, regions));
        // What was interrupted failed of that.
        root.map_err(|error| cancel.check().err().unwrap_or(error))
    }

    fn read(&self, source: &dyn BlockSource, regions: DirtyRegions) -> Result<Option<ChunkId>> {
        let base =
            (self.base).map(|disk| DiskReader::new(self.shared.repository.clone(), disk.clone()));
        let state = Mutex::new(State {
            leaves: BTreeMap::new(),
            failure: None,
            discards: true,
        });
        let workers = self.shared.options.workers.clamp(1, WORKERS_MAX);
        let (sender, receiver) = sync_channel(workers);
        // The threads alone own it: once all of them have ended, sending fails and does not wait for
        // ever.
        let receiver = Arc::new(Mutex::new(receiver));
        let listed = thread::scope(|scope| {
            for started in 0..workers {
                let (receiver, base) = (Arc::clone(&receiver), base.as_ref());
                let state = &state;
                let work = move || self.work(source, base, &receiver, state);
                if !self.spawn(scope, started, work)? {
                    break;
                }
            }
            drop(receiver);
            let listed = self.tasks(regions, &mut |task| {
                lock(&state).failure.is_none() && sender.send(task).is_ok()
            });
            drop(sender);
            listed
        });
        listed?;
        let State {
            leaves, failure, ..
        } = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = failure {
            return Err(failure);
        }
        let repository = &self.shared.repository;
        let chunk_size = repository.config().chunk_size;
        let root = self.base.and_then(|disk| disk.root);
        let mut worker = self.writer.worker();
        let root = update_map(repository, &mut worker, self.size, chunk_size, root, leaves)
            .map_err(|e| self.failed("cannot store its map", e))?;
        self.pace.wrote(self.shared, worker.take_written());
        Ok(root)
    }

    /// Starts one more thread. A machine that has no more to give slows the backup down; one that
    /// has none at all fails it.
    fn spawn<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        started: usize,
        work: impl FnOnce() + Send + 'scope,
    ) -> Result<bool> {
        match thread::Builder::new().spawn_scoped(scope, work) {
            Ok(_) => Ok(true),
            Err(error) => {
                let what = format!(
                    "device {}: only {started} threads can be started",
                    self.device
                );
                let error = Error::with_source(ErrorKind::Unavailable, what, error);
                if started == 0 {
                    return Err(error);
                }
                self.shared.log.log(Level::Warn, &error.chain());
                Ok(false)
            }
        }
    }

    fn failed(&self, what: &str, error: snapkeep_repo::Error) -> Error {
        error::repository(format!("device {}: {what}", self.device), error)
    }

    /// Cuts the regions at the borders of the lowest nodes and hands them out, window by window,
    /// until the receiver wants no more.
    fn tasks(&self, regions: DirtyRegions, send: &mut dyn FnMut(Task) -> bool) -> Result<()> {
        let span = (self.shared.repository.config().chunk_size() * MAP_FAN_OUT) as u64;
        let mut node: Option<(u64, Vec<Region>)> = None;
        for region in regions {
            self.shared.cancel.check()?;
            let region = region?;
            add(&self.progress.dirty, region.length());
            let mut offset = region.offset();
            while offset < region.end() {
                let leaf = offset / span;
                let end = region.end().min((leaf + 1).saturating_mul(span));
                let piece = Region::new(offset, end - offset)?;
                offset = end;
                match &mut node {
                    Some((open, regions)) if *open == leaf => {
                        if regions.len() as u64 >= span / REGION_MEAN_MIN {
                            return Err(self.too_fine(leaf * span));
                        }
                        regions.push(piece);
                    }
                    _ => {
                        if let Some((full, regions)) = node.replace((leaf, vec![piece]))
                            && !self.windows(full, regions, send)
                        {
                            return Ok(());
                        }
                    }
                }
            }
        }
        if let Some((last, regions)) = node {
            self.windows(last, regions, send);
        }
        Ok(())
    }

    /// Hands out the windows of a node in which something is dirty; false if no more is wanted.
    fn windows(&self, leaf: u64, regions: Vec<Region>, send: &mut dyn FnMut(Task) -> bool) -> bool {
        let (span, step) = (self.chunk() * MAP_FAN_OUT, self.window());
        let first = leaf * span as u64;
        let starts = (first..).step_by(step).take(span.div_ceil(step));
        let dirty = |start: &u64| {
            let end = start.saturating_add(step as u64);
            (regions.iter()).any(|region| region.offset() < end && region.end() > *start)
        };
        let starts: Vec<u64> = starts.filter(dirty).collect();
        let node = Arc::new(Node {
            leaf,
            regions,
            stored: Mutex::default(),
            left: AtomicUsize::new(starts.len()),
        });
        starts.into_iter().all(|start| {
            let node = Arc::clone(&node);
            send(Task { node, start })
        })
    }

    fn too_fine(&self, offset: u64) -> Error {
        let what = format!(
            "device {}: its dirty regions from offset {offset} on have less than {REGION_MEAN_MIN} bytes each",
            self.device
        );
        Error::new(ErrorKind::Protocol, what)
    }

    /// One thread: takes tasks until there are none, or something failed.
    fn work(
        &self,
        source: &dyn BlockSource,
        base: Option<&DiskReader>,
        tasks: &Mutex<Receiver<Task>>,
        state: &Mutex<State>,
    ) {
        let mut worker = self.writer.worker();
        let mut buffer = Vec::new();
        loop {
            let Ok(task) = lock(tasks).recv() else { return };
            if lock(state).failure.is_some() {
                // The others' work is of no use any more, but the list must not block.
                continue;
            }
            let window = || {
                self.store_window(source, base, &mut worker, &mut buffer, state, &task)?;
                // The last one to be stored, whichever that is.
                if task.node.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    let id = self.store_node(base, &mut worker, &task.node)?;
                    lock(state).leaves.insert(task.node.leaf, id);
                }
                Ok(())
            };
            if let Err(error) = caught(format_args!("device {}", self.device), window) {
                lock(state).failure.get_or_insert(error);
            }
        }
    }

    /// Stores the dirty chunks of a window.
    fn store_window(
        &self,
        source: &dyn BlockSource,
        base: Option<&DiskReader>,
        worker: &mut Worker<'_>,
        buffer: &mut Vec<u8>,
        state: &Mutex<State>,
        task: &Task,
    ) -> Result<()> {
        let chunk_size = self.chunk() as u64;
        let end = task.start.saturating_add(self.window() as u64);
        let pieces = clip(&task.node.regions, task.start, end)?;
        let (Some(head), Some(tail)) = (pieces.first(), pieces.last()) else {
            return Ok(());
        };
        // Whole chunks from the first dirty byte's to the last one's.
        let start = head.offset() / chunk_size * chunk_size;
        let end = tail.end().next_multiple_of(chunk_size).min(self.size);
        self.fill(source, base, buffer, start, end, &pieces)?;
        self.discard(source, state, &pieces);
        let first = task.node.leaf * MAP_FAN_OUT as u64;
        for (number, chunk) in (start / chunk_size..).zip(buffer.chunks(self.chunk())) {
            let from = number * chunk_size;
            let dirty = pieces
                .iter()
                .any(|p| p.offset() < from + chunk_size && p.end() > from);
            if dirty {
                let place = usize::try_from(number - first).expect("a node has few chunks");
                let id = self.store(worker, chunk)?;
                lock(&task.node.stored).push((place, id));
            }
        }
        self.progress
            .tell(&*self.shared.clock, &*self.shared.log, self.device.as_str());
        if let Some(observer) = &self.shared.observer {
            observer(value(&self.progress.read));
        }
        Ok(())
    }

    /// Stores a node whose chunks are stored: that of the base with what is new.
    fn store_node(
        &self,
        base: Option<&DiskReader>,
        worker: &mut Worker<'_>,
        node: &Node,
    ) -> Result<Option<ChunkId>> {
        let mut leaf: Leaf = match base {
            None => [None; MAP_FAN_OUT],
            Some(base) => (base.leaf(node.leaf))
                .map_err(|e| self.failed("cannot read the map of its base", e))?
                .unwrap_or([None; MAP_FAN_OUT]),
        };
        for (place, id) in lock(&node.stored).drain(..) {
            leaf[place] = id;
        }
        let stored = (worker.store_leaf(&leaf))
            .map_err(|e| self.failed("cannot store a node of its map", e))?;
        self.pace.wrote(self.shared, worker.take_written());
        Ok(stored)
    }

    /// Reads the pieces into the buffer, which holds the disk from `start` to `end`. A chunk that
    /// is only partly dirty gets the rest of its bytes from the base.
    fn fill(
        &self,
        source: &dyn BlockSource,
        base: Option<&DiskReader>,
        buffer: &mut Vec<u8>,
        start: u64,
        end: u64,
        pieces: &[Region],
    ) -> Result<()> {
        let length = |bytes: u64| usize::try_from(bytes).expect("a window fits in memory");
        // What is left of an earlier window lies in chunks of which nothing is dirty: never stored.
        buffer.resize(length(end - start), 0);
        for (number, chunk) in (0u64..).zip(buffer.chunks_mut(self.chunk())) {
            let from = start + number * self.chunk() as u64;
            let to = from + chunk.len() as u64;
            let dirty: u64 = (pieces.iter())
                .map(|p| p.end().min(to).saturating_sub(p.offset().max(from)))
                .sum();
            if dirty > 0 && dirty < chunk.len() as u64 {
                match base {
                    None => chunk.fill(0),
                    Some(_) if self.shared.repository.may_read().is_err() => {
                        self.read_whole(source, from, chunk)?;
                    }
                    Some(base) => (base.read_at(from, chunk))
                        .map_err(|e| self.failed("cannot read its base", e))?,
                }
            }
        }
        for piece in pieces {
            self.pace.read(self.shared, piece.length());
            self.shared.cancel.check()?;
            let from = length(piece.offset() - start);
            let target = &mut buffer[from..from + length(piece.length())];
            source.read_at(piece.offset(), target)?;
            add(&self.progress.read, piece.length());
        }
        Ok(())
    }

    /// Reads a chunk that is only partly dirty from the guest's disk: this host may only write, and
    /// cannot read the base. A source that shows no more than what is dirty fails that, as it must;
    /// behind a file handle other bytes would be taken for the disk's.
    fn read_whole(&self, source: &dyn BlockSource, from: u64, chunk: &mut [u8]) -> Result<()> {
        let what = || {
            format!(
                "device {}: what is dirty at offset {from} is finer than a chunk, and this host's \
                 key may only write, so the rest of the chunk cannot be taken from the archive \
                 before: back up in full",
                self.device
            )
        };
        if self.shared.options.mechanism != VmMechanism::Nbd {
            return Err(Error::new(ErrorKind::Unsupported, what()));
        }
        self.pace.read(self.shared, chunk.len() as u64);
        self.shared.cancel.check()?;
        (source.read_at(from, chunk)).map_err(|e| Error::with_source(e.kind(), what(), e))?;
        add(&self.progress.read, chunk.len() as u64);
        Ok(())
    }

    /// Frees fleecing space behind what is in memory. A source that cannot is told of once.
    fn discard(&self, source: &dyn BlockSource, state: &Mutex<State>, pieces: &[Region]) {
        for piece in pieces {
            if !lock(state).discards {
                return;
            }
            if let Err(error) = source.discard(*piece)
                && std::mem::replace(&mut lock(state).discards, false)
            {
                let line = format!(
                    "{}: discarding what was read does not work, so fleecing space is not freed: {}",
                    self.device,
                    error.chain()
                );
                self.shared.log.log(Level::Warn, &line);
            }
        }
    }

    fn store(&self, worker: &mut Worker<'_>, chunk: &[u8]) -> Result<Option<ChunkId>> {
        let length = chunk.len() as u64;
        if is_zero(chunk) {
            add(&self.progress.zero, length);
            return Ok(None);
        }
        let stored = (worker.store(Class::Data, chunk))
            .map_err(|e| self.failed("cannot store a chunk", e))?;
        self.pace.wrote(self.shared, worker.take_written());
        add(
            if stored.new {
                &self.progress.new
            } else {
                &self.progress.reused
            },
            length,
        );
        Ok(Some(stored.id))
    }

    fn chunk(&self) -> usize {
        self.shared.repository.config().chunk_size()
    }

    /// Bytes that a thread reads at once: whole chunks.
    fn window(&self) -> usize {
        self.chunk().max(READ)
    }
}

/// What of the regions lies between two offsets.
fn clip(regions: &[Region], start: u64, end: u64) -> Result<Vec<Region>> {
    (regions.iter())
        .map(|r| (r.offset().max(start), r.end().min(end)))
        .filter(|(from, to)| from < to)
        .map(|(from, to)| Region::new(from, to - from))
        .collect()
}

/// Whether all bytes are zero; written so that it compiles to wide instructions.
fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(1024)
        .all(|part| part.iter().fold(0, |any, byte| any | byte) == 0)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
