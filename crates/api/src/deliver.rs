//! All of a volume's data, in whatever order it is cheapest to read.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::{Error, ErrorKind, Region, Result, VolumeReader};

/// Bytes that a thread reads at once.
const PIECE: u64 = 4 << 20;
/// Threads that read at once.
const THREADS_MAX: usize = 64;

/// A part of a volume.
#[derive(Clone, Copy, Debug)]
pub enum Part<'b> {
    /// It reads as zeroes.
    Zeroes(Region),
    /// It holds these bytes, at least one, from this offset on.
    Data {
        /// Where they begin.
        offset: u64,
        /// What is there.
        bytes: &'b [u8],
    },
}

impl Part<'_> {
    /// Its bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Zeroes(region) => region.length(),
            Self::Data { bytes, .. } => bytes.len() as u64,
        }
    }
}

/// Is told every part of a volume once. Called from several threads.
pub type Take<'a> = &'a (dyn Fn(Part<'_>) -> Result<()> + Sync);

/// What [`VolumeReader::next_data`] says, checked: inside the volume and not before what was asked for.
pub fn next_data<V: VolumeReader + ?Sized>(volume: &V, offset: u64) -> Result<Option<Region>> {
    let found = volume.next_data(offset)?;
    if let Some(region) = found
        && (region.offset() < offset || region.end() > volume.size())
    {
        let what = format!(
            "the provider says that {} to {} is data when asked from {offset} on in a disk of {} bytes",
            region.offset(),
            region.end(),
            volume.size()
        );
        return Err(Error::new(ErrorKind::Protocol, what));
    }
    Ok(found)
}

/// What the threads take from.
struct Queue {
    position: u64,
    failure: Option<Error>,
}

/// Leaves the others nothing after a panic in this thread: it is told when all have ended.
struct Alarm<'a>(&'a Mutex<Queue>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            lock(self.0).position = u64::MAX;
        }
    }
}

/// Piece by piece in the order of the volume, by several threads.
pub(crate) fn in_order<V: VolumeReader + ?Sized>(
    volume: &V,
    range: Region,
    threads: usize,
    take: Take<'_>,
) -> Result<()> {
    let queue = Mutex::new(Queue {
        position: range.offset(),
        failure: None,
    });
    let work = || {
        let _alarm = Alarm(&queue);
        let mut buffer = Vec::new();
        loop {
            let next = next(volume, &mut lock(&queue), range.end(), take);
            let worked = match next {
                Ok(None) => return,
                Ok(Some(piece)) => read(volume, piece, &mut buffer, take),
                Err(error) => Err(error),
            };
            if let Err(error) = worked {
                lock(&queue).failure.get_or_insert(error);
                return;
            }
        }
    };
    thread::scope(|scope| {
        // This thread is one of them, and the only one if the machine has no more to give.
        for _ in 1..threads.clamp(1, THREADS_MAX) {
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.failure.map_or(Ok(()), Err)
}

/// The next piece of data; the zeroes before it are told.
fn next<V: VolumeReader + ?Sized>(
    volume: &V,
    queue: &mut Queue,
    end: u64,
    take: Take<'_>,
) -> Result<Option<Region>> {
    let from = queue.position;
    if queue.failure.is_some() || from >= end {
        return Ok(None);
    }
    let found = next_data(volume, from)?.filter(|region| region.offset() < end);
    let start = found.map_or(end, Region::offset);
    if start > from {
        take(Part::Zeroes(Region::new(from, start - from)?))?;
    }
    let Some(region) = found else {
        queue.position = end;
        return Ok(None);
    };
    let border = (start / PIECE + 1).saturating_mul(PIECE);
    queue.position = region.end().min(border).min(end);
    Region::new(start, queue.position - start).map(Some)
}

fn read<V: VolumeReader + ?Sized>(
    volume: &V,
    piece: Region,
    buffer: &mut Vec<u8>,
    take: Take<'_>,
) -> Result<()> {
    let length = usize::try_from(piece.length())
        .map_err(|e| Error::with_source(ErrorKind::Invalid, "a piece is too long", e))?;
    buffer.resize(length, 0);
    volume.read_at(piece.offset(), buffer)?;
    take(Part::Data {
        offset: piece.offset(),
        bytes: buffer,
    })
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::cell::OnceCell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};

    /// A disk of many pieces.
    #[derive(Debug)]
    struct Full;

    impl VolumeReader for Full {
        fn size(&self) -> u64 {
            1000 * PIECE
        }

        fn read_at(&self, _offset: u64, buffer: &mut [u8]) -> Result<()> {
            buffer.fill(1);
            Ok(())
        }

        fn next_data(&self, offset: u64) -> Result<Option<Region>> {
            Region::new(offset, self.size() - offset).map(Some)
        }
    }

    thread_local! {
        /// Hung up when a thread has ended.
        static ENDS: OnceCell<Sender<()>> = const { OnceCell::new() };
    }

    #[test]
    fn after_a_panic_the_other_threads_read_nothing_more() {
        let (ends, ended) = channel();
        let (ends, ended) = (Mutex::new(Some(ends)), Mutex::new(ended));
        let (caller, taken) = (thread::current().id(), AtomicUsize::new(0));
        let whole = Region::new(0, Full.size()).expect("a region");
        let delivered = catch_unwind(AssertUnwindSafe(|| {
            in_order(&Full, whole, 2, &|_| {
                if thread::current().id() == caller {
                    taken.fetch_add(1, Ordering::SeqCst);
                    let ended = ended.lock().expect("no panic with it");
                    ended.recv().expect_err("it only hangs up");
                    return Ok(());
                }
                let ends = ends.lock().expect("no panic with it").take();
                ENDS.with(|cell| cell.set(ends.expect("one panics")))
                    .expect("once");
                panic!("on purpose");
            })
        }));
        delivered.expect_err("it is told");
        let taken = taken.into_inner();
        assert!(taken <= 1, "{taken} were taken");
    }
}
