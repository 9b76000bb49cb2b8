//! Much of a disk in the order of the packs: what lies side by side there comes by one read, and a
//! chunk that is in many places of the disk is opened once.

use std::ops::Range;

use crate::format::id::ChunkId;
use crate::format::node::FAN_OUT;
use crate::format::pack::Class;
use crate::index::Location;
use crate::parallel::work_off;
use crate::reader::DiskReader;
use crate::runs::run_length;
use crate::{Error, Result, limits};

/// A part of a disk.
#[derive(Clone, Copy, Debug)]
pub enum DiskPart<'b> {
    /// It reads as zeroes.
    Zeroes {
        /// Where it begins.
        offset: u64,
        /// Its bytes, at least one.
        length: u64,
    },
    /// It holds these bytes.
    Data {
        /// Where they begin.
        offset: u64,
        /// What is there, at least one byte.
        bytes: &'b [u8],
    },
}

/// Why not all was delivered.
#[derive(Debug)]
pub enum DeliverError<E> {
    /// It could not be read.
    Read(Error),
    /// Whoever takes it refused it.
    Taken(E),
}

impl<E> From<Error> for DeliverError<E> {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

/// A place of the disk, by the number of its chunk, and what is there.
type Wanted = (ChunkId, u64);

/// A chunk that is read, and those of the wanted places that it is in.
struct Chunk {
    id: ChunkId,
    place: Location,
    targets: Range<usize>,
}

/// What is delivered, and to whom.
struct Delivery<'a, E> {
    reader: &'a DiskReader,
    range: Range<u64>,
    take: &'a (dyn Fn(DiskPart<'_>) -> Result<(), E> + Sync),
}

impl DiskReader {
    /// Tells every part of this range once, in an order of its own, by at most so many threads. Ends
    /// at the first error. `Invalid` past the end of the disk.
    pub fn deliver<E: Send>(
        &self,
        range: Range<u64>,
        threads: usize,
        take: &(dyn Fn(DiskPart<'_>) -> Result<(), E> + Sync),
    ) -> Result<(), DeliverError<E>> {
        self.check_end(range.start, range.end.saturating_sub(range.start))?;
        let chunk_size = u64::from(self.chunk_size());
        let (mut next, end) = (range.start / chunk_size, range.end.div_ceil(chunk_size));
        let delivery = Delivery {
            reader: self,
            range,
            take,
        };
        while next < end {
            let wanted;
            (wanted, next) = delivery.list(next, end)?;
            delivery.read(wanted, threads)?;
        }
        Ok(())
    }
}

impl<E: Send> Delivery<'_, E> {
    /// What is wanted from one chunk on, as much as is planned at once, and the number of the chunk
    /// behind it. Zeroes between are told.
    fn list(&self, first: u64, end: u64) -> Result<(Vec<Wanted>, u64), DeliverError<E>> {
        let fan_out = FAN_OUT as u64;
        let mut wanted = Vec::new();
        let (mut next, mut told) = (first, first);
        while next < end && wanted.len() < limits::DELIVER_CHUNKS {
            let leaf = next / fan_out;
            let node = match self.reader.descend(leaf)? {
                Ok(node) => node,
                Err(empty) => {
                    next = leaf.saturating_add(empty).saturating_mul(fan_out);
                    continue;
                }
            };
            let border = (leaf + 1).saturating_mul(fan_out).min(end);
            for (number, id) in (leaf * fan_out..border).zip(node.iter()) {
                if let Some(id) = id.filter(|_| number >= next) {
                    self.zeroes(told, number)?;
                    told = number + 1;
                    wanted.push((id, number));
                }
            }
            next = border;
        }
        let next = next.min(end);
        self.zeroes(told, next)?;
        Ok((wanted, next))
    }

    /// Tells that chunks are zeroes.
    fn zeroes(&self, first: u64, end: u64) -> Result<(), DeliverError<E>> {
        let chunk_size = u64::from(self.reader.chunk_size());
        let start = (first * chunk_size).max(self.range.start);
        let end = end.saturating_mul(chunk_size).min(self.range.end);
        if start >= end {
            return Ok(());
        }
        let part = DiskPart::Zeroes {
            offset: start,
            length: end - start,
        };
        (self.take)(part).map_err(DeliverError::Taken)
    }

    /// Reads what is wanted, run by run; those that the disk needs first go first.
    fn read(&self, mut wanted: Vec<Wanted>, threads: usize) -> Result<(), DeliverError<E>> {
        wanted.sort_unstable();
        let repository = self.reader.repository();
        let (mut chunks, mut start) = (Vec::new(), 0);
        for same in wanted.chunk_by(|(one, _), (other, _)| one == other) {
            let targets = start..start + same.len();
            start = targets.end;
            let Some((id, _)) = same.first() else {
                continue;
            };
            chunks.push(Chunk {
                id: *id,
                place: repository.find(id)?,
                targets,
            });
        }
        chunks.sort_unstable_by_key(|chunk| (chunk.place.pack, chunk.place.offset));
        let (mut runs, mut rest, gap) = (Vec::new(), &chunks[..], repository.gap());
        while !rest.is_empty() {
            let length = run_length(rest, repository.run_max(), gap, |chunk| &chunk.place);
            let (run, after) = rest.split_at(length);
            let targets = run.iter().map(|chunk| wanted[chunk.targets.start].1);
            runs.push((targets.min(), run));
            rest = after;
        }
        runs.sort_unstable_by_key(|(first, _)| *first);
        // Each of them holds a pack.
        let threads = if repository.is_far() {
            threads.min(limits::FAR_THREADS)
        } else {
            threads
        };
        let own = || Block::new(self.reader.chunk_size() as usize);
        work_off(threads, runs, own, |block, (_, run)| {
            self.run(run, &wanted, block)
        })
    }

    fn run(
        &self,
        run: &[Chunk],
        wanted: &[Wanted],
        block: &mut Block,
    ) -> Result<(), DeliverError<E>> {
        let repository = self.reader.repository();
        let chunk_size = u64::from(self.reader.chunk_size());
        let mut read = repository.read_together(run.iter().map(|chunk| (&chunk.place, &chunk.id)));
        for chunk in run {
            let targets = &wanted[chunk.targets.clone()];
            let Some(((_, first), others)) = targets.split_first() else {
                continue;
            };
            let offset = first * chunk_size;
            let length = self.length(*first);
            let bytes = if let Some(room) = block.room(offset, length) {
                room
            } else {
                self.tell(block.offset, block.filled())?;
                block.restart(offset, length)
            };
            repository.open_together(&mut read, Class::Data, &chunk.id, &chunk.place, bytes)?;
            for (_, other) in others {
                if self.length(*other) != length {
                    let what = format!(
                        "chunk {} has another length than its place on the disk",
                        chunk.id
                    );
                    return Err(Error::corrupt(what).into());
                }
                self.tell(other * chunk_size, bytes)?;
            }
        }
        self.tell(block.offset, block.filled())?;
        block.restart(0, 0);
        Ok(())
    }

    /// Bytes of a chunk of the disk.
    fn length(&self, number: u64) -> usize {
        let chunk_size = u64::from(self.reader.chunk_size());
        let rest = self.reader.size().saturating_sub(number * chunk_size);
        usize::try_from(rest.min(chunk_size)).unwrap_or(usize::MAX)
    }

    /// Tells what of these bytes is in the range.
    fn tell(&self, offset: u64, bytes: &[u8]) -> Result<(), DeliverError<E>> {
        let end = offset + bytes.len() as u64;
        let (from, to) = (offset.max(self.range.start), end.min(self.range.end));
        if from >= to {
            return Ok(());
        }
        let within = |at: u64| usize::try_from(at - offset).expect("a chunk fits in memory");
        let part = DiskPart::Data {
            offset: from,
            bytes: &bytes[within(from)..within(to)],
        };
        (self.take)(part).map_err(DeliverError::Taken)
    }
}

/// What lies side by side on the disk, in memory of a page's alignment: then it can be written from
/// here past the page cache.
struct Block {
    space: Vec<u8>,
    start: usize,
    room: usize,
    /// Where on the disk it begins.
    offset: u64,
    filled: usize,
}

impl Block {
    fn new(chunk_size: usize) -> Self {
        let room = chunk_size.max(limits::DELIVER_BLOCK);
        let space = vec![0; room + limits::PAGE];
        let start = space.as_ptr().align_offset(limits::PAGE).min(limits::PAGE);
        Self {
            space,
            start,
            room,
            offset: 0,
            filled: 0,
        }
    }

    fn filled(&self) -> &[u8] {
        &self.space[self.start..self.start + self.filled]
    }

    /// Room for what goes behind what is there, if it does.
    fn room(&mut self, offset: u64, length: usize) -> Option<&mut [u8]> {
        let behind = offset == self.offset + self.filled as u64 && self.filled > 0;
        if !behind || self.filled + length > self.room {
            return None;
        }
        let from = self.start + self.filled;
        self.filled += length;
        self.space.get_mut(from..from + length)
    }

    /// Room for what comes next, without what was there.
    fn restart(&mut self, offset: u64, length: usize) -> &mut [u8] {
        self.offset = offset;
        self.filled = length.min(self.room);
        &mut self.space[self.start..self.start + self.filled]
    }
}
