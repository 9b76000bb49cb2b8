//! The host: the caller of a backup provider on a machine without Proxmox VE.
//!
//! `qmp` speaks to a running QEMU's monitor; the backup gives a provider the snapshot access of
//! that QEMU's disks; `restore` serves what a provider hands out. The crate knows no repository.

mod backup;
pub mod container;
mod detach;
mod disks;
pub mod doctor;
mod edges;
mod fleecing;
mod freeze;
mod graph;
mod insert;
mod leftovers;
pub mod limits;
mod names;
mod obstacles;
mod oldest;
mod process;
mod qemu;
mod qmp;
pub mod restore;
mod silence;
mod teardown;

pub use backup::{Finished, VmRequest, back_up_vm};
pub use disks::{Disk, DiskBitmap};
pub use qemu::Qemu;
pub use teardown::recover;
