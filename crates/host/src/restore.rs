//! Restore: a disk of an archive becomes a file, the content of a block device, or an NBD export.
//!
//! [`restore_raw`] writes raw disks itself, with several threads. [`convert`] hands the disk to
//! `qemu-img convert` over NBD, for every other format. [`VolumeExport`] is the disk as an export
//! of our NBD server, for `convert` and for whoever wants to read an archive without restoring it.
//!
//! A file appears under its name when it is whole and durable, never before: until then it lies in
//! a folder of its own beside its place. A block device is overwritten where it is: its first part
//! last, or by `qemu-img` from the front; then that part is zeroed if the restore fails. What is zero in the archive is made zero there; what cannot be read ends the restore.

mod convert;
mod device;
mod direct;
mod export;
mod limits;
pub(crate) mod lock;
mod target;

use std::num::NonZeroU64;

use snapkeep_api::Cancel;

pub use convert::convert;
pub use direct::restore_raw;
pub use export::VolumeExport;

/// How a disk is written out.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Threads that read and write at once, from 1 to 64.
    pub workers: usize,
    /// Replace what is there: an existing file, or what a block device holds.
    pub overwrite: bool,
    /// Bytes per second that are read from the archive; `None` is no limit.
    pub bandwidth_limit: Option<NonZeroU64>,
    /// Ends the restore when it is asked for: nothing is left but, on a block device, a part.
    pub cancel: Cancel,
}

/// What was restored, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Restored {
    /// The disk's size.
    pub size: u64,
    /// What of it was read from the archive; the rest are zeroes.
    pub data: u64,
}

/// Is told how many bytes of the disk, zeroes included, are done. Called from many threads; a
/// later call may have a smaller number.
pub type Observer<'a> = &'a (dyn Fn(u64) + Sync);
