//! A provider that keeps its archives in memory: the contract's smallest complete example, and a
//! test double for what drives providers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    Archive, ArchiveName, BackupJob, ContainerBackup, ContainerRestore, Error, ErrorKind, GuestId,
    GuestKind, IdMap, Outcome, Provider, Result, UnixTime, VmBackup, VmMechanism, VmRestore,
};

mod container;
mod reader;
mod source;
pub mod tree;
mod vm;

/// A provider that keeps its archives in memory. Clones share their archives.
#[derive(Clone)]
pub struct MemoryProvider {
    shelf: Arc<Mutex<Shelf>>,
    mechanism: VmMechanism,
    audit: Option<u64>,
}

#[derive(Default)]
struct Shelf {
    archives: BTreeMap<ArchiveName, Stored>,
    /// Backups ever started; makes archive names unique within one second.
    started: u64,
}

/// An archive. What is opened is a clone.
#[derive(Clone)]
struct Stored {
    guest: GuestId,
    configs: Configs,
    data: Guest,
    /// How many were there before it.
    number: u64,
}

/// The configurations in an archive.
#[derive(Clone)]
struct Configs {
    guest: Vec<u8>,
    firewall: Option<Vec<u8>>,
}

/// What an archive has of its guest.
#[derive(Clone)]
enum Guest {
    Vm(vm::Volumes),
    /// Its tree, and the user namespace that its owners are of.
    Container(tree::MemoryTree, Option<IdMap>),
}

impl MemoryProvider {
    /// An empty provider that asks for this mechanism. It believes files that look unchanged.
    pub fn new(mechanism: VmMechanism) -> Self {
        Self {
            shelf: Arc::default(),
            mechanism,
            audit: None,
        }
    }

    /// Reads one in so many of the files that look unchanged all the same; 0 is taken for 1.
    #[must_use]
    pub fn auditing(self, one_in: u64) -> Self {
        let audit = Some(one_in.max(1));
        Self { audit, ..self }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // An archive is inserted whole, so a panic elsewhere leaves nothing half done.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, kind: &str, guest: &GuestId, time: UnixTime) -> Result<ArchiveName> {
        let mut shelf = self.shelf();
        shelf.started += 1;
        format!("memory/{kind}/{guest}/{}-{}", time.0, shelf.started).parse()
    }
}

impl fmt::Debug for MemoryProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.shelf().archives.keys()).finish()
    }
}

impl Provider for MemoryProvider {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn start_job(&self, _start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        Ok(Box::new(self.clone()))
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        let found = self.shelf().archives.get(name).cloned();
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no archive {name}"));
        Ok(Box::new(found.ok_or_else(missing)?))
    }
}

impl BackupJob for MemoryProvider {
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>> {
        let name = self.name("vm", guest, start_time)?;
        let provider = self.clone();
        Ok(Box::new(vm::Running::new(provider, guest.clone(), name)))
    }

    fn start_container(
        &mut self,
        guest: &GuestId,
        start_time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        let name = self.name("ct", guest, start_time)?;
        Ok(Box::new(container::Running {
            provider: self.clone(),
            guest: guest.clone(),
            name,
            start_time,
        }))
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

impl Configs {
    fn new(guest: &[u8], firewall: Option<&[u8]>) -> Self {
        Self {
            guest: guest.to_vec(),
            firewall: firewall.filter(|c| !c.is_empty()).map(<[u8]>::to_vec),
        }
    }
}

impl Archive for Stored {
    fn guest_kind(&self) -> GuestKind {
        match self.data {
            Guest::Vm(_) => GuestKind::Qemu,
            Guest::Container(..) => GuestKind::Lxc,
        }
    }

    fn guest_config(&self) -> Result<Vec<u8>> {
        Ok(self.configs.guest.clone())
    }

    fn firewall_config(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.configs.firewall.clone())
    }

    fn restore_vm(self: Box<Self>) -> Result<Box<dyn VmRestore>> {
        match self.data {
            Guest::Vm(volumes) => Ok(Box::new(volumes)),
            Guest::Container(..) => {
                let what = "the archive is of a container";
                Err(Error::new(ErrorKind::Unsupported, what))
            }
        }
    }

    fn restore_container(self: Box<Self>) -> Result<Box<dyn ContainerRestore>> {
        match self.data {
            Guest::Container(tree, _) => Ok(Box::new(container::Restore(tree))),
            Guest::Vm(_) => {
                let what = "the archive is of a virtual machine";
                Err(Error::new(ErrorKind::Unsupported, what))
            }
        }
    }
}

/// An offset as an index; what no volume has is past the end of each.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
