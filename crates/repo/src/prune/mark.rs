//! The mark: condemns the packs of which nothing is needed, after what is needed of others was
//! copied out of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ages::Ages;
use super::folder::Folder;
use super::plan::{Partial, Usage, choose_homes, most_profitable};
use super::{Marked, Run};
use crate::format::envelope::Kind;
use crate::format::features;
use crate::format::id::{ChunkId, PackId};
use crate::format::pack::Class;
use crate::format::prune::{Generation, NUMBER_MAX, PruneFile, Survivors};
use crate::format::snapshot::SnapshotName;
use crate::index::{Pack, read_pack};
use crate::marks::Marks;
use crate::writer::Writer;
use crate::{Error, ErrorKind, Result, limits};

impl Run<'_> {
    /// Puts a generation, if anything is to go.
    pub(super) fn mark(&self) -> Result<Marked> {
        let repository = self.repository;
        if !self.options.dry_run {
            repository.merge()?;
        }
        let folder = Folder::list(&*repository.storage)?;
        let mut survey = self.survey()?;
        let rest = self.check_list(&survey, &folder, &[])?;
        if self.remove_old_markers(&folder, rest)? {
            // What is late by those counts as made by the one that is left.
            survey = self.survey()?;
        }
        let go = survey.names.iter().filter(|name| survey.may_go(name));
        let archives: BTreeSet<&SnapshotName> = go.take(limits::GENERATION_ARCHIVES_MAX).collect();
        let mut kept = self.kept(&survey, |name| !archives.contains(name))?;
        kept.needs.check_index()?;
        let mut homes = std::mem::take(&mut kept.needs.marks);
        let (usage, partial, packs) = {
            let index = repository.index();
            let usage = choose_homes(&index, &mut homes)?;
            let partial = most_profitable(&index, &usage);
            (usage, partial, index.packs().to_vec())
        };
        let mut marked = Marked {
            archives: archives.len() as u64,
            ..Marked::default()
        };
        let ages = Ages::new(self, &packs);
        let mut condemned = useless(&ages, &packs, &usage, &mut marked)?;
        let repack = self.worth_repacking(&ages, &packs, &partial, condemned.len(), &mut marked)?;
        let all = packs.iter().filter(|pack| pack.is_home()).count();
        let going = condemned.len() + repack.len();
        if going * 2 > all {
            let why = format!("{going} of {all} packs are to go, which is more than half");
            self.ask(&why)?;
        }
        condemned.extend(self.repack(&packs, &homes, &repack, &mut marked)?);
        for pack in &condemned {
            marked
                .condemned
                .add(u64::from(packs[*pack as usize].length));
        }
        let ids = condemned.iter().map(|pack| packs[*pack as usize].id);
        let mut ids: Vec<PackId> = ids.collect();
        ids.sort_unstable();
        let generation = Generation {
            packs: ids,
            archives: archives.into_iter().cloned().collect(),
        };
        if !self.options.dry_run && generation != Generation::default() {
            self.put_generation(&generation)?;
        }
        Ok(marked)
    }

    /// Removes what sweeps left that were killed at their end, or swept at once: of their markers
    /// the newest says all that is to be said, and no archive waits to be deleted. If it names what is
    /// gone, and only another one tells that this is right, the `rest` of it takes its place, or nobody
    /// could tell from then on.
    fn remove_old_markers(&self, folder: &Folder, rest: Option<(u32, Survivors)>) -> Result<bool> {
        if self.options.dry_run || !folder.generations.is_empty() {
            return Ok(false);
        }
        let mut markers: Vec<_> = folder.markers.iter().collect();
        markers.sort_by_key(|(file, number)| (*number, file));
        let newest = markers.pop();
        if let Some((number, rest)) = rest
            && newest.is_some_and(|(_, newest)| *newest == number)
        {
            self.repository.put_survivors(number, &rest)?;
            markers.extend(newest);
        }
        for (file, _) in &markers {
            self.repository.storage.remove(file)?;
        }
        Ok(!markers.is_empty())
    }

    /// The packs that are worth being repacked, until little enough is unused.
    fn worth_repacking(
        &self,
        ages: &Ages<'_>,
        packs: &[Pack],
        partial: &[Partial],
        condemned: usize,
        marked: &mut Marked,
    ) -> Result<Vec<u32>> {
        let unused = |one: &Partial| one.usage.total - one.usage.live;
        let homes = packs.iter().filter(|pack| pack.is_home());
        let stays: u64 = homes.map(|pack| u64::from(pack.length)).sum();
        marked.unused = partial.iter().map(unused).sum();
        let (mut chosen, mut copied) = (Vec::new(), 0u64);
        for one in partial {
            let few = u128::from(marked.unused) * 1000
                <= u128::from(stays) * u128::from(self.options.max_unused);
            if few || condemned + chosen.len() >= limits::GENERATION_PACKS_MAX {
                break;
            }
            let more = copied.saturating_add(one.usage.live);
            if more > self.options.max_repack {
                continue;
            }
            if ages.is_old(one.pack)? == Some(true) {
                copied = more;
                marked.unused -= unused(one);
                chosen.push(one.pack);
            }
        }
        Ok(chosen)
    }

    /// Copies what is needed of these packs; those of which all could be copied.
    fn repack(
        &self,
        packs: &[Pack],
        homes: &Marks,
        chosen: &[u32],
        marked: &mut Marked,
    ) -> Result<Vec<u32>> {
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let mut copier = Copier::new(self)?;
        let mut emptied = Vec::new();
        for number in chosen {
            let pack = &packs[*number as usize];
            let wanted = |place, _: &ChunkId| Ok(homes.contains_number(*number, place));
            match copier.copy(pack, &wanted) {
                Ok(copied) => {
                    emptied.push(*number);
                    marked.repacked.number += copied.number;
                    marked.repacked.bytes += copied.bytes;
                }
                // Verification tells what is wrong with it. It stays.
                Err(e) if e.kind() == ErrorKind::Corrupt => marked.unreadable += 1,
                Err(e) => return Err(e),
            }
        }
        copier.finish()?;
        Ok(emptied)
    }

    fn put_generation(&self, generation: &Generation) -> Result<()> {
        // A program that does not know it must not write from here on: it would use what is
        // condemned.
        self.repository.storage.put(&features::prune_file(), &[])?;
        let body = generation.encode();
        let file = PruneFile::Generation(self.next_number()?);
        (self
            .repository
            .put_prune_file(Kind::Generation, file, &body))
        .map(drop)
    }

    /// A number that is higher than all others in the folder, also where this list lacks by mistake
    /// what an earlier one showed.
    pub(super) fn next_number(&self) -> Result<u32> {
        let repository = self.repository;
        let before = repository.index().seen().newest;
        let number = Folder::list(&*repository.storage)?.newest().max(before) + 1;
        if number > NUMBER_MAX {
            return Err(Error::corrupt(
                "the numbers in the folder prune are used up",
            ));
        }
        Ok(number)
    }
}

/// Packs that nothing needs, and that are old enough.
fn useless(
    ages: &Ages<'_>,
    packs: &[Pack],
    usage: &[Usage],
    marked: &mut Marked,
) -> Result<Vec<u32>> {
    let mut useless = Vec::new();
    for ((number, pack), usage) in (0..).zip(packs).zip(usage) {
        if !pack.is_home() || usage.live > 0 || useless.len() >= limits::GENERATION_PACKS_MAX {
            continue;
        }
        match ages.is_old(number)? {
            Some(true) => useless.push(number),
            Some(false) => marked.young.add(u64::from(pack.length)),
            None => {}
        }
    }
    Ok(useless)
}

/// Copies chunks into new packs.
pub(super) struct Copier<'r> {
    run: &'r Run<'r>,
    /// None if nothing is to be written.
    writer: Option<Writer>,
}

impl<'r> Copier<'r> {
    pub(super) fn new(run: &'r Run<'r>) -> Result<Self> {
        let writer = if run.options.dry_run {
            None
        } else {
            Some(Writer::new(Arc::clone(run.repository))?)
        };
        Ok(Self { run, writer })
    }

    /// Copies the chunks of a pack whose numbers are wanted, and tells how many and how many bytes
    /// they have as they are stored.
    pub(super) fn copy(
        &mut self,
        pack: &Pack,
        wanted: &dyn Fn(u32, &ChunkId) -> Result<bool>,
    ) -> Result<super::Amount> {
        let repository = self.run.repository;
        let length = u64::from(pack.length);
        let table = read_pack(&*repository.storage, &repository.keys, pack.id, length)?;
        let mut worker = self.writer.as_ref().map(Writer::worker);
        let mut copied = super::Amount::default();
        for (number, entry) in (0..).zip(table.entries) {
            if !wanted(number, &entry.id)? {
                continue;
            }
            if let Some(worker) = &mut worker {
                let bytes = self.read(pack.class, &entry.id)?;
                worker.store_claimed(pack.class, entry.id, &bytes)?;
            }
            copied.add(u64::from(entry.stored));
        }
        Ok(copied)
    }

    fn read(&self, class: Class, id: &ChunkId) -> Result<Vec<u8>> {
        self.run.repository.read_chunk(class, id)
    }

    /// Makes the copies durable, and names them in the index.
    pub(super) fn finish(self) -> Result<()> {
        self.writer.map_or(Ok(()), |writer| writer.flush())
    }
}
