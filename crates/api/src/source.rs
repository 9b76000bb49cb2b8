//! Snapshot access: how a volume's bytes are handed over, and what a provider makes of it.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use crate::{BitmapName, Region, Result};

mod file;
#[cfg(feature = "nbd")]
mod nbd;
mod open;

/// The regions to read (`next-dirty-region`): ascending, disjoint, inside the volume. What lies
/// between reads as zeroes if no bitmap is reused, and is unchanged since the base if one is.
pub type DirtyRegions = Box<dyn Iterator<Item = Result<Region>> + Send>;

/// A volume's snapshot access.
pub enum SnapshotAccess {
    /// Mechanism `file-handle`.
    FileHandle {
        /// Reads, and punches holes to discard.
        file: File,
        /// The regions that may be read.
        dirty: DirtyRegions,
    },
    /// Mechanism `nbd`. The export is named after the device.
    Nbd {
        /// The server's Unix socket.
        socket: PathBuf,
        /// The dirty bitmap behind the metadata context `qemu:dirty-bitmap:NAME`; needed for
        /// [`BitmapMode::Reuse`](crate::BitmapMode::Reuse), ignored otherwise.
        bitmap: Option<BitmapName>,
    },
}

impl fmt::Debug for SnapshotAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileHandle { .. } => f.debug_struct("FileHandle").finish_non_exhaustive(),
            Self::Nbd { socket, bitmap } => f
                .debug_struct("Nbd")
                .field("socket", socket)
                .field("bitmap", bitmap)
                .finish(),
        }
    }
}

/// What a provider really wants of a volume, whatever the mechanism: made by
/// [`Volume::open`](crate::Volume::open).
pub trait BlockSource: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills `buffer` from `offset`. Several threads may read at once. Reading outside the
    /// regions fails.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Frees fleecing space; only for bytes that are in the provider's memory or beyond.
    fn discard(&self, region: Region) -> Result<()>;
    /// Ends what waits for the volume, from any thread: it fails, and so does everything later. A
    /// source that never waits for others need not do anything.
    fn interrupt(&self) {}
}
