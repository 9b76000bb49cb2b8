//! The provider that keeps its archives in memory has every property of the contract.

use snapkeep_api::conformance::{assert_container, assert_vm, container_properties, vm_properties};
use snapkeep_api::memory::MemoryProvider;
use snapkeep_api::{
    Archive, ArchiveName, BackupJob, ContainerBackup, Error, ErrorKind, GuestId, Outcome, Provider,
    Result, UnixTime, VmBackup, VmMechanism,
};

#[test]
fn the_memory_provider_has_every_property_by_file_handle() {
    assert_vm(&|| Box::new(MemoryProvider::new(VmMechanism::FileHandle)));
}

#[test]
fn the_memory_provider_has_every_property_over_nbd() {
    assert_vm(&|| Box::new(MemoryProvider::new(VmMechanism::Nbd)));
}

#[test]
fn the_memory_provider_has_every_property_of_containers() {
    assert_container(&|| Box::new(MemoryProvider::new(VmMechanism::Nbd)));
}

#[test]
fn the_memory_provider_has_every_property_of_containers_if_it_audits() {
    assert_container(&|| Box::new(MemoryProvider::new(VmMechanism::Nbd).auditing(2)));
}

/// Backs up virtual machines only.
#[derive(Clone)]
struct NoContainers(MemoryProvider, ErrorKind);

impl Provider for NoContainers {
    fn name(&self) -> &str {
        Provider::name(&self.0)
    }

    fn start_job(&self, _start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        Ok(Box::new(self.clone()))
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        self.0.open_archive(name)
    }
}

impl BackupJob for NoContainers {
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>> {
        self.0.start_vm(guest, start_time)
    }

    fn start_container(
        &mut self,
        _guest: &GuestId,
        _start_time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        Err(Error::new(self.1, "no containers"))
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

fn without_containers(kind: ErrorKind) {
    assert_container(&move || Box::new(NoContainers(MemoryProvider::new(VmMechanism::Nbd), kind)));
}

#[test]
fn a_provider_may_refuse_containers_as_unsupported() {
    without_containers(ErrorKind::Unsupported);
}

#[test]
fn a_provider_that_fails_at_containers_breaks_the_contract() {
    let failed = std::panic::catch_unwind(|| without_containers(ErrorKind::Unavailable));
    let said = failed.unwrap_err().downcast::<String>().unwrap();
    assert!(
        said.contains("every_kind_of_entry_restores_exactly"),
        "{said}"
    );
}

#[test]
fn properties_have_names_of_their_own() {
    let mut names: Vec<_> = [vm_properties(), container_properties()]
        .concat()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
