//! Raw disks, written by our own threads: each takes the next piece, reads it from the archive and
//! writes it.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use snapkeep_api::{Clock, Error, ErrorKind, Result, Throttle, VolumeReader};
use snapkeep_direct::BulkFile;

use super::device::Device;
use super::export::next_data;
use super::target::{Target, failed};
use super::{Observer, RestoreOptions, Restored, limits};

/// Restores a disk to a raw file or a block device.
///
/// `Invalid` if the target is there and may not be overwritten, or is too small; `Target` if it
/// cannot be written; `Cancelled` if that was asked for; otherwise the error of the volume.
pub fn restore_raw(
    volume: &dyn VolumeReader,
    target: &Path,
    options: &RestoreOptions,
    clock: &dyn Clock,
    observer: Observer<'_>,
) -> Result<Restored> {
    let throttle = Throttle::new(options.bandwidth_limit);
    let size = volume.size();
    let run = Run {
        volume,
        options,
        clock,
        observer,
        throttle,
        done: AtomicU64::new(0),
        data: AtomicU64::new(0),
    };
    match Target::open(target, options.overwrite)? {
        Target::File(new) => {
            let file = (File::options().write(true).create_new(true))
                .mode(0o600)
                .open(new.path())
                .map_err(|e| failed("cannot make a file at", target, e))?;
            file.set_len(size)
                .map_err(|e| failed(&format!("cannot make {size} bytes long"), target, e))?;
            let file = BulkFile::new(file);
            run.range(&Sink::File(&file, target), 0, size)?;
            drop(file);
            options.cancel.check()?;
            new.finish()?;
        }
        Target::Device(device) => {
            device.check_room(size)?;
            run.device(&device).map_err(|e| half(&device, &e))?;
        }
    }
    let data = run.data.into_inner();
    Ok(Restored { size, data })
}

/// Says what a failed restore leaves of a device.
pub(super) fn half(device: &Device, error: &Error) -> Error {
    let what = format!(
        "{} holds only a part of the disk now: restore it again",
        device.path().display()
    );
    Error::with_source(error.kind(), what, error.clone())
}

/// Where the bytes go.
enum Sink<'a> {
    /// A new file, all holes; and its name.
    File(&'a BulkFile, &'a Path),
    Device(&'a Device),
}

struct Run<'a> {
    volume: &'a dyn VolumeReader,
    options: &'a RestoreOptions,
    clock: &'a dyn Clock,
    observer: Observer<'a>,
    throttle: Throttle,
    done: AtomicU64,
    data: AtomicU64,
}

/// What the threads take from.
struct Queue {
    position: u64,
    failure: Option<Error>,
}

/// A part of the disk: what of it is data, in order; the rest are zeroes.
struct Piece {
    from: u64,
    to: u64,
    data: Vec<Range<u64>>,
}

impl Run<'_> {
    /// Everything but the device's head, then the head.
    fn device(&self, device: &Device) -> Result<()> {
        let size = self.volume.size();
        let head = limits::HEAD.min(size);
        let sink = Sink::Device(device);
        device.zero(0, head)?;
        device.sync()?;
        self.range(&sink, head, size)?;
        // A guest must not find what somebody else left behind its disk's end.
        self.zero(device, size, device.size())?;
        device.sync()?;
        self.range(&sink, 0, head)?;
        device.sync()
    }

    fn range(&self, sink: &Sink<'_>, from: u64, to: u64) -> Result<()> {
        let queue = Mutex::new(Queue {
            position: from,
            failure: None,
        });
        thread::scope(|scope| {
            // This thread is one of them, and the only one if the machine has no more to give.
            for _ in 1..self.options.workers.clamp(1, limits::WORKERS_MAX) {
                let work = || self.work(sink, &queue, to);
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            self.work(sink, &queue, to);
        });
        let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        queue.failure.map_or(Ok(()), Err)
    }

    fn work(&self, sink: &Sink<'_>, queue: &Mutex<Queue>, to: u64) {
        let mut buffer = Vec::new();
        loop {
            let next = self.next(&mut lock(queue), to);
            let worked = match next {
                Ok(None) => return,
                Ok(Some(piece)) => self.piece(sink, &piece, &mut buffer),
                Err(error) => Err(error),
            };
            if let Err(error) = worked {
                lock(queue).failure.get_or_insert(error);
                return;
            }
        }
    }

    fn next(&self, queue: &mut Queue, to: u64) -> Result<Option<Piece>> {
        let from = queue.position;
        if queue.failure.is_some() || from >= to {
            return Ok(None);
        }
        let size = (self.options.piece).clamp(limits::PIECE_MIN, limits::PIECE_MAX);
        let (mut at, mut border, mut data) = (from, None, Vec::new());
        loop {
            let found = next_data(self.volume, at)?.filter(|region| region.offset() < to);
            let Some(region) = found else {
                // Zeroes to the end, which need no reading.
                at = to;
                break;
            };
            let start = region.offset();
            let border = *border.get_or_insert((start / size + 1).saturating_mul(size).min(to));
            if start >= border {
                break;
            }
            at = region.end().min(border).max(start);
            data.push(start..at);
            if at >= border {
                break;
            }
        }
        queue.position = at;
        Ok(Some(Piece { from, to: at, data }))
    }

    fn piece(&self, sink: &Sink<'_>, piece: &Piece, buffer: &mut Vec<u8>) -> Result<()> {
        let cancel = &self.options.cancel;
        cancel.check()?;
        if let Sink::Device(device) = sink {
            let ends = piece.data.iter().map(|part| part.end);
            let starts = piece.data.iter().map(|part| part.start);
            let holes = std::iter::once(piece.from).chain(ends);
            for (from, to) in holes.zip(starts.chain(std::iter::once(piece.to))) {
                self.zero(device, from, to)?;
            }
        }
        if let (Some(first), Some(last)) = (piece.data.first(), piece.data.last()) {
            let start = first.start;
            let length: u64 = piece.data.iter().map(|part| part.end - part.start).sum();
            self.throttle.take(self.clock, cancel, length);
            cancel.check()?;
            buffer.resize(index(last.end - start)?, 0);
            self.volume.read_at(start, buffer)?;
            for part in &piece.data {
                let bytes = &buffer[index(part.start - start)?..index(part.end - start)?];
                match sink {
                    Sink::File(file, name) => (file.write_all_at(bytes, part.start))
                        .map_err(|e| failed("cannot write", name, e))?,
                    Sink::Device(device) => device.write_at(part.start, bytes)?,
                }
            }
            self.data.fetch_add(length, Ordering::Relaxed);
        }
        let more = piece.to - piece.from;
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        (self.observer)(done);
        Ok(())
    }

    fn zero(&self, device: &Device, from: u64, to: u64) -> Result<()> {
        let mut at = from;
        while at < to {
            self.options.cancel.check()?;
            let end = to.min(at.saturating_add(limits::ZERO_STEP));
            device.zero(at, end)?;
            at = end;
        }
        Ok(())
    }
}

/// A place in a buffer.
fn index(bytes: u64) -> Result<usize> {
    usize::try_from(bytes)
        .map_err(|e| Error::with_source(ErrorKind::Invalid, "a piece is too long", e))
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}
