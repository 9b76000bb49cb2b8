//! An archive, and what is restored from it.

use std::collections::BTreeMap;

use crate::deliver::{Take, in_order};
use crate::tree::TreeReader;
use crate::{DeviceName, Error, ErrorKind, GuestKind, Region, Result, VolumeInfo};

/// An archive opened for reading.
pub trait Archive: Send + Sync {
    /// What kind of guest was backed up (`restore_get_mechanism`).
    fn guest_kind(&self) -> GuestKind;
    /// The raw guest configuration (`archive_get_guest_config`).
    fn guest_config(&self) -> Result<Vec<u8>>;
    /// The raw firewall configuration, if the guest had one (`archive_get_firewall_config`).
    fn firewall_config(&self) -> Result<Option<Vec<u8>>>;
    /// Prepares a virtual machine's restore (`restore_vm_init`). `Unsupported` for an archive of
    /// another kind of guest.
    fn restore_vm(self: Box<Self>) -> Result<Box<dyn VmRestore>>;
    /// Prepares a container's restore (`restore_container_init`). `Unsupported` for an archive of
    /// another kind of guest.
    fn restore_container(self: Box<Self>) -> Result<Box<dyn ContainerRestore>> {
        let what = "the archive is of a virtual machine";
        Err(Error::new(ErrorKind::Unsupported, what))
    }
}

/// A virtual machine being restored.
pub trait VmRestore: Send {
    /// The volumes in the archive. No bitmap is named.
    fn volumes(&self) -> &BTreeMap<DeviceName, VolumeInfo>;
    /// Opens one volume for reading (`restore_vm_volume_init`). Serving it (a file under FUSE, an
    /// NBD export) is not the provider's work.
    fn open_volume(&mut self, device: &DeviceName) -> Result<Box<dyn VolumeReader>>;
    /// Ends the restore, in success and in failure (`restore_vm_cleanup`).
    fn finish(self: Box<Self>) -> Result<()>;
}

/// One volume of an archive, readable anywhere, from several threads at once.
pub trait VolumeReader: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills the buffer from this offset. A range past the end is an error of kind `Protocol`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// The next run of data at or after this offset; holes, which read as zeroes, lie between.
    /// Answered from the archive's metadata.
    fn next_data(&self, offset: u64) -> Result<Option<Region>>;
    /// Tells every part of this range once, by at most so many threads and in whatever order it is
    /// cheapest to read: for restores to places that can be written anywhere. Ends at the first
    /// error, of the volume or of `take`. Without a way of its own it is read in order.
    fn deliver(&self, range: Region, threads: usize, take: Take<'_>) -> Result<()> {
        in_order(self, range, threads, take)
    }
}

/// A container being restored. Serving the tree is not the provider's work.
pub trait ContainerRestore: Send {
    /// Opens the file tree for reading.
    fn open_tree(&mut self) -> Result<Box<dyn TreeReader>>;
    /// Ends the restore, in success and in failure (`restore_container_cleanup`).
    fn finish(self: Box<Self>) -> Result<()>;
}
