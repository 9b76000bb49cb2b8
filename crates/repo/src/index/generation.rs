//! A generation of tables: opened, looked up in, and made of other generations and of what index
//! objects say.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::table::{self, Table};
use crate::format::bytes::{hex, length_u32};
use crate::format::envelope::{self, Kind};
use crate::format::id::{ChunkId, PackId};
use crate::format::table::{Cover, TableEntry, TablePack, decode_packs, encode_packs};
use crate::keys::Keys;
use crate::storage::{FileName, Storage, read_and_open};
use crate::{Error, Random, Result, limits, random};

/// An open generation.
#[derive(Debug)]
pub(crate) struct Generation {
    /// `tables/SEQUENCE-RANDOM`.
    pub(crate) folder: String,
    pub(crate) packs: Vec<TablePack>,
    pub(crate) writers: Vec<([u8; 16], Range<u32>)>,
    tables: Vec<Table>,
    first: Vec<ChunkId>,
}

fn file(folder: &str, kind: &str, number: usize) -> Result<FileName> {
    format!("{folder}/{kind}-{number:08}").parse()
}

fn read<T>(
    storage: &dyn Storage,
    keys: &Keys,
    name: &FileName,
    decode: fn(&[u8]) -> Option<T>,
) -> Result<T> {
    read_and_open(storage, name, limits::SEALED_MAX, |sealed| {
        let body = envelope::open(keys, Kind::Tables, name, sealed)?;
        decode(&body).ok_or_else(|| Error::corrupt(format!("{name} is not readable")))
    })
}

/// Where a generation says what it covers.
pub(crate) fn cover_file(folder: &str) -> Result<FileName> {
    format!("{folder}/cover").parse()
}

impl Generation {
    /// Reads what one covers.
    pub(crate) fn cover(storage: &dyn Storage, keys: &Keys, folder: &str) -> Result<Cover> {
        read(storage, keys, &cover_file(folder)?, Cover::decode)
    }

    /// Opens one that covers this.
    pub(crate) fn open(
        storage: &Arc<dyn Storage>,
        keys: &Keys,
        folder: &str,
        cover: Cover,
    ) -> Result<Self> {
        let mut packs = Vec::new();
        for number in 0..cover.packs {
            let name = file(folder, "packs", number as usize)?;
            packs.extend(read(&**storage, keys, &name, decode_packs)?);
        }
        let mut tables = Vec::with_capacity(cover.tables.len());
        for (number, (entries, _)) in cover.tables.iter().enumerate() {
            let name = file(folder, "entries", number)?;
            let table = Table::open(storage, keys, &name)?;
            if table.entries() != *entries as usize {
                return Err(Error::corrupt(format!(
                    "{name} has another length than its generation says"
                )));
            }
            tables.push(table);
        }
        Ok(Self {
            folder: folder.to_owned(),
            packs,
            writers: cover.writers,
            tables,
            first: cover.tables.iter().map(|(_, first)| *first).collect(),
        })
    }

    pub(crate) fn entries(&self) -> usize {
        self.tables.iter().map(Table::entries).sum()
    }

    /// All entries of an identity.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Vec<TableEntry>> {
        let mut found = Vec::new();
        // Copies of one chunk may begin at the end of the table before.
        let start = (self.first.partition_point(|first| first < id)).saturating_sub(1);
        for (table, first) in self.tables[start..].iter().zip(&self.first[start..]) {
            if *first > *id {
                break;
            }
            table.find(id, &mut found)?;
        }
        let strange = found
            .iter()
            .any(|entry| entry.pack as usize >= self.packs.len());
        if strange {
            return Err(self.strange());
        }
        Ok(found)
    }

    /// All entries in order.
    pub(crate) fn entries_in_order(&self) -> impl Iterator<Item = Result<TableEntry>> + '_ {
        self.tables.iter().flat_map(Table::scan)
    }

    /// All entries in order, each with its pack.
    pub(crate) fn source(&self) -> Source<'_, PackId> {
        Box::new(self.entries_in_order().map(|entry| {
            let entry = entry?;
            let pack = self
                .packs
                .get(entry.pack as usize)
                .ok_or_else(|| self.strange())?;
            Ok((entry, pack.id))
        }))
    }

    fn strange(&self) -> Error {
        let what = format!("{} names a pack that it does not have", self.folder);
        Error::corrupt(what)
    }
}

/// Entries in order of identities, each with what tells its pack.
pub(crate) type Source<'a, P> = Box<dyn Iterator<Item = Result<(TableEntry, P)>> + 'a>;

/// Makes a generation of what is in these, of packs that are there. Returns its folder.
pub(crate) fn build(
    storage: &dyn Storage,
    keys: &Keys,
    random: &dyn Random,
    sequence: u64,
    packs: &[TablePack],
    writers: Vec<([u8; 16], Range<u32>)>,
    sources: Vec<Source<'_, PackId>>,
) -> Result<String> {
    let folder = format!(
        "tables/{sequence:016x}-{}",
        hex(&random::fresh::<8>(random)?)
    );
    let numbers: HashMap<PackId, u32> = (0..).zip(packs).map(|(n, pack)| (pack.id, n)).collect();
    let mut cover = Cover {
        writers,
        ..Cover::default()
    };
    let mut waiting: Vec<TableEntry> = Vec::new();
    let mut put = |waiting: &mut Vec<TableEntry>| {
        let (Some(first), count) = (waiting.first(), waiting.len()) else {
            return Ok(());
        };
        let name = file(&folder, "entries", cover.tables.len())?;
        cover.tables.push((length_u32(count), first.entry.id));
        table::put(storage, keys, random, &name, waiting)?;
        waiting.clear();
        Ok::<(), Error>(())
    };
    for same in merge(sources) {
        let same = same?;
        let mut same: Vec<TableEntry> = (same.into_iter())
            .filter_map(|(entry, pack)| {
                let pack = *numbers.get(&pack)?;
                Some(TableEntry { pack, ..entry })
            })
            .collect();
        same.sort_by_key(TableEntry::rank);
        same.dedup_by_key(|entry| entry.rank());
        for entry in same {
            waiting.push(entry);
            if waiting.len() >= limits::TABLE_ENTRIES {
                put(&mut waiting)?;
            }
        }
    }
    put(&mut waiting)?;
    for (number, packs) in packs.chunks(limits::TABLE_PACKS).enumerate() {
        let name = file(&folder, "packs", number)?;
        let sealed = envelope::seal(keys, random, Kind::Tables, &name, &encode_packs(packs))?;
        storage.put(&name, &sealed)?;
        cover.packs += 1;
    }
    let name = cover_file(&folder)?;
    let sealed = envelope::seal(keys, random, Kind::Tables, &name, &cover.encode())?;
    storage.put(&name, &sealed)?;
    Ok(folder)
}

/// What sources have in order of identities, those of one identity together.
pub(crate) fn merge<P>(
    mut sources: Vec<Source<'_, P>>,
) -> impl Iterator<Item = Result<Vec<(TableEntry, P)>>> {
    let mut next: Vec<Option<Result<(TableEntry, P)>>> =
        sources.iter_mut().map(Iterator::next).collect();
    let key = |item: &Option<Result<(TableEntry, P)>>| match item {
        None => None,
        // An error is told at once.
        Some(Err(_)) => Some(ChunkId([0; 32])),
        Some(Ok((entry, _))) => Some(entry.entry.id),
    };
    let mut heap: BinaryHeap<Reverse<(ChunkId, usize)>> = (next.iter().enumerate())
        .filter_map(|(number, item)| Some(Reverse((key(item)?, number))))
        .collect();
    std::iter::from_fn(move || {
        let Reverse((id, _)) = *heap.peek()?;
        let mut same = Vec::new();
        while let Some(Reverse((found, number))) = heap.peek().copied() {
            if found != id {
                break;
            }
            heap.pop();
            let item = std::mem::replace(&mut next[number], sources[number].next());
            if let Some(id) = key(&next[number]) {
                heap.push(Reverse((id, number)));
            }
            match item {
                Some(Ok(item)) => same.push(item),
                Some(Err(error)) => return Some(Err(error)),
                None => {}
            }
        }
        Some(Ok(same))
    })
}
