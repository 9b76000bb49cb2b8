//! Where chunks lie: all index objects of a repository, in memory.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map};
use std::ops::Range;

use crate::format::bytes::unhex;
use crate::format::envelope::{self, Kind};
use crate::format::id::{ChunkId, PackId};
use crate::format::index::{self, IndexedPack};
use crate::format::pack::{self, Class, Entry, HEADER, TRAILER};
use crate::keys::Keys;
use crate::storage::{FileName, Storage, read_all};
use crate::{Error, Result, limits};

/// Where a chunk lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    /// The number of the blob in its pack, which is its nonce.
    pub(crate) number: u32,
    pub(crate) pack: u32,
    pub(crate) offset: u32,
    pub(crate) stored: u32,
    pub(crate) plain: u32,
    pub(crate) compressed: bool,
}

/// A pack that the index knows.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    pub(crate) id: PackId,
    pub(crate) class: Class,
}

/// Chunk id to place, in 16 parts by the identity's first bits: a map that grows is there twice
/// meanwhile, and so only a part of this one ever is.
#[derive(Debug)]
struct Places(Vec<HashMap<ChunkId, Location>>);

impl Default for Places {
    fn default() -> Self {
        Self(vec![HashMap::new(); 16])
    }
}

impl Places {
    fn part(&self, id: &ChunkId) -> &HashMap<ChunkId, Location> {
        &self.0[usize::from(id.0[0] >> 4)]
    }

    fn part_mut(&mut self, id: &ChunkId) -> &mut HashMap<ChunkId, Location> {
        &mut self.0[usize::from(id.0[0] >> 4)]
    }
}

/// All that is known of where chunks lie. It grows with what lies in the repository's packs, and
/// with nothing else: 65 to 130 bytes of memory for each chunk.
#[derive(Debug, Default)]
pub(crate) struct Index {
    chunks: Places,
    /// Further copies of chunks that lie in several packs, of which each is counted once.
    copies: HashMap<ChunkId, Vec<Location>>,
    packs: Vec<Pack>,
    known: HashSet<PackId>,
    adopted: Vec<PackId>,
    problems: Vec<(FileName, Error)>,
}

impl Index {
    /// Reads every index object, then the table of every pack that none of them names: what a
    /// writer that was killed had stored, or all packs if the index is lost.
    ///
    /// A pack that an index object names and that is not there is left out, with what is in it,
    /// so that a backup stores those chunks again.
    pub(crate) fn load(storage: &dyn Storage, keys: &Keys) -> Result<Self> {
        let mut index = Self::default();
        index.refresh(storage, keys)?;
        Ok(index)
    }

    /// Adds what was stored since. Places that were found stay valid.
    pub(crate) fn refresh(&mut self, storage: &dyn Storage, keys: &Keys) -> Result<()> {
        // The packs of an object that is listed were stored before it, so they are listed too.
        let mut objects = Vec::new();
        storage.list(&"index".parse()?, &mut |name, _| {
            objects.extend(is_object(name).then(|| name.clone()));
            Ok(())
        })?;
        let mut present = BTreeMap::new();
        storage.list(&"packs".parse()?, &mut |name, length| {
            if let Some(id) = pack_of(name) {
                present.insert(id, length);
            }
            Ok(())
        })?;
        self.problems.clear();
        for name in objects {
            match read_object(storage, keys, &name) {
                Ok(packs) => {
                    for pack in packs {
                        if present.get(&pack.id) == Some(&u64::from(pack.length)) {
                            self.add(pack);
                        }
                    }
                }
                // The index is derived: what cannot be read is made good from the packs.
                Err(error) => self.doubt(name, error),
            }
        }
        for (id, length) in present {
            if !self.known.contains(&id) {
                match read_pack(storage, keys, id, length) {
                    Ok(pack) => {
                        self.adopted.push(id);
                        self.add(pack);
                    }
                    Err(error) => self.doubt(pack_file(&id), error),
                }
            }
        }
        Ok(())
    }

    fn doubt(&mut self, name: FileName, error: Error) {
        if self.problems.len() < limits::PROBLEMS_MAX {
            self.problems.push((name, error));
        }
    }

    /// Files that could not be read when the index was loaded, and why; not all if they are many.
    pub(crate) fn problems(&self) -> &[(FileName, Error)] {
        &self.problems
    }

    /// Packs that no index object names: their writer was killed, or is at work. Nobody knows
    /// whether they are durable.
    pub(crate) fn take_adopted(&mut self) -> Vec<PackId> {
        std::mem::take(&mut self.adopted)
    }

    /// They could not be made durable.
    pub(crate) fn put_back_adopted(&mut self, packs: Vec<PackId>) {
        self.adopted.extend(packs);
    }

    /// The error about a chunk that is not in the index.
    pub(crate) fn absent(&self, id: &ChunkId) -> Error {
        let what = format!("chunk {id} is in no pack");
        match self.problems.first() {
            None => Error::corrupt(what),
            // A storage that could not be read is no proof of damage.
            Some((_, error)) => Error::with_source(
                error.kind(),
                format!("{what} that could be read"),
                error.clone(),
            ),
        }
    }

    pub(crate) fn add(&mut self, indexed: IndexedPack) {
        if !self.known.insert(indexed.id) {
            return;
        }
        let pack = crate::format::bytes::length_u32(self.packs.len());
        let IndexedPack {
            id,
            class,
            entries,
            length: _,
        } = indexed;
        self.packs.push(Pack { id, class });
        for (number, entry) in (0u32..).zip(entries) {
            let Entry {
                id,
                offset,
                stored,
                plain,
                compressed,
            } = entry;
            let location = Location {
                number,
                pack,
                offset,
                stored,
                plain,
                compressed,
            };
            match self.chunks.part_mut(&id).entry(id) {
                hash_map::Entry::Vacant(place) => drop(place.insert(location)),
                hash_map::Entry::Occupied(_) => {
                    self.copies.entry(id).or_default().push(location);
                }
            }
        }
    }

    pub(crate) fn find(&self, id: &ChunkId) -> Option<Location> {
        self.chunks.part(id).get(id).copied()
    }

    /// Where else it lies.
    pub(crate) fn copies(&self, id: &ChunkId) -> &[Location] {
        self.copies.get(id).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn pack(&self, number: u32) -> Option<&Pack> {
        self.packs.get(number as usize)
    }

    pub(crate) fn packs(&self) -> &[Pack] {
        &self.packs
    }

    pub(crate) fn len(&self) -> usize {
        self.chunks.0.iter().map(HashMap::len).sum()
    }
}

/// The pack whose file this is; what has no pack's name is none, whatever it holds.
pub(crate) fn pack_of(name: &FileName) -> Option<PackId> {
    let (_, last) = name.as_str().rsplit_once('/')?;
    let id = PackId(unhex(last)?);
    (pack_file(&id) == *name).then_some(id)
}

/// Whether a file has the name of an index object.
fn is_object(name: &FileName) -> bool {
    let parts: Vec<&str> = name.as_str().split('/').collect();
    matches!(&parts[..], ["index", writer, number] if unhex::<16>(writer).is_some()
        && number.len() == 8 && number.bytes().all(|b| b.is_ascii_digit()))
}

fn read_object(storage: &dyn Storage, keys: &Keys, name: &FileName) -> Result<Vec<IndexedPack>> {
    let file = read_all(storage, name, limits::SEALED_MAX)?;
    let body = envelope::open(keys, Kind::Index, name, &file)?;
    index::decode(&body).ok_or_else(|| Error::corrupt(format!("{name} is not readable")))
}

/// The name of a pack's file.
pub(crate) fn pack_file(id: &PackId) -> FileName {
    let text = id.to_string();
    format!("packs/{}/{text}", &text[..2])
        .parse()
        .expect("hexadecimal digits make a valid name")
}

/// What a pack's own table says.
pub(crate) fn read_pack(
    storage: &dyn Storage,
    keys: &Keys,
    id: PackId,
    length: u64,
) -> Result<IndexedPack> {
    let file = pack_file(&id);
    read_table(keys, id, length, &|range| storage.read(&file, range))
}

/// The same of a pack of this length whose parts are read in this way.
pub(crate) fn read_table(
    keys: &Keys,
    id: PackId,
    length: u64,
    read: &dyn Fn(Range<u64>) -> Result<Vec<u8>>,
) -> Result<IndexedPack> {
    let corrupt = |why| pack::corrupt(&id, why);
    let least = (HEADER + TRAILER) as u64;
    if !(least..=limits::PACK_MAX).contains(&length) {
        return Err(corrupt("has an impossible length"));
    }
    let header = read(0..HEADER as u64)?;
    let header: [u8; HEADER] = header
        .try_into()
        .map_err(|_short| corrupt("is too short for its header"))?;
    let (class, _) = pack::open_header(keys, &header)
        .ok_or_else(|| corrupt("has a header that does not open"))?;
    let trailer = read(length - TRAILER as u64..length)?;
    let table = pack::table_length(&trailer).ok_or_else(|| corrupt("has no proper end"))?;
    let table_offset = (length - TRAILER as u64)
        .checked_sub(table as u64)
        .filter(|offset| *offset >= HEADER as u64)
        .ok_or_else(|| corrupt("has a table longer than itself"))?;
    let table = read(table_offset..length - TRAILER as u64)?;
    let entries = pack::open_table(keys, &header, table, table_offset)
        .ok_or_else(|| corrupt("has a table that does not open"))?;
    let length = u32::try_from(length).map_err(|_long| corrupt("is too long"))?;
    Ok(IndexedPack {
        id,
        class,
        length,
        entries,
    })
}
