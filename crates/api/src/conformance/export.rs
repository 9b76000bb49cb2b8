//! A made-up disk as an NBD export that watches what a provider does with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snapkeep_nbd::{
    Address, BASE_ALLOCATION, Errno, Export, ExportError, Extent, Server, ServerOptions,
};

use super::Check;
use super::disk::{CLUSTER, Disk, Fault, GRANULARITY};
use crate::{BitmapMode, BitmapName, Error, ErrorKind, Result};

/// A byte was not yet read.
const UNREAD: u8 = 0;
/// A byte was read.
const READ: u8 = 1;
/// A byte was read, then discarded: it is gone.
const DISCARDED: u8 = 2;
/// A cluster of zeroes, or one that was not read.
static ZEROES: [u8; CLUSTER] = [0; CLUSTER];
/// A cluster that was read and discarded.
static GONE: [u8; CLUSTER] = [DISCARDED; CLUSTER];

/// Tells the sockets of this process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The exports of one backup, served as long as this lives.
pub(super) struct Exports {
    pub(super) socket: PathBuf,
    watched: Vec<Arc<Watched>>,
    _server: Server,
}

impl Exports {
    /// Serves disks, by what became of their bitmaps.
    pub(super) fn serve(
        disks: &[(&Disk, BitmapMode)],
        bitmap: &BitmapName,
        fault: Fault,
    ) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = format!("snapkeep-conformance-{}-{number}.sock", std::process::id());
        let socket = std::env::temp_dir().join(file);
        let watched = disks
            .iter()
            .map(|(disk, mode)| Arc::new(Watched::new(disk, *mode, bitmap, fault)));
        let watched: Vec<_> = watched.collect();
        let exports: BTreeMap<String, Arc<dyn Export>> = watched
            .iter()
            .map(|export| (export.device.to_owned(), Arc::clone(export) as _))
            .collect();
        let options = ServerOptions {
            coalesce_bytes: 0,
            ..ServerOptions::default()
        };
        let server =
            Server::bind(Address::Unix(socket.clone()), exports, options).map_err(|e| {
                Error::with_source(ErrorKind::Source, "the kit cannot serve its disks", e)
            })?;
        Ok(Self {
            socket,
            watched,
            _server: server,
        })
    }

    /// Fails with the first thing that a provider must not do, and did.
    pub(super) fn verdict(&self) -> Check {
        let complaints = self.watched.iter().find_map(|export| {
            let complaint = export.state().complaints.first().cloned()?;
            Some(format!("device {}: {complaint}", export.device))
        });
        complaints.map_or(Ok(()), Err)
    }

    /// Bytes of all disks that were read, each as often as it was.
    pub(super) fn bytes_read(&self) -> u64 {
        self.watched.iter().map(|e| e.state().bytes_read).sum()
    }

    /// Bytes of all disks that were read and not discarded.
    pub(super) fn bytes_kept(&self) -> u64 {
        let kept = |e: &Arc<Watched>| -> u64 {
            let state = e.state();
            // Most of it is all of one kind, and is compared faster than counted.
            let mixed = state
                .bytes
                .chunks(CLUSTER)
                .filter(|bytes| *bytes != &GONE[..bytes.len()] && *bytes != &ZEROES[..bytes.len()]);
            let kept = mixed.flatten().map(|&byte| u64::from(byte == READ));
            kept.sum()
        };
        self.watched.iter().map(kept).sum()
    }

    /// Whether extents were asked for where they fail, or a bitmap was reused that is not there.
    pub(super) fn list_failed(&self) -> bool {
        let missing = |e: &Watched| e.fault == Fault::Bitmap && e.mode == BitmapMode::Reuse;
        (self.watched.iter()).any(|e| missing(e) || e.state().list_failed)
    }

    /// The disks with a reused bitmap that was not asked for to its end.
    pub(super) fn unasked(&self) -> usize {
        let reused = self.watched.iter().filter(|e| e.mode == BitmapMode::Reuse);
        let unasked = reused.filter(|e| {
            let clusters = e.size().div_ceil(GRANULARITY);
            (e.state().asked.len() as u64) < clusters
        });
        unasked.count()
    }
}

struct Watched {
    device: &'static str,
    content: Vec<u8>,
    mode: BitmapMode,
    context: String,
    /// The clusters that may be read.
    readable: BTreeSet<u64>,
    fault: Fault,
    state: Mutex<State>,
}

/// What was done so far.
struct State {
    bytes: Vec<u8>,
    bytes_read: u64,
    /// The clusters whose bit of the bitmap was told.
    asked: BTreeSet<u64>,
    complaints: Vec<String>,
    /// Whether extents were asked for where they fail.
    list_failed: bool,
}

impl Watched {
    fn new(disk: &Disk, mode: BitmapMode, bitmap: &BitmapName, fault: Fault) -> Self {
        let fault = disk.fault(fault);
        let cut = if fault == Fault::Size { 512 } else { 0 };
        let content = disk.content[..disk.content.len() - cut].to_vec();
        let state = State {
            bytes: vec![UNREAD; content.len()],
            bytes_read: 0,
            asked: BTreeSet::new(),
            complaints: Vec::new(),
            list_failed: false,
        };
        Self {
            device: disk.device,
            readable: disk.readable(mode),
            content,
            mode,
            context: format!("qemu:dirty-bitmap:{bitmap}"),
            fault,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, what: String) -> ExportError {
        self.state().complaints.push(what.clone());
        ExportError::new(Errno::Io, what)
    }

    /// Whether a range has the cluster in the middle of what may be read.
    fn has_middle(&self, offset: u64, length: u64) -> bool {
        let middle = self.readable.iter().nth(self.readable.len() / 2);
        middle.is_some_and(|cluster| {
            let start = cluster * GRANULARITY;
            offset < start + GRANULARITY && start < offset + length
        })
    }

    fn may_be_read(&self, offset: u64, length: u64) -> bool {
        let mut clusters = offset / GRANULARITY..(offset + length).div_ceil(GRANULARITY);
        clusters.all(|cluster| self.readable.contains(&cluster))
    }

    /// The flags of one cluster in one context.
    fn flags(&self, context: &str, cluster: u64) -> Option<u64> {
        if context == self.context {
            return Some(u64::from(self.readable.contains(&cluster)) * Extent::DIRTY);
        }
        let range = range(cluster * GRANULARITY, GRANULARITY)?;
        let bytes = self
            .content
            .get(range.start..range.end.min(self.content.len()))?;
        let zero = ZEROES.starts_with(bytes);
        Some(u64::from(zero) * (Extent::HOLE | Extent::ZERO))
    }
}

fn range(offset: u64, length: u64) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok()?;
    Some(start..start.checked_add(usize::try_from(length).ok()?)?)
}

fn impossible() -> ExportError {
    ExportError::new(Errno::Invalid, "a range outside of the disk")
}

impl Export for Watched {
    fn size(&self) -> u64 {
        self.content.len() as u64
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn can_trim(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::result::Result<(), ExportError> {
        let length = buffer.len() as u64;
        let bytes = range(offset, length).ok_or_else(impossible)?;
        if !self.may_be_read(offset, length) {
            let what = format!("{length} bytes at {offset} were read that are not dirty");
            return Err(self.complain(what));
        }
        if self.state().bytes[bytes.clone()].contains(&DISCARDED) {
            let what = format!("{length} bytes at {offset} were read after they were discarded");
            return Err(self.complain(what));
        }
        if self.fault == Fault::Read && self.has_middle(offset, length) {
            return Err(ExportError::new(Errno::Io, "the disk fails here"));
        }
        buffer.copy_from_slice(&self.content[bytes.clone()]);
        let mut state = self.state();
        state.bytes[bytes].fill(READ);
        state.bytes_read += length;
        Ok(())
    }

    fn write_at(&self, offset: u64, buffer: &[u8]) -> std::result::Result<(), ExportError> {
        let length = buffer.len();
        Err(self.complain(format!("{length} bytes at {offset} were written")))
    }

    fn trim(&self, offset: u64, length: u64) -> std::result::Result<(), ExportError> {
        let bytes = range(offset, length).ok_or_else(impossible)?;
        if self.state().bytes[bytes.clone()]
            .iter()
            .any(|b| b & READ == 0)
        {
            let what = format!("{length} bytes at {offset} were discarded before they were read");
            return Err(self.complain(what));
        }
        if self.fault == Fault::Discard {
            return Err(ExportError::new(Errno::Io, "the disk discards nothing"));
        }
        let mut state = self.state();
        state.bytes[bytes].fill(DISCARDED);
        Ok(())
    }

    fn contexts(&self) -> Vec<String> {
        let bitmap = self.mode != BitmapMode::None && self.fault != Fault::Bitmap;
        let bitmap = bitmap.then(|| self.context.clone());
        [BASE_ALLOCATION.to_owned()]
            .into_iter()
            .chain(bitmap)
            .collect()
    }

    fn extents(
        &self,
        context: &str,
        offset: u64,
        length: u64,
    ) -> std::result::Result<Vec<Extent>, ExportError> {
        if context == BASE_ALLOCATION && self.mode == BitmapMode::Reuse {
            let what = "its allocation was asked for, which fails where it is not dirty";
            return Err(self.complain(what.to_owned()));
        }
        if self.fault == Fault::List && self.has_middle(offset, length) {
            self.state().list_failed = true;
            return Err(ExportError::new(Errno::Io, "the list fails here"));
        }
        let mut extents = Vec::new();
        let mut position = offset;
        while position < offset + length {
            let cluster = position / GRANULARITY;
            if self.fault == Fault::ListCut && self.has_middle(position, 1) {
                self.state().list_failed = true;
                break;
            }
            let end = ((cluster + 1) * GRANULARITY).min(offset + length);
            let flags = self.flags(context, cluster).ok_or_else(impossible)?;
            if context == self.context {
                self.state().asked.insert(cluster);
            }
            extents.push(Extent {
                offset: position,
                length: end - position,
                flags,
            });
            position = end;
        }
        Ok(extents)
    }
}
