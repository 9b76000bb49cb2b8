//! Reads chunks, and disks of a snapshot at any offset.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zstd_safe::DCtx;

use crate::format::id::{ChunkId, PackId};
use crate::format::node::{self, Children, FAN_OUT};
use crate::format::pack::{self, Class, HEADER};
use crate::format::snapshot::{BlobRef, DiskRecord};
use crate::index::{Location, Pack, pack_file};
use crate::keys::Cipher;
use crate::map;
use crate::repository::Repository;
use crate::runs::Wanted;
use crate::{Error, ErrorKind, Result, limits};

/// The chunk ids of one lowest node of a map; `None` is all zeroes.
pub type Leaf = [Option<ChunkId>; FAN_OUT];

/// What zstd decompresses with: one for each thread that reads, made once, for it is large.
#[derive(Default)]
pub(crate) struct Contexts(Mutex<Vec<DCtx<'static>>>);

impl Contexts {
    fn decompress(
        &self,
        target: &mut [u8],
        blob: &[u8],
    ) -> std::result::Result<usize, zstd_safe::ErrorCode> {
        let idle = lock(&self.0).pop();
        let mut context = idle.unwrap_or_else(DCtx::create);
        let length = context.decompress(target, blob);
        lock(&self.0).push(context);
        length
    }
}

impl std::fmt::Debug for Contexts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Contexts").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Repository {
    /// Reads a chunk and proves that it is the one with this identity. If a copy is damaged, the
    /// next one is read; if all are, the error is about the first.
    pub(crate) fn read_chunk(&self, class: Class, id: &ChunkId) -> Result<Vec<u8>> {
        self.any_copy(id, |copy| {
            let mut chunk = vec![0; copy.plain as usize];
            self.read_copy(class, id, copy, &mut chunk)?;
            Ok(chunk)
        })
    }

    /// The same, to where it is wanted, which has the chunk's length.
    pub(crate) fn read_chunk_to(
        &self,
        class: Class,
        id: &ChunkId,
        target: &mut [u8],
    ) -> Result<()> {
        self.any_copy(id, |copy| self.read_copy(class, id, copy, target))
    }

    fn any_copy<T>(&self, id: &ChunkId, mut read: impl FnMut(&Location) -> Result<T>) -> Result<T> {
        let mut again = true;
        loop {
            let first = self.find(id)?;
            let error = match read(&first) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let mut vanished = (error.kind() == ErrorKind::NotFound).then_some(first.pack);
            let copies = self.index().all(id).unwrap_or_default();
            for copy in copies.iter().filter(|copy| !copy.is(&first)) {
                match read(copy) {
                    Ok(found) => return Ok(found),
                    Err(e) if e.kind() == ErrorKind::NotFound => vanished = Some(copy.pack),
                    Err(_) => {}
                }
            }
            // Pruning moves chunks to other packs, and removes those that it emptied.
            let Some(pack) = vanished.filter(|_| again) else {
                return Err(error);
            };
            again = false;
            if !self.refresh_without(pack)? {
                return Err(error);
            }
        }
    }

    /// Reads a copy into the target and proves it; after an error that holds anything.
    fn read_copy(
        &self,
        class: Class,
        id: &ChunkId,
        location: &Location,
        target: &mut [u8],
    ) -> Result<()> {
        let pack = self.pack_of(id, location)?;
        if class == Class::Data {
            self.may_read()?;
        }
        let range = u64::from(location.offset)..u64::from(location.offset + location.stored);
        let file = pack_file(&pack.id);
        let mut sealed = self.storage.read(&file, range.clone())?;
        match self.open_copy(class, id, location, &pack, &mut sealed, target) {
            // It may have been changed on its way: only what comes so twice is damage.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.storage.doubt(&file);
                let mut again = self.storage.read(&file, range)?;
                let opened = self.open_copy(class, id, location, &pack, &mut again, target);
                opened.map_err(|_same| error)
            }
            opened => opened,
        }
    }

    /// The pack that a chunk was found in.
    pub(crate) fn pack_of(&self, id: &ChunkId, location: &Location) -> Result<Pack> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let pack = index.pack(location.pack).cloned();
        pack.ok_or_else(|| index.absent(id))
    }

    /// Decrypts and decompresses what was read, into the target, and proves what is there then.
    pub(crate) fn open_copy(
        &self,
        class: Class,
        id: &ChunkId,
        location: &Location,
        pack: &Pack,
        sealed: &mut [u8],
        target: &mut [u8],
    ) -> Result<()> {
        if pack.class != class {
            return Err(pack::corrupt(&pack.id, "has the wrong class"));
        }
        let cipher = self.pack_cipher(&pack.id)?;
        self.open_copy_with(&cipher, class, id, location, &pack.id, sealed, target)
    }

    /// The same with the key of a pack of this class.
    #[expect(
        clippy::too_many_arguments,
        reason = "a chunk, its place and its bytes"
    )]
    pub(crate) fn open_copy_with(
        &self,
        cipher: &Cipher,
        class: Class,
        id: &ChunkId,
        location: &Location,
        pack: &PackId,
        sealed: &mut [u8],
        target: &mut [u8],
    ) -> Result<()> {
        let corrupt = |why: &str| Error::corrupt(format!("chunk {id} in pack {pack} {why}"));
        if location.plain as usize != target.len() {
            return Err(corrupt("has another length than its place"));
        }
        let blob = cipher
            .open_in_place(u64::from(location.number), &id.0, sealed)
            .ok_or_else(|| corrupt("does not open: it was changed"))?;
        let length = if location.compressed {
            self.contexts.decompress(target, blob).map_err(|code| {
                let why = zstd_safe::get_error_name(code);
                corrupt(&format!("does not decompress: {why}"))
            })?
        } else {
            let length = blob.len();
            if let Some(target) = target.get_mut(..length) {
                target.copy_from_slice(blob);
            }
            length
        };
        if length != target.len() || self.keys.chunk_id(class, target) != *id {
            return Err(corrupt("is not what its identity says"));
        }
        Ok(())
    }

    /// Has a pack's key read again.
    pub(crate) fn forget_pack_key(&self, id: &PackId) {
        lock(&self.pack_keys).remove(id);
    }

    pub(crate) fn knows_pack_key(&self, id: &PackId) -> bool {
        lock(&self.pack_keys).contains_key(id)
    }

    /// Takes a pack's key from its first bytes, if they open: whoever needs it reads them otherwise.
    pub(crate) fn learn_pack_key(&self, id: &PackId, bytes: &[u8]) {
        let opened = bytes
            .first_chunk::<HEADER>()
            .and_then(|header| pack::open_header(&self.keys, header));
        let Some((_, cipher)) = opened else { return };
        let mut keys = lock(&self.pack_keys);
        if keys.len() < limits::PACK_KEY_CACHE {
            let key = Arc::new(Mutex::new(Some(Ok(Arc::new(cipher)))));
            keys.entry(*id).or_insert(key);
        }
    }

    fn pack_cipher(&self, id: &PackId) -> Result<Arc<Cipher>> {
        let key = {
            let mut keys = lock(&self.pack_keys);
            if keys.len() >= limits::PACK_KEY_CACHE && !keys.contains_key(id) {
                keys.clear();
            }
            Arc::clone(keys.entry(*id).or_default())
        };
        // Others who need it wait for the one that reads it, and are told what that one is told: it
        // has tried for as long as anybody may.
        let mut read = lock(&key);
        if let Some(read) = &*read {
            return read.clone();
        }
        let cipher = self.read_pack_cipher(id);
        if cipher.is_err() {
            // Whoever comes later tries anew.
            let mut keys = lock(&self.pack_keys);
            if keys.get(id).is_some_and(|other| Arc::ptr_eq(other, &key)) {
                keys.remove(id);
            }
        }
        read.insert(cipher).clone()
    }

    fn read_pack_cipher(&self, id: &PackId) -> Result<Arc<Cipher>> {
        let file = pack_file(id);
        let open = || -> Result<_> {
            let header = self.storage.read(&file, 0..HEADER as u64)?;
            Ok(<[u8; HEADER]>::try_from(header)
                .ok()
                .and_then(|header| pack::open_header(&self.keys, &header)))
        };
        let mut opened = open()?;
        if opened.is_none() {
            self.storage.doubt(&file);
            opened = open()?;
        }
        match opened {
            Some((_, cipher)) => Ok(Arc::new(cipher)),
            None => Err(pack::corrupt(id, "has a header that does not open")),
        }
    }

    /// Bytes that lie in one data chunk.
    pub fn read_blob(&self, blob: &BlobRef) -> Result<Vec<u8>> {
        let bytes = match &blob.chunk {
            None => Vec::new(),
            Some(id) => self.read_chunk(Class::Data, id)?,
        };
        if bytes.len() != blob.length as usize {
            return Err(Error::corrupt(
                "a configuration has another length than its snapshot says",
            ));
        }
        Ok(bytes)
    }

    pub(crate) fn read_node(&self, id: &ChunkId) -> Result<Children> {
        decode_node(id, &self.read_chunk(Class::Metadata, id)?)
    }
}

pub(crate) fn decode_node(id: &ChunkId, body: &[u8]) -> Result<Children> {
    node::decode(body).ok_or_else(|| Error::corrupt(format!("map node {id} is not readable")))
}

/// A disk of a snapshot, readable at any offset by several threads.
#[derive(Debug)]
pub struct DiskReader {
    repository: Arc<Repository>,
    record: DiskRecord,
    levels: u32,
    nodes: Mutex<HashMap<ChunkId, Arc<Children>>>,
    chunks: Mutex<VecDeque<(ChunkId, Arc<Vec<u8>>)>>,
}

impl DiskReader {
    /// Opens a disk.
    pub fn new(repository: Arc<Repository>, record: DiskRecord) -> Self {
        let levels = map::levels(record.size, record.chunk_size);
        Self {
            repository,
            record,
            levels,
            nodes: Mutex::default(),
            chunks: Mutex::default(),
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    fn node(&self, id: &ChunkId) -> Result<Arc<Children>> {
        if let Some(node) = lock(&self.nodes).get(id) {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(self.repository.read_node(id)?);
        let mut nodes = lock(&self.nodes);
        if nodes.len() >= limits::NODE_CACHE {
            nodes.clear();
        }
        nodes.insert(*id, Arc::clone(&node));
        Ok(node)
    }

    /// The chunk ids of one lowest node, `FAN_OUT` chunks from `leaf * FAN_OUT` on; `None` if
    /// they are all zeroes.
    pub fn leaf(&self, leaf: u64) -> Result<Option<Leaf>> {
        Ok(self.descend(leaf)?.ok().map(|node| *node))
    }

    /// The lowest node, or the number of leaves from here on that are surely zeroes.
    pub(crate) fn descend(&self, leaf: u64) -> Result<std::result::Result<Arc<Children>, u64>> {
        let mut next = self.record.root;
        for level in (0..self.levels).rev() {
            let below = map::span(level);
            let Some(id) = next else {
                // A node that is `level` above the lowest has so many of those below it.
                let whole = map::span(level);
                return Ok(Err(whole - leaf % whole));
            };
            let node = self.node(&id)?;
            if level == 0 {
                return Ok(Ok(node));
            }
            let child = usize::try_from(leaf / (below / FAN_OUT as u64) % FAN_OUT as u64)
                .expect("a remainder of the fan-out is small");
            next = node[child];
        }
        Ok(Err(1))
    }

    pub(crate) fn chunk_size(&self) -> u32 {
        self.record.chunk_size
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Fails with `Invalid` if these bytes pass the end of the disk.
    pub(crate) fn check_end(&self, offset: u64, length: u64) -> Result<()> {
        let end = offset.checked_add(length);
        if end.is_some_and(|end| end <= self.size()) {
            return Ok(());
        }
        let size = self.size();
        let what = format!("cannot read {length} bytes at offset {offset} of a disk of {size}");
        Err(Error::new(ErrorKind::Invalid, what))
    }

    /// Fills the buffer from this offset; an error of kind `Invalid` past the end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check_end(offset, buffer.len() as u64)?;
        let chunk_size = u64::from(self.record.chunk_size);
        let (mut rest, mut position) = (buffer, offset);
        let mut wanted = Vec::new();
        while !rest.is_empty() {
            let number = position / chunk_size;
            let within = usize::try_from(position % chunk_size).expect("a chunk fits in memory");
            let room = self.record.chunk_size as usize - within;
            let take = room.min(rest.len());
            let (target, after) = std::mem::take(&mut rest).split_at_mut(take);
            match self.chunk_id(number)? {
                None => target.fill(0),
                // What is read whole is rarely read again soon.
                Some(id) if within == 0 && self.is_whole(position, take) => {
                    wanted.push(Wanted { id, target });
                }
                Some(id) => {
                    let chunk = self.chunk(&id)?;
                    let found = chunk.get(within..within + take).ok_or_else(|| {
                        Error::corrupt(format!("chunk {id} is shorter than its place on the disk"))
                    })?;
                    target.copy_from_slice(found);
                }
            }
            rest = after;
            position += take as u64;
        }
        self.repository.read_chunks_to(Class::Data, wanted)
    }

    /// Whether a chunk that begins at this offset has this length.
    fn is_whole(&self, start: u64, length: usize) -> bool {
        let whole = u64::from(self.record.chunk_size).min(self.size() - start);
        whole == length as u64
    }

    /// The identity of a chunk of the disk; `None` if it is all zeroes.
    pub fn chunk_id(&self, number: u64) -> Result<Option<ChunkId>> {
        let fan_out = FAN_OUT as u64;
        let within = usize::try_from(number % fan_out).expect("a remainder is small");
        Ok(self
            .descend(number / fan_out)?
            .ok()
            .and_then(|leaf| leaf[within]))
    }

    fn chunk(&self, id: &ChunkId) -> Result<Arc<Vec<u8>>> {
        if let Some((_, chunk)) = lock(&self.chunks).iter().find(|(known, _)| known == id) {
            return Ok(Arc::clone(chunk));
        }
        let chunk = Arc::new(self.repository.read_chunk(Class::Data, id)?);
        let mut chunks = lock(&self.chunks);
        if chunks.len() >= limits::CHUNK_CACHE {
            chunks.pop_front();
        }
        chunks.push_back((*id, Arc::clone(&chunk)));
        Ok(chunk)
    }

    /// The next run of data at or after this offset, as offset and length; it ends at a hole, or
    /// after one lowest node at the latest.
    pub fn next_data(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        let chunk_size = u64::from(self.record.chunk_size);
        let fan_out = FAN_OUT as u64;
        let chunks = self.size().div_ceil(chunk_size);
        let mut number = offset / chunk_size;
        while number < chunks {
            let leaf = match self.descend(number / fan_out)? {
                Ok(leaf) => leaf,
                Err(empty) => {
                    number = (number / fan_out)
                        .saturating_add(empty)
                        .saturating_mul(fan_out);
                    continue;
                }
            };
            let first = usize::try_from(number % fan_out).expect("a remainder is small");
            let Some(start) = (first..FAN_OUT).find(|i| leaf[*i].is_some()) else {
                number = (number / fan_out + 1) * fan_out;
                continue;
            };
            let end = (start..FAN_OUT)
                .find(|i| leaf[*i].is_none())
                .unwrap_or(FAN_OUT);
            let base = number / fan_out * fan_out;
            let from = ((base + start as u64) * chunk_size).max(offset);
            let to = ((base + end as u64) * chunk_size).min(self.size());
            return Ok((from < to).then_some((from, to - from)));
        }
        Ok(None)
    }
}
