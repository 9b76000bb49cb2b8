//! Copies of archives in another repository: every chunk that is not known there is read, proven and
//! stored anew under the other's keys, and maps and trees are written again with the identities that
//! chunks have there.
//!
//! A copy says what it is a copy of. So the next archive of its guest is compared with the source's
//! own of that one, and what is the same in both takes what the target has, without being read.

mod base;
mod map;
mod tree;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::attributes::ArchiveAttributes;
use crate::format::attributes::AttributeChange;
use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::format::snapshot::{
    BlobRef, DiskRecord, Lineage, Origin, Snapshot, SnapshotName, Stats,
};
use crate::parallel::in_parallel;
use crate::prune::fence;
use crate::repository::Repository;
use crate::writer::{Worker, Writer};
use crate::{Error, ErrorKind, Result, limits};

/// Copies archives from one repository to another.
#[derive(Debug)]
pub struct Copier {
    source: Arc<Repository>,
    target: Arc<Repository>,
    /// Archives of the target that are known to be whole.
    whole: HashSet<SnapshotName>,
}

/// What became of an archive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CopyOutcome {
    /// It is there now.
    Copied {
        /// The archive it was compared with.
        base: Option<SnapshotName>,
        /// What was done, in bytes.
        stats: Stats,
    },
    /// An archive of this name was there.
    Skipped,
}

impl Copier {
    /// Between two repositories, the second of which is written to. `Invalid` if they are one.
    pub fn new(source: Arc<Repository>, target: Arc<Repository>) -> Result<Self> {
        target.may_write()?;
        if source.config().repository == target.config().repository {
            let what = "a repository cannot be copied to itself";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let whole = HashSet::new();
        Ok(Self {
            source,
            target,
            whole,
        })
    }

    /// Copies an archive with its notes, its protection and its log, under its own name, unless there
    /// is one of that name. Whoever is interrupted begins again: what has arrived is not sent again.
    pub fn copy(&mut self, name: &SnapshotName) -> Result<CopyOutcome> {
        let there = self.target.all_snapshots_of(Some(name.group()))?;
        if there.contains(name) {
            if !self.target.late(std::slice::from_ref(name))?.is_empty() {
                let what = format!(
                    "archive {name} is in the target, but something that it relies on was pruned \
                     before it was finished; prune the target, then copy it again"
                );
                return Err(Error::new(ErrorKind::Swept, what));
            }
            self.copy_attributes(name, false)?;
            return Ok(CopyOutcome::Skipped);
        }
        self.check_unnamed(name)?;
        // Of an archive of this name that was removed: they would be taken for the copy's.
        let old = self.target.attribute_files_of(name)?;
        self.check_absent(name)?;
        for (file, _) in old {
            self.target.storage.remove(&file)?;
        }
        let snapshot = self.source.snapshot(name)?;
        let base = self.base(name, &there)?;
        let writer = Writer::new(Arc::clone(&self.target))?;
        let made = std::thread::scope(|scope| {
            let work = || {
                let one = One {
                    source: &self.source,
                    target: &self.target,
                    name,
                    writer: &writer,
                    workers: Mutex::default(),
                    known: Mutex::default(),
                    read: AtomicU64::new(0),
                    new: AtomicU64::new(0),
                };
                one.snapshot(&snapshot, base.as_ref().map(|(_, pair)| pair))
            };
            // Directories lie in directories, and so do the calls that copy them.
            let thread = std::thread::Builder::new().stack_size(limits::COPY_STACK);
            let started = thread.spawn_scoped(scope, work).map_err(|error| {
                Error::with_source(ErrorKind::Io, "no thread can be started that copies", error)
            })?;
            started
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        // Somebody else may copy it at the same time, and have been told that it is there.
        self.check_absent(name)?;
        let made = writer.commit_new(name, made).map_err(|e| {
            if e.kind() == ErrorKind::Exists {
                meanwhile(name)
            } else {
                e
            }
        })?;
        if let Err(error) = self.check_unnamed(name) {
            if error.kind() == ErrorKind::Swept {
                // Nobody was told of it. What stays is whole, and skipped by the next copy.
                fence::take_away(&self.target, name, &made);
            }
            return Err(error);
        }
        if self.target.any_snapshot(name)?.id != made.id {
            return Err(meanwhile(name));
        }
        self.whole.insert(name.clone());
        self.copy_attributes(name, true)?;
        let base = base.map(|(name, _)| name);
        let stats = made.stats;
        Ok(CopyOutcome::Copied { base, stats })
    }

    /// Fails if an archive of this name is there.
    fn check_absent(&self, name: &SnapshotName) -> Result<()> {
        match self.target.storage.length(&name.file()) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(_) => Err(meanwhile(name)),
        }
    }

    /// Fails with `Swept` if the target's pruning is about to remove an archive of this name: it
    /// would not tell the one from the other.
    fn check_unnamed(&self, name: &SnapshotName) -> Result<()> {
        if !self.target.is_condemned(name)? {
            return Ok(());
        }
        let what = format!(
            "archive {name} is not copied: one of its name is being removed from the target; copy \
             it when `snapkeep prune` has done that"
        );
        Err(Error::new(ErrorKind::Swept, what))
    }

    /// What is known of an archive beside it; of one that was there, only if nothing is known of it
    /// there: then whoever copied it was stopped.
    fn copy_attributes(&self, name: &SnapshotName, new: bool) -> Result<()> {
        if !new && self.target.attributes(name)? != ArchiveAttributes::default() {
            return Ok(());
        }
        if !new && self.target.any_snapshot(name)?.origin.is_none() {
            return Ok(());
        }
        let found = match self.source.attributes(name) {
            // Of what cannot be told it is protected, here as there.
            Err(error) if error.kind() == ErrorKind::Corrupt => ArchiveAttributes {
                protected: true,
                ..ArchiveAttributes::default()
            },
            found => found?,
        };
        let task_log = match &found.task_log {
            Some(log) => {
                let log = self.source.read_task_log(log)?;
                Some(self.target.store_task_log(&log)?)
            }
            None => None,
        };
        let change = AttributeChange {
            notes: found.notes,
            protected: found.protected.then_some(true),
            caller_error: found.caller_error,
            task_log,
            ..AttributeChange::default()
        };
        if change == AttributeChange::default() {
            return Ok(());
        }
        self.target.change_attributes(name, &change)
    }
}

fn meanwhile(name: &SnapshotName) -> Error {
    let what = format!("archive {name} was put into the target meanwhile; copy it again");
    Error::new(ErrorKind::Io, what)
}

/// An archive of the source, and its copy.
struct Pair {
    source: Snapshot,
    target: Snapshot,
}

/// The copying of one archive.
struct One<'a> {
    source: &'a Repository,
    target: &'a Repository,
    name: &'a SnapshotName,
    writer: &'a Writer,
    workers: Mutex<Vec<Worker<'a>>>,
    /// Identities in the source, and those of the same in the target, at most
    /// [`COPY_KNOWN`](limits::COPY_KNOWN): what is forgotten is only read again.
    known: Mutex<HashMap<ChunkId, ChunkId>>,
    read: AtomicU64,
    new: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl One<'_> {
    fn snapshot(&self, snapshot: &Snapshot, base: Option<&Pair>) -> Result<Snapshot> {
        let mut made = snapshot.clone();
        made.origin = Some(Origin {
            repository: snapshot.repository.clone(),
            archive: self.name.to_string(),
            id: snapshot.id.clone(),
        });
        made.guest_config = self.blob(&snapshot.guest_config)?;
        made.firewall_config = (snapshot.firewall_config.as_ref())
            .map(|blob| self.blob(blob))
            .transpose()?;
        made.disks = Vec::new();
        for disk in &snapshot.disks {
            let same = |other: &&DiskRecord| other.device == disk.device;
            let old = base.and_then(|pair| {
                let source = pair.source.disks.iter().find(same)?;
                Some((source, pair.target.disks.iter().find(same)?))
            });
            made.disks.push(DiskRecord {
                device: disk.device.clone(),
                size: disk.size,
                chunk_size: disk.chunk_size,
                root: self.disk(disk, old)?,
                // Bitmaps are relative to the source's archive.
                lineage: Lineage::default(),
            });
        }
        if let Some(record) = &snapshot.tree {
            let old = base
                .and_then(|pair| Some((pair.source.tree.as_ref()?, pair.target.tree.as_ref()?)));
            made.tree = Some(self.tree(record, old)?);
        }
        made.stats = Stats {
            size: snapshot.stats.size,
            read: self.read.load(Ordering::Relaxed),
            new: self.new.load(Ordering::Relaxed),
            stored: 0,
        };
        Ok(made)
    }

    fn blob(&self, blob: &BlobRef) -> Result<BlobRef> {
        let chunk = blob.chunk.map(|id| self.chunk(&id)).transpose()?;
        Ok(BlobRef {
            chunk,
            length: blob.length,
        })
    }

    /// The identity in the target of something in the source, if it is known.
    fn known(&self, id: &ChunkId) -> Option<ChunkId> {
        lock(&self.known).get(id).copied()
    }

    fn learn(&self, id: ChunkId, there: ChunkId) {
        let mut known = lock(&self.known);
        if known.len() >= limits::COPY_KNOWN {
            known.clear();
        }
        known.insert(id, there);
    }

    /// Reads a chunk or node of the source, and proves it.
    fn read(&self, class: Class, id: &ChunkId) -> Result<Vec<u8>> {
        let bytes = self.source.read_chunk_twice(class, id)?;
        self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Stores bytes in the target, unless they are there; their identity.
    fn store(&self, class: Class, bytes: &[u8]) -> Result<ChunkId> {
        let idle = lock(&self.workers).pop();
        let mut worker = idle.unwrap_or_else(|| self.writer.worker());
        let stored = worker.store(class, bytes);
        lock(&self.workers).push(worker);
        let stored = stored?;
        if stored.new {
            self.new.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(stored.id)
    }

    /// Copies a chunk of data; its identity in the target.
    fn chunk(&self, id: &ChunkId) -> Result<ChunkId> {
        if let Some(there) = self.known(id) {
            return Ok(there);
        }
        let bytes = self.read(Class::Data, id)?;
        let there = self.store(Class::Data, &bytes)?;
        self.learn(*id, there);
        Ok(there)
    }

    /// Has chunks copied by several threads, so that they are known.
    fn chunks(&self, ids: impl Iterator<Item = ChunkId>) -> Result<()> {
        let unknown: HashSet<ChunkId> = ids.filter(|id| self.known(id).is_none()).collect();
        let unknown: Vec<ChunkId> = unknown.into_iter().collect();
        let failed = in_parallel(&unknown, |id| self.chunk(id).map(drop));
        match failed.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}
