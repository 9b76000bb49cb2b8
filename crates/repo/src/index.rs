//! Where chunks lie: by tables, which stay in the storage, and in memory by the index objects that no
//! table covers yet.

mod generation;
mod merge;
mod table;
mod tables;

use std::collections::{BTreeMap, HashMap, HashSet, hash_map};
use std::ops::Range;
use std::sync::Arc;

use crate::format::bytes::{length_u32, unhex};
use crate::format::envelope::{self, Kind};
use crate::format::id::{ChunkId, PackId};
use crate::format::index::{self, IndexedPack};
use crate::format::pack::{self, Class, Entry, HEADER, TRAILER};
use crate::keys::Keys;
use crate::parallel::both;
use crate::prune::folder::{Folder, Seen};
use crate::storage::{FileName, Storage, doubting, read_and_open};
pub(crate) use merge::merge;
pub use merge::{Merge, Merged};
use tables::Tables;

use crate::{Error, ErrorKind, Result, limits};

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

impl Location {
    /// Whether it is the same place.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.pack, self.number) == (other.pack, other.number)
    }

    /// Where this entry of a pack lies, the blob with this number in it.
    pub(crate) fn new(pack: u32, number: u32, entry: &Entry) -> Self {
        let Entry {
            id: _,
            offset,
            stored,
            plain,
            compressed,
        } = *entry;
        Self {
            number,
            pack,
            offset,
            stored,
            plain,
            compressed,
        }
    }
}

/// A pack that the index knows.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    pub(crate) id: PackId,
    pub(crate) class: Class,
    /// Bytes of its file.
    pub(crate) length: u32,
    /// The lowest number of a generation that condemns it: it is read and copied from, but nothing
    /// may rely on it.
    pub(crate) condemned: Option<u32>,
    /// It was there once, and is not any more: what is in it lies elsewhere, or nowhere.
    pub(crate) gone: bool,
    /// What is in it is known: by a table, …
    tabled: bool,
    /// … or in memory.
    loaded: bool,
}

impl Pack {
    /// Whether a chunk in it has a home.
    pub(crate) fn is_home(&self) -> bool {
        self.is_home_until(u32::MAX)
    }

    /// The same if generations with higher numbers than this did not condemn anything.
    fn is_home_until(&self, generation: u32) -> bool {
        !self.gone && self.condemned.is_none_or(|number| number > generation)
    }
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

/// All that is known of where chunks lie. What tables have stays in the storage but for about two
/// bytes of each chunk; of the others, which index objects or packs alone name, 65 to 130 bytes are
/// in memory.
#[derive(Debug, Default)]
pub(crate) struct Index {
    tables: Tables,
    chunks: Places,
    /// Further copies of chunks that lie in several packs, of which each is counted once.
    copies: HashMap<ChunkId, Vec<Location>>,
    packs: Vec<Pack>,
    known: HashMap<PackId, u32>,
    /// Index objects that were read.
    objects: HashSet<FileName>,
    adopted: Vec<PackId>,
    /// Packs and places that count no more: what is there does not open, or is about to go.
    shunned: HashSet<u32>,
    shunned_places: HashSet<(u32, u32)>,
    version: u64,
    seen: Seen,
    problems: Vec<(FileName, Error)>,
}

impl Index {
    /// Opens the tables, reads every index object that they do not cover, then the table of every
    /// pack that none of them names: what a writer that was killed had stored, or all packs if the
    /// index is lost.
    ///
    /// A pack that an index object names and that is not there is left out, with what is in it,
    /// so that a backup stores those chunks again.
    ///
    /// What was in `prune/` before is listed now if it was not.
    pub(crate) fn load(
        storage: &Arc<dyn Storage>,
        keys: &Keys,
        pruned: Option<Folder>,
    ) -> Result<Self> {
        let mut index = Self::default();
        index.read_after(storage, keys, pruned)?;
        Ok(index)
    }

    /// Adds what was stored since, and leaves out what is gone. The numbers of packs stay valid.
    pub(crate) fn refresh(&mut self, storage: &Arc<dyn Storage>, keys: &Keys) -> Result<()> {
        self.read_after(storage, keys, None)
    }

    fn read_after(
        &mut self,
        storage: &Arc<dyn Storage>,
        keys: &Keys,
        pruned: Option<Folder>,
    ) -> Result<()> {
        self.problems.clear();
        // Before all else: what is deleted since was condemned by then.
        let pruned = pruned.map_or_else(|| Folder::list(&**storage), Ok);
        let read = pruned.and_then(|pruned| self.read(storage, keys, pruned));
        if let Err(error) = &read {
            // What is not found now may be in what was not listed.
            self.doubt("index".parse()?, error.clone());
        }
        read
    }

    fn read(&mut self, storage: &Arc<dyn Storage>, keys: &Keys, pruned: Folder) -> Result<()> {
        let seen = Seen::read(&**storage, keys, pruned);
        // Whoever puts a table removes objects after it: what neither lists is read from packs.
        let (listed, mut objects) = both(
            &**storage,
            || self.tables.listed(&**storage),
            || self.new_objects(&**storage),
        )?;
        // The packs of an object that is listed were stored before it, so they are listed too.
        let (problems, present) = both(
            &**storage,
            || Ok(self.tables.refresh(storage, keys, &listed)),
            || present_packs(&**storage),
        )?;
        for (name, error) in problems? {
            self.doubt(name, error);
        }
        objects.retain(|name| {
            let object = object_of(name);
            object.is_some_and(|(writer, number)| !self.tables.covers(&writer, number))
        });
        for pack in &mut self.packs {
            let gone = present.get(&pack.id) != Some(&u64::from(pack.length));
            self.version += u64::from(gone != pack.gone);
            pack.gone = gone;
            pack.tabled = false;
        }
        let (packs, known) = (&mut self.packs, &mut self.known);
        self.tables.number(|pack| {
            let there = present.get(&pack.id) == Some(&u64::from(pack.length));
            there.then(|| {
                let number = numbered(packs, known, pack.id, pack.class, pack.length);
                packs[number as usize].tabled = true;
                number
            })
        });
        for name in objects {
            match read_object(&**storage, keys, &name) {
                Ok(packs) => {
                    for pack in packs {
                        if present.get(&pack.id) == Some(&u64::from(pack.length)) {
                            self.add(pack);
                        }
                    }
                    self.objects.insert(name);
                }
                // Pruned since it was listed.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                // The index is derived: what cannot be read is made good from the packs.
                Err(error) => self.doubt(name, error),
            }
        }
        for (id, length) in present {
            let known = (self.known.get(&id)).and_then(|number| self.pack(*number));
            if known.is_none_or(|pack| !pack.tabled && !pack.loaded) {
                match read_pack(&**storage, keys, id, length) {
                    Ok(pack) => {
                        // What is condemned is not relied on, so it need not last.
                        if !seen.condemned.contains_key(&id) {
                            self.adopted.push(id);
                        }
                        self.add(pack);
                    }
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    Err(error) => self.doubt(pack_file(&id), error),
                }
            }
        }
        for pack in &mut self.packs {
            // Never taken back: who condemned it may be about to delete it.
            let condemned = seen.condemned.get(&pack.id).copied();
            pack.condemned = pack.condemned.into_iter().chain(condemned).min();
        }
        // Last: whoever finds it to be as it was trusts that all else is known too.
        self.seen = seen;
        Ok(())
    }

    /// Index objects that were not read yet.
    fn new_objects(&self, storage: &dyn Storage) -> Result<Vec<FileName>> {
        let mut objects = Vec::new();
        storage.list(&"index".parse()?, &mut |name, _| {
            let new = object_of(name).is_some() && !self.objects.contains(name);
            objects.extend(new.then(|| name.clone()));
            Ok(())
        })?;
        Ok(objects)
    }

    /// What was known of pruning when the index was read.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Reads all from index objects and packs from here on.
    pub(crate) fn leave_tables(&mut self) {
        self.tables.distrust();
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
    pub(crate) fn adopted(&self) -> &[PackId] {
        &self.adopted
    }

    /// The same, for whoever makes them durable and names them.
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
        let IndexedPack {
            id,
            class,
            entries,
            length,
        } = indexed;
        let pack = numbered(&mut self.packs, &mut self.known, id, class, length);
        if std::mem::replace(&mut self.packs[pack as usize].loaded, true) {
            return;
        }
        self.version += 1;
        for (number, entry) in (0u32..).zip(entries) {
            let location = Location::new(pack, number, &entry);
            match self.chunks.part_mut(&entry.id).entry(entry.id) {
                hash_map::Entry::Vacant(place) => drop(place.insert(location)),
                hash_map::Entry::Occupied(_) => {
                    self.copies.entry(entry.id).or_default().push(location);
                }
            }
        }
    }

    /// Where a chunk lies, its home first if it has one.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Option<Location>> {
        Ok(self.best(id, u32::MAX)?.map(|(place, _)| place))
    }

    /// Where a chunk lies in a pack that is not condemned: only on that may anything rely.
    pub(crate) fn home(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.home_until(id, u32::MAX)
    }

    /// The same if generations with higher numbers than this did not condemn anything.
    pub(crate) fn home_until(&self, id: &ChunkId, generation: u32) -> Result<Option<Location>> {
        let best = self.best(id, generation)?;
        Ok(best.and_then(|(place, is_home)| is_home.then_some(place)))
    }

    /// A home by these generations, or else any place; whether it is one.
    fn best(&self, id: &ChunkId, generation: u32) -> Result<Option<(Location, bool)>> {
        let is_home = |place: &Location| {
            self.is_there(place) && self.packs[place.pack as usize].is_home_until(generation)
        };
        if let Some(place) = (self.chunks.part(id).get(id)).filter(|place| is_home(place)) {
            return Ok(Some((*place, true)));
        }
        let all = self.all(id)?;
        let home = all.iter().find(|place| is_home(place));
        Ok((home.or_else(|| all.first())).map(|place| (*place, home.is_some())))
    }

    /// Tells one state of the index from another.
    pub(crate) fn version(&self) -> u64 {
        self.version + self.tables.version()
    }

    /// The place that stands for a chunk in marks, as long as the index is the same.
    pub(crate) fn standing(&self, id: &ChunkId) -> Result<Option<Location>> {
        Ok(stands(&self.all(id)?))
    }

    /// Calls `each` with every chunk and its places, as far as they are there, in order of
    /// identities.
    pub(crate) fn each(
        &self,
        each: &mut dyn FnMut(&ChunkId, &[Location]) -> Result<()>,
    ) -> Result<()> {
        let mut ids: Vec<&ChunkId> = self.chunks.0.iter().flat_map(HashMap::keys).collect();
        ids.sort_unstable();
        let mut ids = ids.into_iter().peekable();
        let mut tell = |id: &ChunkId, mut places: Vec<Location>| {
            places.retain(|place| self.is_there(place));
            if places.is_empty() {
                return Ok(());
            }
            each(id, &places)
        };
        self.tables.each(&mut |id, mut places| {
            while let Some(before) = ids.next_if(|before| *before < id) {
                tell(before, self.in_memory(before).collect())?;
            }
            if ids.next_if_eq(&id).is_some() {
                let others: Vec<_> = self.in_memory(id).collect();
                places.retain(|place| !others.iter().any(|other| other.is(place)));
                places.extend(others);
            }
            tell(id, places)
        })?;
        ids.try_for_each(|id| tell(id, self.in_memory(id).collect()))
    }

    /// The places of a chunk that are in memory.
    fn in_memory(&self, id: &ChunkId) -> impl Iterator<Item = Location> {
        let copies = self.copies.get(id).into_iter().flatten();
        let first = self.chunks.part(id).get(id);
        first.into_iter().chain(copies).copied()
    }

    pub(crate) fn packs(&self) -> &[Pack] {
        &self.packs
    }

    /// All places where it lies.
    pub(crate) fn all(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let mut places: Vec<Location> = self.in_memory(id).collect();
        self.tables.find(id, &mut places)?;
        places.retain(|place| self.is_there(place));
        Ok(places)
    }

    fn is_there(&self, place: &Location) -> bool {
        let shunned = self.shunned.contains(&place.pack)
            || self.shunned_places.contains(&(place.pack, place.number));
        !shunned && self.pack(place.pack).is_some_and(|pack| !pack.gone)
    }

    /// Takes what lies in a pack for absent from here on.
    pub(crate) fn shun(&mut self, pack: u32) {
        self.shunned.insert(pack);
        let id = self.pack(pack).map(|pack| pack.id);
        self.adopted.retain(|adopted| Some(*adopted) != id);
    }

    /// The same of one blob of it.
    pub(crate) fn shun_place(&mut self, pack: u32, number: u32) {
        self.shunned_places.insert((pack, number));
    }

    /// Takes this for what lies in a pack, whatever was known of it; its number from here on.
    pub(crate) fn replace(&mut self, table: &IndexedPack) -> u32 {
        if let Some(number) = self.number_of(&table.id) {
            self.shun(number);
        }
        self.known.remove(&table.id);
        self.add(IndexedPack {
            id: table.id,
            class: table.class,
            length: table.length,
            entries: table.entries.clone(),
        });
        self.number_of(&table.id).unwrap_or_default()
    }

    /// The number of a pack that is known.
    pub(crate) fn number_of(&self, id: &PackId) -> Option<u32> {
        self.known.get(id).copied()
    }

    pub(crate) fn pack(&self, number: u32) -> Option<&Pack> {
        self.packs.get(number as usize)
    }

    /// Chunks, each as often as it is there, and packs.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let chunks: usize = self.chunks.0.iter().map(HashMap::len).sum();
        let packs = self.packs.iter().filter(|pack| !pack.gone);
        (chunks + self.tables.entries(), packs.count())
    }
}

/// Which of the places of a chunk stands for it in marks.
pub(crate) fn stands(places: &[Location]) -> Option<Location> {
    (places.iter().copied()).min_by_key(|place| (place.pack, place.number))
}

/// The number of a pack, which is given to it if it is new.
fn numbered(
    packs: &mut Vec<Pack>,
    known: &mut HashMap<PackId, u32>,
    id: PackId,
    class: Class,
    length: u32,
) -> u32 {
    *known.entry(id).or_insert_with(|| {
        packs.push(Pack {
            id,
            class,
            length,
            condemned: None,
            gone: false,
            tabled: false,
            loaded: false,
        });
        length_u32(packs.len() - 1)
    })
}

/// The pack whose file this is; what has no pack's name is none, whatever it holds.
pub(crate) fn pack_of(name: &FileName) -> Option<PackId> {
    let (_, last) = name.as_str().rsplit_once('/')?;
    let id = PackId(unhex(last)?);
    (pack_file(&id) == *name).then_some(id)
}

/// The packs that are there, and their lengths.
fn present_packs(storage: &dyn Storage) -> Result<BTreeMap<PackId, u64>> {
    let mut present = BTreeMap::new();
    storage.list(&"packs".parse()?, &mut |name, length| {
        if let Some(id) = pack_of(name) {
            present.insert(id, length);
        }
        Ok(())
    })?;
    Ok(present)
}

/// The writer and number of an index object; `None` if a file has another name.
pub(crate) fn object_of(name: &FileName) -> Option<([u8; 16], u32)> {
    let (writer, number) = name.as_str().strip_prefix("index/")?.split_once('/')?;
    let digits = number.len() == 8 && number.bytes().all(|b| b.is_ascii_digit());
    Some((unhex(writer)?, digits.then(|| number.parse().ok())??))
}

pub(crate) fn read_object(
    storage: &dyn Storage,
    keys: &Keys,
    name: &FileName,
) -> Result<Vec<IndexedPack>> {
    read_and_open(storage, name, limits::SEALED_MAX, |file| {
        let body = envelope::open(keys, Kind::Index, name, file)?;
        index::decode(&body).ok_or_else(|| Error::corrupt(format!("{name} is not readable")))
    })
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
    doubting(storage, &file, || {
        read_table(keys, id, length, &|range| storage.read(&file, range))
    })
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
    let class = pack::check_header(keys, &header)
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
