//! Reads several chunks at once: those that lie side by side in a pack by one read, since each may
//! cost a journey. Where much is wanted, several such reads are under way.

use std::ops::Range;

use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::index::{Location, pack_file};
use crate::parallel::work_off;
use crate::repository::Repository;
use crate::{Result, limits};

/// A chunk, and where it is wanted, which has its length.
#[derive(Debug)]
pub(crate) struct Wanted<'t> {
    pub(crate) id: ChunkId,
    pub(crate) target: &'t mut [u8],
}

impl Repository {
    /// Reads chunks to where they are wanted, and proves each. What fails together is read alone,
    /// from whichever copy is good.
    pub(crate) fn read_chunks_to(&self, class: Class, wanted: Vec<Wanted<'_>>) -> Result<()> {
        let mut placed = Vec::with_capacity(wanted.len());
        for chunk in wanted {
            placed.push((self.find(&chunk.id)?, chunk));
        }
        placed.sort_by_key(|(place, _)| (place.pack, place.offset));
        let bytes: u64 = (placed.iter())
            .map(|(place, _)| u64::from(place.stored))
            .sum();
        let gap = self.gap();
        let mut runs = Vec::new();
        let mut rest = &mut placed[..];
        while !rest.is_empty() {
            let (run, after) =
                rest.split_at_mut(run_length(rest, limits::CHUNK_RUN, gap, |(place, _)| place));
            runs.push(run);
            rest = after;
        }
        let threads = if bytes > limits::CHUNK_RUN as u64 {
            limits::RUN_THREADS
        } else {
            1
        };
        let none = || ();
        work_off(threads, runs, none, |(), run| {
            self.read_chunk_run(class, run)
        })
    }

    /// So many bytes that are not wanted are read with what is.
    pub(crate) fn gap(&self) -> u64 {
        (if self.is_far() {
            limits::FAR_GAP
        } else {
            limits::NODE_GAP
        }) as u64
    }

    pub(crate) fn is_far(&self) -> bool {
        self.storage.is_far()
    }

    /// The most bytes that are read at once of a pack, where much is wanted.
    pub(crate) fn run_max(&self) -> usize {
        if self.is_far() {
            limits::FAR_RUN
        } else {
            limits::CHUNK_RUN
        }
    }

    fn read_chunk_run(&self, class: Class, run: &mut [(Location, Wanted<'_>)]) -> Result<()> {
        let mut read = self.read_together(run.iter().map(|(place, chunk)| (place, &chunk.id)));
        for number in 0..run.len() {
            let (before, after) = run.split_at_mut(number);
            let Some((place, chunk)) = after.first_mut() else {
                break;
            };
            // What is wanted twice was opened where it was read.
            if let Some((_, same)) = before.last().filter(|(last, same)| {
                last.is(place) && same.id == chunk.id && same.target.len() == chunk.target.len()
            }) {
                chunk.target.copy_from_slice(same.target);
                continue;
            }
            self.open_together(&mut read, class, &chunk.id, place, chunk.target)?;
        }
        Ok(())
    }

    /// What all of a run lies in; nothing if that is one chunk, or cannot be read.
    pub(crate) fn read_together<'p>(
        &self,
        run: impl ExactSizeIterator<Item = (&'p Location, &'p ChunkId)>,
    ) -> Option<Together> {
        if run.len() < 2 {
            return None;
        }
        let (mut first, mut reached) = (None, 0);
        for (place, id) in run {
            first = first.or(Some((place, id)));
            reached = reached.max(end(place));
        }
        let (first, id) = first?;
        let pack = self.pack_of(id, first).ok()?;
        // Its header, too, if that is near and needed.
        let with_header = u64::from(first.offset) <= self.gap() && !self.knows_pack_key(&pack.id);
        let start = if with_header { 0 } else { first.offset };
        let range: Range<u64> = u64::from(start)..reached;
        let bytes = self.storage.read(&pack_file(&pack.id), range).ok()?;
        if with_header {
            self.learn_pack_key(&pack.id, &bytes);
        }
        Some(Together { start, bytes })
    }

    /// Opens a chunk of what was read together, once; or reads it alone.
    pub(crate) fn open_together(
        &self,
        read: &mut Option<Together>,
        class: Class,
        id: &ChunkId,
        place: &Location,
        target: &mut [u8],
    ) -> Result<()> {
        let opened = read.as_mut().is_some_and(|Together { start, bytes }| {
            let from = (place.offset - *start) as usize;
            let sealed = bytes.get_mut(from..from + place.stored as usize);
            let pack = self.pack_of(id, place).ok();
            sealed.zip(pack).is_some_and(|(sealed, pack)| {
                (self.open_copy(class, id, place, &pack, sealed, target)).is_ok()
            })
        });
        if opened {
            return Ok(());
        }
        self.read_chunk_to(class, id, target)
    }
}

/// A part of a pack that several chunks lie in, and where in the pack it begins.
#[derive(Debug)]
pub(crate) struct Together {
    start: u32,
    bytes: Vec<u8>,
}

fn end(place: &Location) -> u64 {
    u64::from(place.offset) + u64::from(place.stored)
}

/// How many of these chunks, which are in the order of their places, are read together.
pub(crate) fn run_length<T>(
    placed: &[T],
    most: usize,
    gap_max: u64,
    place: impl Fn(&T) -> &Location,
) -> usize {
    let mut places = placed.iter().map(place);
    let Some(first) = places.next() else {
        return 0;
    };
    let mut reached = end(first);
    let mut length = 1;
    for place in places {
        let gap = u64::from(place.offset).saturating_sub(reached);
        let together = end(place).max(reached) - u64::from(first.offset);
        let fits = together <= most as u64 && gap <= gap_max;
        if place.pack != first.pack || !fits {
            break;
        }
        reached = reached.max(end(place));
        length += 1;
    }
    length
}
