//! Reads several chunks at once: those that lie side by side in a pack by one read, since each may
//! cost a journey.

use std::ops::Range;

use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::index::{Location, pack_file};
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
        let mut rest = &mut placed[..];
        while !rest.is_empty() {
            let (run, after) = rest.split_at_mut(run_length(rest));
            self.read_chunk_run(class, run)?;
            rest = after;
        }
        Ok(())
    }

    fn read_chunk_run(&self, class: Class, run: &mut [(Location, Wanted<'_>)]) -> Result<()> {
        let mut read = self.read_together(run);
        for (place, chunk) in run {
            let together = read.as_mut().is_some_and(|(start, bytes)| {
                let from = (place.offset - *start) as usize;
                let sealed = bytes.get_mut(from..from + place.stored as usize);
                let pack = self.pack_of(&chunk.id, place).ok();
                sealed.zip(pack).is_some_and(|(sealed, pack)| {
                    let opened =
                        self.open_copy(class, &chunk.id, place, &pack, sealed, chunk.target);
                    opened.is_ok()
                })
            });
            if !together {
                self.read_chunk_to(class, &chunk.id, chunk.target)?;
            }
        }
        Ok(())
    }

    /// What all of a run lies in, and where in the pack that begins.
    fn read_together(&self, run: &[(Location, Wanted<'_>)]) -> Option<(u32, Vec<u8>)> {
        let [(first, chunk), _, ..] = run else {
            return None;
        };
        let file = pack_file(&self.pack_of(&chunk.id, first).ok()?.id);
        let end = run.iter().map(|(place, _)| end(place)).max()?;
        let range: Range<u64> = u64::from(first.offset)..end;
        Some((first.offset, self.storage.read(&file, range).ok()?))
    }
}

fn end(place: &Location) -> u64 {
    u64::from(place.offset) + u64::from(place.stored)
}

/// How many of these chunks, which are in the order of their places, are read together.
fn run_length(placed: &[(Location, Wanted<'_>)]) -> usize {
    let first = placed[0].0;
    let mut reached = end(&first);
    let mut length = 1;
    for (place, _) in &placed[1..] {
        let gap = u64::from(place.offset).saturating_sub(reached);
        let together = end(place).max(reached) - u64::from(first.offset);
        let fits = together <= limits::CHUNK_RUN as u64 && gap <= limits::NODE_GAP as u64;
        if place.pack != first.pack || !fits {
            break;
        }
        reached = reached.max(end(place));
        length += 1;
    }
    length
}
