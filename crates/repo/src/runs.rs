//! Reads several chunks at once: those that lie side by side in a pack by one read, since each may
//! cost a journey. Where much is wanted, several such reads are under way.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::index::{Location, pack_file};
use crate::repository::Repository;
use crate::{Error, Result, limits};

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
            let (run, after) = rest.split_at_mut(run_length(rest, gap));
            runs.push(run);
            rest = after;
        }
        if bytes > limits::CHUNK_RUN as u64 {
            return self.read_chunk_runs(class, runs);
        }
        (runs.into_iter()).try_for_each(|run| self.read_chunk_run(class, run))
    }

    /// So many bytes that are not wanted are read with what is.
    pub(crate) fn gap(&self) -> u64 {
        let far = self.storage.is_far();
        (if far {
            limits::FAR_GAP
        } else {
            limits::NODE_GAP
        }) as u64
    }

    /// Reads runs with several threads.
    fn read_chunk_runs(&self, class: Class, runs: Vec<Run<'_, '_>>) -> Result<()> {
        let threads = runs.len().min(limits::RUN_THREADS);
        let (queue, failure) = (Mutex::new(runs.into_iter()), Mutex::new(None::<Error>));
        let next = || {
            let failed = failure.lock().unwrap_or_else(PoisonError::into_inner);
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.next().filter(|_| failed.is_none())
        };
        let work = || {
            while let Some(run) = next() {
                if let Err(error) = self.read_chunk_run(class, run) {
                    let mut failed = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            // This thread is one of them, and the only one if the machine has no more to give.
            for _ in 1..threads {
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        let failed = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }

    fn read_chunk_run(&self, class: Class, run: &mut [(Location, Wanted<'_>)]) -> Result<()> {
        let mut read = self.read_together(run);
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

/// Chunks that are read together.
type Run<'r, 't> = &'r mut [(Location, Wanted<'t>)];

fn end(place: &Location) -> u64 {
    u64::from(place.offset) + u64::from(place.stored)
}

/// How many of these chunks, which are in the order of their places, are read together.
fn run_length(placed: &[(Location, Wanted<'_>)], gap_max: u64) -> usize {
    let first = placed[0].0;
    let mut reached = end(&first);
    let mut length = 1;
    for (place, _) in &placed[1..] {
        let gap = u64::from(place.offset).saturating_sub(reached);
        let together = end(place).max(reached) - u64::from(first.offset);
        let fits = together <= limits::CHUNK_RUN as u64 && gap <= gap_max;
        if place.pack != first.pack || !fits {
            break;
        }
        reached = reached.max(end(place));
        length += 1;
    }
    length
}
