//! A disk of an archive as an export of our NBD server.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use snapkeep_api::{Cancel, Clock, Error, Throttle, VolumeReader, next_data};
use snapkeep_nbd::{Errno, Export, ExportError, Extent};

/// Read-only; its block status comes from the archive's metadata.
pub struct VolumeExport {
    volume: Arc<dyn VolumeReader>,
    throttle: Throttle,
    clock: Arc<dyn Clock>,
    cancel: Cancel,
    read: AtomicU64,
    reached: AtomicU64,
    asked: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl std::fmt::Debug for VolumeExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (f.debug_struct("VolumeExport").field("size", &self.size())).finish_non_exhaustive()
    }
}

impl VolumeExport {
    /// Offers this volume. Reads wait for the throttle, and fail once the end is asked for.
    pub fn new(
        volume: Arc<dyn VolumeReader>,
        throttle: Throttle,
        clock: Arc<dyn Clock>,
        cancel: Cancel,
    ) -> Self {
        Self {
            volume,
            throttle,
            clock,
            cancel,
            read: AtomicU64::new(0),
            reached: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    /// Bytes that clients have read.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The highest offset that a client has read up to.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    /// Whether a client has asked for anything of the disk but its size.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// The first error that a client got: it knows more than what the client says of it.
    pub fn failure(&self) -> Option<Error> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, error: Error) -> ExportError {
        let chain = error.chain();
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
        ExportError::new(Errno::Io, chain)
    }
}

impl Export for VolumeExport {
    fn size(&self) -> u64 {
        self.volume.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError> {
        self.asked.store(true, Ordering::SeqCst);
        let length = buffer.len() as u64;
        (self.throttle).take(&*self.clock, &self.cancel, length);
        (self.cancel.check())
            .and_then(|()| self.volume.read_at(offset, buffer))
            .map_err(|e| self.failed(e))?;
        self.read.fetch_add(length, Ordering::Relaxed);
        self.reached.fetch_max(offset + length, Ordering::Relaxed);
        Ok(())
    }

    fn extents(
        &self,
        _context: &str,
        offset: u64,
        length: u64,
    ) -> Result<Vec<Extent>, ExportError> {
        self.asked.store(true, Ordering::SeqCst);
        let end = offset.saturating_add(length).min(self.size());
        let mut extents: Vec<Extent> = Vec::new();
        let mut position = offset;
        let mut push = |to: u64, flags: u64| {
            let to = to.min(end);
            if to > position {
                match extents.last_mut().filter(|last| last.flags == flags) {
                    Some(last) => last.length += to - position,
                    None => extents.push(Extent {
                        offset: position,
                        length: to - position,
                        flags,
                    }),
                }
                position = to;
            }
            position
        };
        let mut at = offset;
        while at < end {
            at = match next_data(&*self.volume, at).map_err(|e| self.failed(e))? {
                Some(data) => {
                    push(data.offset(), Extent::HOLE | Extent::ZERO);
                    push(data.end(), 0)
                }
                None => push(end, Extent::HOLE | Extent::ZERO),
            };
        }
        Ok(extents)
    }
}
