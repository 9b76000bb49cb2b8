//! Stores chunks and commits a snapshot: packs first, then the index, then the snapshot, each
//! durable before the next.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zstd_safe::{CCtx, CParameter};

use crate::buffers::{Buffers, Room};
use crate::clock::Moment;
use crate::format::bytes::{hex, length_u32};
use crate::format::envelope::{self, Kind};
use crate::format::features;
use crate::format::id::ChunkId;
use crate::format::index::{self, IndexedPack};
use crate::format::pack::{Class, OpenPack, SealedPack};
use crate::format::snapshot::{Snapshot, SnapshotName};
use crate::index::{pack_file, read_pack};
use crate::parallel::both;
use crate::prune::fence;
use crate::repository::Repository;
use crate::storage::FileName;
use crate::{Error, ErrorKind, Result, limits, random};

/// The compression level: what keeps up with a fast disk.
const LEVEL: i32 = 1;
/// A chunk that does not shrink below this share (in 256ths) is stored as it is.
const WORTHWHILE: usize = 250;

/// Room for a pack: one chunk more than its target, and its table.
const PACK_ROOM: usize = limits::PACK_TARGET + limits::CHUNK_MAX;

/// What became of a chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stored {
    /// Its identity.
    pub id: ChunkId,
    /// Whether it was not there before.
    pub new: bool,
}

/// One backup's writing. Threads store chunks through a [`Worker`] each.
#[derive(Debug)]
pub struct Writer {
    repository: Arc<Repository>,
    id: [u8; 16],
    open: [Mutex<Option<(Room, OpenPack)>>; 2],
    buffers: Arc<Buffers>,
    /// Chunks that are not in the index yet: what is in open packs and waits to be indexed.
    seen: Mutex<HashSet<ChunkId>>,
    done: Mutex<Done>,
    poison: Mutex<Option<Error>>,
    stored: AtomicU64,
    /// The first and the last file that it put.
    ends: Mutex<Option<(FileName, FileName)>>,
    /// Whether a pack vanished that was to be taken over.
    missed: AtomicBool,
    /// When it looked into `prune/`, before it relied on anything.
    begun: Moment,
}

#[derive(Debug, Default)]
struct Done {
    /// Packs for the next index object: at most [`limits::INDEX_BLOBS`] chunks and those of the
    /// pack that makes them too many.
    waiting: Vec<IndexedPack>,
    waiting_blobs: usize,
    objects: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Starts writing. Nothing is stored yet.
    pub fn new(repository: Arc<Repository>) -> Result<Self> {
        repository.may_write()?;
        let begun = Moment::now(&*repository.clock);
        repository.refresh_condemned()?;
        let id = random::fresh(&*repository.random)?;
        Ok(Self {
            begun,
            repository,
            id,
            open: [Mutex::new(None), Mutex::new(None)],
            buffers: Arc::default(),
            seen: Mutex::default(),
            done: Mutex::default(),
            poison: Mutex::default(),
            stored: AtomicU64::new(0),
            ends: Mutex::default(),
            missed: AtomicBool::new(false),
        })
    }

    /// A worker for one thread.
    pub fn worker(&self) -> Worker<'_> {
        let mut context = CCtx::create();
        let level = context.set_parameter(CParameter::CompressionLevel(LEVEL));
        debug_assert!(level.is_ok(), "the level is a constant that zstd knows");
        Worker {
            writer: self,
            context,
            space: Vec::new(),
            written: 0,
        }
    }

    /// Bytes that were stored so far, in packs and index objects.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Makes what was stored, and what of it a killed writer left behind, durable and indexed.
    pub(crate) fn settle(&self) -> Result<()> {
        self.put_open()?;
        self.adopt()
    }

    /// Makes what was stored durable and puts the snapshot: from here on there is an archive.
    /// The writer's identity, the number of its index objects and what the tree needs are filled in.
    ///
    /// `Swept` if something that the archive relies on was pruned meanwhile: then there is none.
    pub fn commit(self, name: &SnapshotName, snapshot: Snapshot) -> Result<Snapshot> {
        self.commit_by(name, snapshot, Self::put_snapshot)
    }

    /// The same of a name that somebody else may have by then: `Exists` if so, and nothing was put.
    pub(crate) fn commit_new(self, name: &SnapshotName, snapshot: Snapshot) -> Result<Snapshot> {
        self.commit_by(name, snapshot, Self::put_new_snapshot)
    }

    fn put_snapshot(&self, name: &SnapshotName, _snapshot: &Snapshot, sealed: &[u8]) -> Result<()> {
        self.repository.storage.put(&name.file(), sealed)
    }

    fn put_new_snapshot(
        &self,
        name: &SnapshotName,
        snapshot: &Snapshot,
        sealed: &[u8],
    ) -> Result<()> {
        let storage = &self.repository.storage;
        match storage.put_new(&name.file(), sealed) {
            // It may be this one, whose reply was lost.
            Err(e) if e.kind() == ErrorKind::Exists => {
                if self.repository.any_snapshot(name)?.id != snapshot.id {
                    return Err(e);
                }
                storage.settle(&name.file())
            }
            put => put,
        }
    }

    fn commit_by(
        self,
        name: &SnapshotName,
        mut snapshot: Snapshot,
        put: impl Fn(&Self, &SnapshotName, &Snapshot, &[u8]) -> Result<()>,
    ) -> Result<Snapshot> {
        self.settle()?;
        snapshot.writer = hex(&self.id);
        snapshot.index_objects = lock(&self.done).objects;
        snapshot
            .repository
            .clone_from(&self.repository.config().repository);
        snapshot.id = hex(&random::fresh::<16>(&*self.repository.random)?);
        snapshot.generation = self.repository.generation;
        snapshot.stats.stored = self.stored();
        if snapshot.tree.is_some() && !snapshot.needs.iter().any(|need| need == features::TREES) {
            snapshot.needs.push(features::TREES.to_owned());
        }
        let file = name.file();
        // An archive that no program would read again is no archive.
        snapshot.check_limits(name)?;
        let mut begun = self.begun;
        let (long, swept) = both(
            &*self.repository.storage,
            || self.took_long(),
            || fence::is_swept_since(&self.repository, &snapshot),
        )?;
        if long || swept {
            begun = Moment::now(&*self.repository.clock);
            // As if it had begun now: no sweep that was there has missed it.
            snapshot.generation = fence::prove(&self.repository, name, &snapshot)?;
        }
        let body = snapshot.encode()?;
        let (keys, random) = (&self.repository.keys, &*self.repository.random);
        let sealed = envelope::seal(keys, random, Kind::Snapshot, &file, &body)?;
        put(&self, name, &snapshot, &sealed)?;
        fence::look_again(&self.repository, name, &snapshot, begun)?;
        Ok(snapshot)
    }

    /// Whether what it relies on may have been condemned and swept since it began, as far as lists
    /// that are old would show, or a pack vanished. The storage's clock is asked too: it goes on
    /// while this machine's stand still.
    fn took_long(&self) -> Result<bool> {
        let limit = limits::WRITER_SECONDS_MAX;
        if self.missed.load(Ordering::Relaxed)
            || self.begun.is_before(&*self.repository.clock, limit)
        {
            return Ok(true);
        }
        let ends = lock(&self.ends).clone();
        let Some((first, last)) = ends else {
            return Ok(false);
        };
        let storage = &self.repository.storage;
        // One that is gone already was there for long.
        let time = |file: &FileName| match storage.modified(file) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            time => time.map(Some),
        };
        let times = both(&**storage, || time(&first), || time(&last))?;
        let (Some(first), Some(last)) = times else {
            return Ok(true);
        };
        Ok(last.abs_diff(first) > limit)
    }

    /// The identity of a chunk, and whether the caller is the one who must store it now: then
    /// nobody else will.
    pub(crate) fn claim(&self, class: Class, plaintext: &[u8]) -> Result<(ChunkId, bool)> {
        if plaintext.len() > limits::CHUNK_MAX {
            let what = format!("a chunk of {} bytes is too large", plaintext.len());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let id = self.repository.keys.chunk_id(class, plaintext);
        let new = !self.is_indexed(&id)? && lock(&self.seen).insert(id);
        Ok((id, new))
    }

    fn is_indexed(&self, id: &ChunkId) -> Result<bool> {
        self.repository.has_chunk(id)
    }

    /// Whether a chunk is there, or was given to this writer.
    pub(crate) fn has(&self, id: &ChunkId) -> Result<bool> {
        // In this order: what is indexed meanwhile goes from one to the other.
        let seen = lock(&self.seen).contains(id);
        Ok(seen || self.is_indexed(id)?)
    }

    /// What was claimed will not be stored: nothing may be committed.
    pub(crate) fn give_up(&self, why: &Error) {
        lock(&self.poison).get_or_insert_with(|| why.clone());
    }

    /// Makes what was stored so far durable and puts it into the index, where it can be read from
    /// here on, while this goes on writing.
    pub fn flush(&self) -> Result<()> {
        // What fails here is in no pack or index object any more.
        self.poisoned(self.put_open().and_then(|()| self.flush_index(1)))
    }

    /// Puts the open packs.
    fn put_open(&self) -> Result<()> {
        self.check()?;
        let put = |open: &Mutex<Option<(Room, OpenPack)>>| {
            let pack = lock(open).take();
            match pack.filter(|(_, pack)| !pack.is_empty()) {
                Some((room, pack)) => self.put_pack(room, pack.finish(&self.repository.keys)),
                None => Ok(()),
            }
        };
        let [one, other] = &self.open;
        both(&*self.repository.storage, || put(one), || put(other)).map(drop)
    }

    /// The first failure, if there was one: after it nothing more is written.
    fn check(&self) -> Result<()> {
        match &*lock(&self.poison) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn poisoned<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            lock(&self.poison).get_or_insert_with(|| error.clone());
        }
        result
    }

    /// Adds a blob to the open pack of its class; a pack that is full is put by this thread while
    /// the others go on, which bounds both memory and the number of writes under way.
    fn add(
        &self,
        class: Class,
        id: ChunkId,
        blob: &[u8],
        plain: usize,
        compressed: bool,
    ) -> Result<()> {
        self.check()?;
        let Repository { keys, random, .. } = &*self.repository;
        let mut open = lock(&self.open[usize::from(class.byte())]);
        let (room, mut pack) = if let Some(pack) = open.take() {
            pack
        } else {
            let (room, buffer) = self.buffers.take(|| Vec::with_capacity(PACK_ROOM));
            // A put that failed meanwhile is what made room.
            self.check()?;
            (room, OpenPack::new(keys, &**random, class, buffer)?)
        };
        pack.add(id, blob, plain, compressed);
        if !pack.is_full() {
            *open = Some((room, pack));
            return Ok(());
        }
        drop(open);
        self.put_pack(room, pack.finish(keys))?;
        self.flush_index(limits::INDEX_BLOBS)
    }

    /// Makes the packs durable that a killed writer left behind, and names them in the index with
    /// those of this writer: this snapshot may need what is in them.
    fn adopt(&self) -> Result<()> {
        let Repository { storage, keys, .. } = &*self.repository;
        // The lock keeps another writer from committing before they are durable.
        let mut index = self
            .repository
            .index
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let adopted = index.take_adopted();
        let mut packs = Vec::new();
        let settled = adopted.iter().try_for_each(|id| {
            let file = pack_file(id);
            let taken = storage.settle(&file).and_then(|()| {
                let length = storage.length(&file)?;
                read_pack(&**storage, keys, *id, length)
            });
            match taken {
                Ok(pack) => packs.push(pack),
                // Pruned meanwhile: whether anything was relied on in it is to be proven.
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    self.missed.store(true, Ordering::Relaxed);
                }
                Err(e) => return Err(e),
            }
            Ok(())
        });
        if let Err(error) = settled {
            index.put_back_adopted(adopted);
            return Err(error);
        }
        drop(index);
        let named = packs.into_iter().try_for_each(|pack| {
            self.indexed(pack);
            self.flush_index(limits::INDEX_BLOBS)
        });
        named.and_then(|()| self.flush_index(1)).inspect_err(|_| {
            let index = self.repository.index.write();
            (index.unwrap_or_else(PoisonError::into_inner)).put_back_adopted(adopted);
        })
    }

    /// Names a durable pack in the index.
    pub(crate) fn index(&self, pack: IndexedPack) -> Result<()> {
        self.indexed(pack);
        self.flush_index(limits::INDEX_BLOBS)
    }

    fn indexed(&self, pack: IndexedPack) {
        let mut done = lock(&self.done);
        done.waiting_blobs += pack.entries.len();
        done.waiting.push(pack);
    }

    /// Remembers what was put first, and last.
    fn has_put(&self, file: &FileName) {
        let mut ends = lock(&self.ends);
        let first = ends.take().map_or_else(|| file.clone(), |(first, _)| first);
        *ends = Some((first, file.clone()));
    }

    fn put_pack(&self, room: Room, pack: SealedPack) -> Result<()> {
        let SealedPack {
            id,
            class,
            mut bytes,
            entries,
        } = pack;
        let (file, length) = (pack_file(&id), bytes.len());
        self.repository.storage.put_buffer(&file, &mut bytes)?;
        self.has_put(&file);
        self.stored.fetch_add(length as u64, Ordering::Relaxed);
        self.indexed(IndexedPack {
            id,
            class,
            length: length_u32(length),
            entries,
        });
        room.give_back(bytes);
        Ok(())
    }

    /// Writes an index object if at least so many blobs wait for one.
    fn flush_index(&self, least: usize) -> Result<()> {
        let mut done = lock(&self.done);
        if done.waiting_blobs < least {
            return Ok(());
        }
        let packs = std::mem::take(&mut done.waiting);
        done.waiting_blobs = 0;
        let name = format!("index/{}/{:08}", hex(&self.id), done.objects).parse()?;
        done.objects += 1;
        let (keys, random) = (&self.repository.keys, &*self.repository.random);
        let sealed = envelope::seal(keys, random, Kind::Index, &name, &index::encode(&packs))?;
        self.repository.storage.put(&name, &sealed)?;
        self.has_put(&name);
        self.stored
            .fetch_add(sealed.len() as u64, Ordering::Relaxed);
        let mut index = self
            .repository
            .index
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut seen = lock(&self.seen);
        for pack in packs {
            for entry in &pack.entries {
                seen.remove(&entry.id);
            }
            index.add(pack);
        }
        Ok(())
    }
}

/// One thread's means of storing chunks.
pub struct Worker<'w> {
    writer: &'w Writer,
    context: CCtx<'static>,
    space: Vec<u8>,
    written: u64,
}

impl std::fmt::Debug for Worker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

impl Worker<'_> {
    /// Stores a chunk unless it is there: looked up before it is compressed.
    pub fn store(&mut self, class: Class, plaintext: &[u8]) -> Result<Stored> {
        let (id, new) = self.writer.claim(class, plaintext)?;
        if new {
            self.store_claimed(class, id, plaintext)?;
        }
        Ok(Stored { id, new })
    }

    /// Stores a chunk that was claimed.
    pub(crate) fn store_claimed(
        &mut self,
        class: Class,
        id: ChunkId,
        plaintext: &[u8],
    ) -> Result<()> {
        let writer = self.writer;
        let compressed = self.compress(plaintext);
        let blob = if compressed {
            &self.space[..]
        } else {
            plaintext
        };
        // Once a chunk was claimed, it must be stored, or nothing may be committed.
        writer.poisoned(writer.add(class, id, blob, plaintext.len(), compressed))?;
        self.written += blob.len() as u64;
        Ok(())
    }

    /// Bytes that this worker gave to be written out since it was last asked.
    pub fn take_written(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }

    /// Compresses into `space`; false if it is not worth it.
    fn compress(&mut self, plaintext: &[u8]) -> bool {
        if !looks_compressible(plaintext) {
            return false;
        }
        self.space.clear();
        self.space
            .reserve(zstd_safe::compress_bound(plaintext.len()));
        let worthwhile = plaintext.len() * WORTHWHILE / 256;
        match self.context.compress2(&mut self.space, plaintext) {
            Ok(length) => length < worthwhile,
            Err(_code) => false,
        }
    }
}

/// A quick look at a sample: bytes that occur evenly do not compress.
fn looks_compressible(plaintext: &[u8]) -> bool {
    const SAMPLE: usize = 8192;
    if plaintext.len() < 4 * SAMPLE {
        return true;
    }
    let mut counts = [0u32; 256];
    let step = plaintext.len() / SAMPLE;
    for byte in plaintext.iter().step_by(step).take(SAMPLE) {
        counts[usize::from(*byte)] += 1;
    }
    // The sum of squares of even counts is SAMPLE * SAMPLE / 256, and for random bytes one
    // SAMPLE more; data that compresses lies far above.
    let squares: u64 = counts.iter().map(|&c| u64::from(c) * u64::from(c)).sum();
    let even = (SAMPLE * SAMPLE / 256 + SAMPLE) as u64;
    squares > even + even / 64
}
