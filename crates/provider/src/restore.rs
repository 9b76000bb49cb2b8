//! What is restored: an archive's configurations and its disks, readable at any offset.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_api::{
    Archive, ArchiveName, ContainerRestore, DeviceName, Error, ErrorKind, GuestKind, Part, Region,
    Result, Take, VmRestore, VolumeInfo, VolumeReader,
};
use snapkeep_repo::{
    DeliverError, DiskPart, DiskReader, DiskRecord, Repository, Snapshot, SnapshotName,
};

use crate::container::StoredContainer;
use crate::error;
use crate::names::archive_kind;

/// A snapshot opened as an archive.
pub(crate) struct StoredArchive {
    repository: Arc<Repository>,
    name: ArchiveName,
    snapshot: Snapshot,
}

impl StoredArchive {
    pub(crate) fn open(repository: Arc<Repository>, name: &ArchiveName) -> Result<Self> {
        let snapshot_name: SnapshotName = (name.as_str().parse()).map_err(|e| {
            let what = format!("there is no archive {name}");
            Error::with_source(ErrorKind::NotFound, what, e)
        })?;
        let snapshot = (repository.snapshot(&snapshot_name))
            .map_err(|e| error::repository(format!("cannot open archive {name}"), e))?;
        Ok(Self {
            repository,
            name: name.clone(),
            snapshot,
        })
    }
}

impl Archive for StoredArchive {
    fn guest_kind(&self) -> GuestKind {
        archive_kind(&self.name)
    }

    fn guest_config(&self) -> Result<Vec<u8>> {
        (self.repository.read_blob(&self.snapshot.guest_config)).map_err(|e| {
            error::of_archive(
                &self.repository,
                &self.name,
                format!("cannot read the guest's configuration in {}", self.name),
                e,
            )
        })
    }

    fn firewall_config(&self) -> Result<Option<Vec<u8>>> {
        (self
            .snapshot
            .firewall_config
            .as_ref()
            .map(|blob| self.repository.read_blob(blob)))
        .transpose()
        .map_err(|e| {
            error::of_archive(
                &self.repository,
                &self.name,
                format!("cannot read the firewall's configuration in {}", self.name),
                e,
            )
        })
    }

    fn restore_vm(self: Box<Self>) -> Result<Box<dyn VmRestore>> {
        let Self {
            repository,
            name,
            snapshot,
        } = *self;
        may_restore(&repository, &name)?;
        if archive_kind(&name) == GuestKind::Lxc {
            let what = format!("archive {name} is of a container");
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let mut volumes = BTreeMap::new();
        let mut disks = BTreeMap::new();
        for disk in snapshot.disks {
            let device: DeviceName = disk.device.parse()?;
            volumes.insert(
                device.clone(),
                VolumeInfo {
                    size: disk.size,
                    bitmaps: Vec::new(),
                },
            );
            disks.insert(device, disk);
        }
        Ok(Box::new(Restore {
            repository,
            name,
            volumes,
            disks,
        }))
    }

    fn restore_container(self: Box<Self>) -> Result<Box<dyn ContainerRestore>> {
        let Self {
            repository,
            name,
            snapshot,
        } = *self;
        may_restore(&repository, &name)?;
        if archive_kind(&name) == GuestKind::Qemu {
            let what = format!("archive {name} is of a virtual machine");
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let lacking = || {
            let what = format!("archive {name} has no file tree that this program knows");
            Error::new(ErrorKind::Unsupported, what)
        };
        let tree = snapshot.tree.ok_or_else(lacking)?;
        Ok(Box::new(StoredContainer {
            repository,
            name,
            tree,
        }))
    }
}

/// Before a target is touched for nothing.
fn may_restore(repository: &Repository, name: &ArchiveName) -> Result<()> {
    (repository.may_read())
        .map_err(|e| error::repository(format!("archive {name} cannot be restored"), e))
}

struct Restore {
    repository: Arc<Repository>,
    name: ArchiveName,
    volumes: BTreeMap<DeviceName, VolumeInfo>,
    disks: BTreeMap<DeviceName, DiskRecord>,
}

impl VmRestore for Restore {
    fn volumes(&self) -> &BTreeMap<DeviceName, VolumeInfo> {
        &self.volumes
    }

    fn open_volume(&mut self, device: &DeviceName) -> Result<Box<dyn VolumeReader>> {
        let disk = self.disks.get(device).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the archive has no device {device}"),
            )
        })?;
        let reader = DiskReader::new(Arc::clone(&self.repository), disk.clone());
        Ok(Box::new(StoredVolume {
            repository: Arc::clone(&self.repository),
            name: self.name.clone(),
            device: device.clone(),
            reader,
        }))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct StoredVolume {
    repository: Arc<Repository>,
    name: ArchiveName,
    device: DeviceName,
    reader: DiskReader,
}

impl StoredVolume {
    fn unreadable(&self, error: snapkeep_repo::Error) -> Error {
        let what = format!("cannot read device {} of the archive", self.device);
        error::of_archive(&self.repository, &self.name, what, error)
    }
}

impl VolumeReader for StoredVolume {
    fn size(&self) -> u64 {
        self.reader.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset
            .checked_add(buffer.len() as u64)
            .filter(|end| *end <= self.size());
        if end.is_none() {
            let what = format!(
                "a read at offset {offset} passes the end of device {}",
                self.device
            );
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        (self.reader.read_at(offset, buffer)).map_err(|e| self.unreadable(e))
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        let found = (self.reader.next_data(offset)).map_err(|e| {
            let what = format!("cannot read the map of device {}", self.device);
            error::of_archive(&self.repository, &self.name, what, e)
        })?;
        found
            .map(|(offset, length)| Region::new(offset, length))
            .transpose()
    }

    fn deliver(&self, range: Region, threads: usize, take: Take<'_>) -> Result<()> {
        let tell = |part: DiskPart<'_>| match part {
            DiskPart::Zeroes { offset, length } => take(Part::Zeroes(Region::new(offset, length)?)),
            DiskPart::Data { offset, bytes } => take(Part::Data { offset, bytes }),
        };
        let delivered = (self.reader).deliver(range.offset()..range.end(), threads, &tell);
        delivered.map_err(|error| match error {
            DeliverError::Read(error) => self.unreadable(error),
            DeliverError::Taken(error) => error,
        })
    }
}
