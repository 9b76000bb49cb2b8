//! The provider that keeps its archives in memory has every property of the contract.

use snapkeep_api::VmMechanism;
use snapkeep_api::conformance::{assert_container, assert_vm, container_properties, vm_properties};
use snapkeep_api::memory::MemoryProvider;

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
