//! Merges what index objects say into tables, so that who opens the repository reads less. The
//! memory it takes is bounded by [`limits::MERGE_BLOBS`], whatever the repository has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::generation::{Generation, Source, build, cover_file};
use super::tables::{Covered, Tables, generations, sequence};
use super::{object_of, pack_of, read_object};
use crate::format::bytes::length_u32;
use crate::format::id::PackId;
use crate::format::index::IndexedPack;
use crate::format::table::{TableEntry, TablePack};
use crate::keys::Keys;
use crate::storage::{FileName, Storage};
use crate::{ErrorKind, Random, Result, limits};

/// What was merged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Merged {
    /// Index objects that no table had covered.
    pub objects: u64,
    /// Entries of tables that were written.
    pub written: u64,
    /// Entries of all tables now.
    pub entries: u64,
}

/// When index objects are merged into tables.
#[derive(Clone, Copy, Debug)]
pub enum Merge {
    /// Once there are [`limits::MERGE_LEAST_OBJECTS`] of them or they have
    /// [`limits::MERGE_LEAST_BYTES`].
    WhenMany,
    /// If there are any.
    Always,
}

/// Packs that are there, with their lengths.
type Present = BTreeMap<PackId, u64>;

/// Merges index objects, and small generations of tables with them.
pub(crate) fn merge(
    storage: &Arc<dyn Storage>,
    keys: &Keys,
    random: &dyn Random,
    when: Merge,
) -> Result<Merged> {
    match try_merge(storage, keys, random, when) {
        // Index objects and packs have all that tables have.
        Err(e) if e.kind() == ErrorKind::Corrupt => {
            for folder in generations(&**storage)? {
                remove(&**storage, &folder)?;
            }
            try_merge(storage, keys, random, when)
        }
        merged => merged,
    }
}

fn try_merge(
    storage: &Arc<dyn Storage>,
    keys: &Keys,
    random: &dyn Random,
    when: Merge,
) -> Result<Merged> {
    let mut tables = Tables::default();
    // Before those in use are opened: what another merge makes from here on is not looked at.
    let mut superseded = generations(&**storage)?;
    // What cannot be opened is made anew from the index objects, but not what cannot be read now.
    for (cover, error) in tables.refresh_now(storage, keys)? {
        if error.kind() != ErrorKind::Corrupt {
            superseded.retain(|folder| !cover.as_str().starts_with(folder.as_str()));
        }
    }
    let (objects, bytes) = uncovered(&**storage, &tables)?;
    let few = objects.len() < limits::MERGE_LEAST_OBJECTS && bytes < limits::MERGE_LEAST_BYTES;
    if objects.is_empty() || (few && matches!(when, Merge::WhenMany)) {
        return Ok(Merged {
            entries: tables.entries() as u64,
            ..Merged::default()
        });
    }
    let used: BTreeSet<&str> = tables.generations().map(|g| g.folder.as_str()).collect();
    superseded.retain(|folder| !used.contains(folder.as_str()));
    let mut merging = Merging {
        storage,
        keys,
        random,
        present: present(&**storage)?,
        written: 0,
    };
    let mut batch = Batch::new();
    let mut merged = Merged::default();
    for (name, writer, object) in objects {
        // It stays uncovered, and whoever opens the repository is told why.
        let Ok(packs) = read_object(&**storage, keys, &name) else {
            continue;
        };
        if batch.entries.len() >= limits::MERGE_BLOBS {
            merging.put(std::mem::replace(&mut batch, Batch::new()), &[])?;
        }
        batch.add(writer, object, packs);
        merged.objects += 1;
    }
    tables.refresh_now(storage, keys)?;
    let mut all: Vec<&Generation> = tables.generations().collect();
    all.sort_by_key(|generation| generation.entries());
    // Each generation is at least twice as large as all smaller ones together: so an entry is
    // written again only as often as the repository doubles.
    let mut size = batch.entries.len();
    all.retain(|generation| {
        let joins = generation.entries() < 2 * size || merging.is_mostly_gone(generation);
        size += if joins { generation.entries() } else { 0 };
        joins
    });
    let newest = merging.put(batch, &all)?;
    for folder in &superseded {
        remove(&**storage, folder)?;
    }
    remove_unfinished(&**storage, &newest)?;
    let mut tables = Tables::default();
    tables.refresh_now(storage, keys)?;
    merged.written = merging.written;
    merged.entries = tables.entries() as u64;
    Ok(merged)
}

/// Index objects that no table covers, and their bytes.
fn uncovered(storage: &dyn Storage, tables: &Tables) -> Result<(Vec<Object>, u64)> {
    let (mut objects, mut bytes) = (Vec::new(), 0);
    storage.list(&"index".parse()?, &mut |name, length| {
        if let Some((writer, object)) = object_of(name)
            && !tables.covers(&writer, object)
        {
            objects.push((name.clone(), writer, object));
            bytes += length;
        }
        Ok(())
    })?;
    Ok((objects, bytes))
}

/// An index object's name, writer and number.
type Object = (FileName, [u8; 16], u32);

fn present(storage: &dyn Storage) -> Result<Present> {
    let mut present = Present::new();
    storage.list(&"packs".parse()?, &mut |name, length| {
        present.extend(pack_of(name).map(|id| (id, length)));
        Ok(())
    })?;
    Ok(present)
}

/// What some index objects say.
struct Batch {
    /// Their packs are numbers in the next list.
    entries: Vec<TableEntry>,
    packs: Vec<TablePack>,
    covered: Covered,
}

impl Batch {
    fn new() -> Self {
        Self {
            // What is not used of it is no memory yet, and growing would have it twice.
            entries: Vec::with_capacity(limits::MERGE_BLOBS + limits::INDEX_BLOBS),
            packs: Vec::new(),
            covered: Covered::default(),
        }
    }

    fn add(&mut self, writer: [u8; 16], object: u32, packs: Vec<IndexedPack>) {
        (self.covered).add(&[(writer, object..object.saturating_add(1))]);
        for pack in packs {
            let IndexedPack {
                id,
                class,
                length,
                entries,
            } = pack;
            let number = length_u32(self.packs.len());
            self.packs.push(TablePack { id, class, length });
            let entries = (0..).zip(entries).map(|(place, entry)| TableEntry {
                pack: number,
                number: place,
                entry,
            });
            self.entries.extend(entries);
        }
    }
}

struct Merging<'a> {
    storage: &'a Arc<dyn Storage>,
    keys: &'a Keys,
    random: &'a dyn Random,
    present: Present,
    written: u64,
}

impl Merging<'_> {
    fn is_there(&self, pack: &TablePack) -> bool {
        self.present.get(&pack.id) == Some(&u64::from(pack.length))
    }

    /// Whether more than a quarter of its packs are not there any more.
    fn is_mostly_gone(&self, generation: &Generation) -> bool {
        let gone = generation.packs.iter().filter(|pack| !self.is_there(pack));
        gone.count() * 4 > generation.packs.len()
    }

    /// Makes a generation of these, and removes those that it was made of. Its folder.
    fn put(&mut self, batch: Batch, joined: &[&Generation]) -> Result<String> {
        let Batch {
            mut entries,
            packs: named,
            mut covered,
        } = batch;
        entries.sort_unstable_by_key(TableEntry::rank);
        self.written += entries.len() as u64;
        let mut packs: BTreeMap<PackId, TablePack> =
            named.iter().map(|pack| (pack.id, *pack)).collect();
        let entries = entries.into_iter();
        let mut sources: Vec<Source<'_, PackId>> = vec![Box::new(
            entries.map(|entry| Ok((entry, named[entry.pack as usize].id))),
        )];
        for generation in joined {
            packs.extend(generation.packs.iter().map(|pack| (pack.id, *pack)));
            covered.add(&generation.writers);
            self.written += generation.entries() as u64;
            sources.push(generation.source());
        }
        let mut packs: Vec<TablePack> = packs.into_values().collect();
        packs.retain(|pack| self.is_there(pack));
        let storage = &**self.storage;
        let newest = generations(storage)?.into_iter().next_back();
        let sequence = match newest.as_deref().and_then(sequence) {
            None => 0,
            Some(newest) => newest.saturating_add(1),
        };
        let covered = covered.into_writers();
        let folder = build(
            storage,
            self.keys,
            self.random,
            sequence,
            &packs,
            covered,
            sources,
        )?;
        for generation in joined {
            remove(storage, &generation.folder)?;
        }
        Ok(folder)
    }
}

/// Removes a generation: first what makes it one.
fn remove(storage: &dyn Storage, folder: &str) -> Result<()> {
    storage.remove(&cover_file(folder)?)?;
    let mut files = Vec::new();
    storage.list(&folder.parse()?, &mut |name, _| {
        files.push(name.clone());
        Ok(())
    })?;
    files.iter().try_for_each(|file| storage.remove(file))
}

/// Removes what a merge left behind that was killed a day before this generation was made.
fn remove_unfinished(storage: &dyn Storage, newest: &str) -> Result<()> {
    let now = storage.modified(&cover_file(newest)?)?;
    let finished = generations(storage)?;
    let mut files = Vec::new();
    storage.list(&"tables".parse()?, &mut |name, _| {
        let folder = name.as_str().rsplit_once('/').map(|(folder, _)| folder);
        let unfinished =
            folder.filter(|folder| sequence(folder).is_some() && !finished.contains(*folder));
        files.extend(unfinished.map(|_| name.clone()));
        Ok(())
    })?;
    for file in files {
        match storage.modified(&file) {
            Ok(time) if time.saturating_add(limits::UNFINISHED_AGE_SECONDS) < now => {
                storage.remove(&file)?;
            }
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
