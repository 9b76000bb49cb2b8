//! Raw disks, written by our own threads, in the order in which the archive is read at least cost.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use snapkeep_api::{Clock, Error, ErrorKind, Part, Region, Result, Throttle, VolumeReader};
use snapkeep_direct::BulkFile;

use super::device::Device;
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
        if from >= to {
            return Ok(());
        }
        let range = Region::new(from, to - from)?;
        let before = self.done.load(Ordering::Relaxed);
        let workers = self.options.workers.clamp(1, limits::WORKERS_MAX);
        let take = |part: Part<'_>| self.part(sink, range, part);
        self.volume.deliver(range, workers, &take)?;
        let told = self.done.load(Ordering::Relaxed) - before;
        if told != range.length() {
            // What nobody wrote would be taken for zeroes. That each part is told once is the
            // provider's promise, which the conformance kit tries.
            let what = format!(
                "the provider gave {told} bytes of the {} from offset {from} on",
                range.length()
            );
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        Ok(())
    }

    fn part(&self, sink: &Sink<'_>, range: Region, part: Part<'_>) -> Result<()> {
        let (cancel, length) = (&self.options.cancel, part.length());
        cancel.check()?;
        let offset = match part {
            Part::Zeroes(region) => region.offset(),
            Part::Data { offset, .. } => offset,
        };
        let end = offset.checked_add(length).filter(|end| *end <= range.end());
        let Some(end) = end.filter(|_| offset >= range.offset()) else {
            let what = format!("the provider gave {length} bytes at offset {offset} unasked");
            return Err(Error::new(ErrorKind::Protocol, what));
        };
        match (part, sink) {
            (Part::Zeroes(_), Sink::File(..)) => {}
            (Part::Zeroes(_), Sink::Device(device)) => self.zero(device, offset, end)?,
            (Part::Data { bytes, .. }, sink) => {
                self.throttle.take(self.clock, cancel, length);
                cancel.check()?;
                match sink {
                    Sink::File(file, name) => (file.write_all_at(bytes, offset))
                        .map_err(|e| failed("cannot write", name, e))?,
                    Sink::Device(device) => device.write_at(offset, bytes)?,
                }
                self.data.fetch_add(length, Ordering::Relaxed);
            }
        }
        let done = self.done.fetch_add(length, Ordering::Relaxed) + length;
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
