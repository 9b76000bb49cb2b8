//! The backup provider contract: how a hypervisor host hands the disks and file trees of its
//! guests to a backup provider, and gets them back.
//!
//! A host drives a [`Provider`]; each pair of calls of the Proxmox VE backup provider API (an
//! `init` and a `cleanup`) is one value here, made by one call and consumed by another, so a call
//! out of order cannot be written. What a constructor was given is never an argument again.
//!
//! ```text
//! Provider ── start_job ──▶ BackupJob ── start_vm ────────▶ VmBackup        ── run, finish
//!    │                          └─────── start_container ─▶ ContainerBackup ── run, finish
//!    └────── open_archive ─▶ Archive ──── restore_vm ──────▶ VmRestore ── open_volume ─▶ VolumeReader
//!                               └──────── restore_container ▶ ContainerRestore
//! ```
//!
//! The crate knows no repository, no QEMU monitor and no command line. The feature `nbd` opens
//! snapshot access over NBD; the feature `conformance` has the properties every provider must
//! have, as functions over any [`Provider`].

mod archive;
mod cancel;
#[cfg(feature = "conformance")]
pub mod conformance;
mod container;
mod deliver;
mod error;
mod idmap;
mod log;
#[cfg(feature = "conformance")]
pub mod memory;
mod names;
mod provider;
mod region;
mod source;
#[cfg(any(test, feature = "conformance"))]
mod stepping;
mod throttle;
mod time;
pub mod tree;
mod vm;

pub use archive::{Archive, ContainerRestore, VmRestore, VolumeReader};
pub use cancel::Cancel;
pub use container::{ContainerBackup, ContainerSource};
pub use deliver::{Part, Take, next_data};
pub use error::{Error, ErrorKind, Result};
pub use idmap::{IdKind, IdMap, IdRange, add_lxc_range};
pub use log::{Level, TaskLog, TaskLogFile};
pub use names::{ArchiveName, BitmapName, DeviceName, GuestId, GuestKind, StorageId};
pub use provider::{BackupJob, BackupStats, Outcome, Provider};
pub use region::Region;
pub use source::{BlockSource, DirtyRegions, SnapshotAccess};
#[cfg(any(test, feature = "conformance"))]
pub use stepping::SteppingClock;
pub use throttle::Throttle;
pub use time::{Clock, SystemClock, UnixTime};
pub use vm::{
    BitmapInfo, BitmapMode, BitmapRequest, Incarnation, Process, VmBackup, VmMechanism, VmSource,
    Volume, VolumeInfo,
};
