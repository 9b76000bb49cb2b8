//! The generations of tables that are in use.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::Location;
use super::generation::{self, Generation, Source, merge};
use crate::format::id::ChunkId;
use crate::format::table::TablePack;
use crate::keys::Keys;
use crate::storage::{FileName, Storage};
use crate::{Error, Result};

/// What a pack has for a number that is not there.
const GONE: u32 = u32::MAX;

/// A generation, and which packs of the index its own are.
#[derive(Debug)]
struct Numbered {
    generation: Generation,
    packs: Vec<u32>,
}

/// Generations, of which together each index object is covered once or more.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    generations: Vec<Numbered>,
    covered: Covered,
    version: u64,
    /// One did not open when it was looked up in: what they say is read elsewhere.
    distrusted: bool,
}

/// Which index objects of which writers are in tables.
#[derive(Debug, Default)]
pub(crate) struct Covered(HashMap<[u8; 16], Vec<Range<u32>>>);

impl Covered {
    pub(crate) fn add(&mut self, writers: &[([u8; 16], Range<u32>)]) {
        for (writer, objects) in writers {
            let ranges = self.0.entry(*writer).or_default();
            ranges.push(objects.clone());
            ranges.sort_by_key(|range| range.start);
            ranges.dedup_by(|next, last| {
                let joins = next.start <= last.end;
                if joins {
                    last.end = last.end.max(next.end);
                }
                joins
            });
        }
    }

    /// Whether all of these are covered.
    pub(crate) fn has(&self, writer: &[u8; 16], objects: &Range<u32>) -> bool {
        let mut ranges = self.0.get(writer).into_iter().flatten();
        ranges.any(|range| range.start <= objects.start && objects.end <= range.end)
    }

    fn has_all(&self, writers: &[([u8; 16], Range<u32>)]) -> bool {
        (writers.iter()).all(|(writer, objects)| self.has(writer, objects))
    }

    /// The same as what a generation says of itself.
    pub(crate) fn into_writers(self) -> Vec<([u8; 16], Range<u32>)> {
        let each = self.0.into_iter();
        let mut all: Vec<_> = each
            .flat_map(|(writer, ranges)| ranges.into_iter().map(move |range| (writer, range)))
            .collect();
        all.sort_by_key(|(writer, range)| (*writer, range.start));
        all
    }
}

impl Tables {
    /// The generations that are there; none once tables are let alone.
    pub(crate) fn listed(&self, storage: &dyn Storage) -> Result<BTreeSet<String>> {
        if self.distrusted {
            return Ok(BTreeSet::new());
        }
        generations(storage)
    }

    /// Opens generations that are new and leaves out those that are gone. Those that cannot be
    /// opened are told: what they cover is read elsewhere.
    pub(crate) fn refresh(
        &mut self,
        storage: &Arc<dyn Storage>,
        keys: &Keys,
        listed: &BTreeSet<String>,
    ) -> Result<Vec<(FileName, Error)>> {
        let before = self.generations.len();
        self.generations
            .retain(|known| listed.contains(&known.generation.folder));
        self.version += u64::from(before != self.generations.len());
        self.cover_again();
        let mut problems = Vec::new();
        // The newest cover the most.
        for folder in listed.iter().rev() {
            if self
                .generations
                .iter()
                .any(|known| known.generation.folder == *folder)
            {
                continue;
            }
            let opened = Generation::cover(&**storage, keys, folder).and_then(|cover| {
                let adds = !self.covered.has_all(&cover.writers);
                adds.then(|| Generation::open(storage, keys, folder, cover))
                    .transpose()
            });
            match opened {
                Ok(Some(generation)) => {
                    self.generations.push(Numbered {
                        generation,
                        packs: Vec::new(),
                    });
                    self.version += 1;
                    self.cover_again();
                }
                // Another one has all of it.
                Ok(None) => {}
                Err(error) => problems.push((generation::cover_file(folder)?, error)),
            }
        }
        Ok(problems)
    }

    /// The same, of those that are there now.
    pub(crate) fn refresh_now(
        &mut self,
        storage: &Arc<dyn Storage>,
        keys: &Keys,
    ) -> Result<Vec<(FileName, Error)>> {
        let listed = self.listed(&**storage)?;
        self.refresh(storage, keys, &listed)
    }

    /// Lets tables alone from here on.
    pub(crate) fn distrust(&mut self) {
        *self = Self {
            version: self.version + 1,
            distrusted: true,
            ..Self::default()
        };
    }

    fn cover_again(&mut self) {
        self.covered = Covered::default();
        for Numbered { generation, .. } in &self.generations {
            self.covered.add(&generation.writers);
        }
    }

    /// Whether what this index object says is in a table.
    pub(crate) fn covers(&self, writer: &[u8; 16], object: u32) -> bool {
        self.covered
            .has(writer, &(object..object.saturating_add(1)))
    }

    /// The generations that are in use.
    pub(crate) fn generations(&self) -> impl Iterator<Item = &Generation> {
        self.generations.iter().map(|known| &known.generation)
    }

    /// Says of each pack which number it has in the index; none if it is not there.
    pub(crate) fn number(&mut self, mut number: impl FnMut(&TablePack) -> Option<u32>) {
        for Numbered { generation, packs } in &mut self.generations {
            let numbers = generation.packs.iter();
            *packs = numbers.map(|pack| number(pack).unwrap_or(GONE)).collect();
        }
    }

    /// Adds the places of a chunk.
    pub(crate) fn find(&self, id: &ChunkId, places: &mut Vec<Location>) -> Result<()> {
        for Numbered { generation, packs } in &self.generations {
            for found in generation.find(id)? {
                let pack = packs.get(found.pack as usize).copied().unwrap_or(GONE);
                let place = Location::new(pack, found.number, &found.entry);
                let known = |other: &Location| (other.pack, other.number) == (pack, found.number);
                if pack != GONE && !places.iter().any(known) {
                    places.push(place);
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with every chunk and its places, in order of identities.
    pub(crate) fn each(
        &self,
        each: &mut dyn FnMut(&ChunkId, Vec<Location>) -> Result<()>,
    ) -> Result<()> {
        let sources = self.generations.iter().map(|known| {
            let entries = known.generation.entries_in_order();
            let placed = entries.map(|entry| {
                let entry = entry?;
                let pack = known.packs.get(entry.pack as usize).copied();
                Ok((entry, pack.unwrap_or(GONE)))
            });
            Box::new(placed) as Source<'_, u32>
        });
        for same in merge(sources.collect()) {
            let same = same?;
            let Some(id) = same.first().map(|(found, _)| found.entry.id) else {
                continue;
            };
            let mut places: Vec<Location> = Vec::with_capacity(same.len());
            for (found, pack) in same {
                let place = Location::new(pack, found.number, &found.entry);
                if pack != GONE && !places.iter().any(|other| other.is(&place)) {
                    places.push(place);
                }
            }
            each(&id, places)?;
        }
        Ok(())
    }

    /// Tells one state of the tables from another.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn entries(&self) -> usize {
        let each = self
            .generations
            .iter()
            .map(|known| known.generation.entries());
        each.sum()
    }
}

/// The folders of generations that are whole, in order of their numbers.
pub(crate) fn generations(storage: &dyn Storage) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    storage.list(&"tables".parse()?, &mut |name, _| {
        if let Some(folder) = name.as_str().strip_suffix("/cover")
            && sequence(folder).is_some()
        {
            found.insert(folder.to_owned());
        }
        Ok(())
    })?;
    Ok(found)
}

/// The number in the name of a generation's folder, `tables/SEQUENCE-RANDOM`.
pub(crate) fn sequence(folder: &str) -> Option<u64> {
    let (sequence, random) = folder.strip_prefix("tables/")?.split_once('-')?;
    let hexadecimal = |text: &str| {
        text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    (hexadecimal(sequence) && hexadecimal(random))
        .then(|| u64::from_str_radix(sequence, 16).ok())?
}
