//! The host: the caller of a backup provider on a machine without Proxmox VE.
//!
//! `qmp` speaks to a running QEMU's monitor; the backup gives a provider the snapshot access of
//! that QEMU's disks; `restore` serves what a provider hands out. The crate knows no repository.

pub mod limits;
mod process;
mod qemu;
mod qmp;
pub mod restore;

pub use qemu::Qemu;
