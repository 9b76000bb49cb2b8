//! The conformance kit: the properties every provider must have, as functions over a factory.
//!
//! Each property takes fresh providers over empty storages, drives them as a host does, and hands
//! over disks that it made up itself, by the mechanism that the provider asks for: in files that
//! cannot be read where reading is not allowed, or as NBD exports that watch each read, discard and
//! block status. A provider that can do both mechanisms is checked twice, with a factory for each.
//! What a property does not say, a provider may do as it likes: it need not reuse any bitmap, nor
//! take any file of a container for unchanged.

mod bitmaps;
mod container;
mod disk;
mod drive;
mod export;
mod known;
mod trees;
mod vm;

use crate::{ErrorKind, Provider};

pub use trees::tree_difference;

/// Makes a provider over a storage of its own, empty, and reachable as long as the provider is.
pub type Factory<'a> = &'a dyn Fn() -> Box<dyn Provider>;

/// What came of a property: an error says what was seen instead.
pub type Check = Result<(), String>;

/// A property: fails with what was seen instead.
pub type Property = fn(Factory<'_>) -> Check;

macro_rules! properties {
    ($($module:ident :: $name:ident),* $(,)?) => {
        vec![$((stringify!($name), $module::$name as Property)),*]
    };
}

/// The properties of the backup and restore of virtual machines, by name.
pub fn vm_properties() -> Vec<(&'static str, Property)> {
    properties![
        vm::what_was_committed_restores_byte_for_byte,
        vm::volumes_of_odd_sizes_restore,
        vm::odd_device_names_restore,
        vm::a_failed_run_leaves_no_archive,
        vm::one_failing_disk_fails_the_backup_by_its_name,
        vm::a_failed_run_harms_no_earlier_archive,
        vm::an_archive_outlives_a_failed_finish,
        vm::configurations_are_kept_byte_for_byte,
        vm::an_empty_firewall_configuration_is_none,
        vm::archive_names_are_valid_and_unique_within_a_second,
        vm::two_guests_at_once_do_not_mix,
        vm::a_truncated_region_list_fails,
        vm::a_failing_region_list_fails,
        vm::a_wrong_announced_size_fails,
        vm::an_unknown_archive_is_not_found,
        vm::reading_past_the_end_of_a_volume_fails,
        vm::the_wrong_kind_of_guest_is_unsupported,
        bitmaps::an_incremental_equals_the_disk,
        bitmaps::a_clean_bitmap_reads_nothing,
        bitmaps::only_dirty_regions_are_read,
        bitmaps::nothing_is_discarded_before_it_was_read,
        bitmaps::what_was_read_is_discarded,
        bitmaps::a_discard_that_fails_costs_nothing,
        bitmaps::a_reused_bitmap_is_read_to_its_end,
        bitmaps::a_failed_incremental_harms_nothing,
        bitmaps::a_bitmap_of_an_unknown_base_is_not_used,
        bitmaps::a_bitmap_of_an_uncommitted_base_is_not_used,
        bitmaps::a_bitmap_of_another_guest_is_not_used,
        bitmaps::a_bitmap_of_another_device_is_not_used,
        bitmaps::a_bitmap_of_another_size_is_not_used,
        bitmaps::a_nameless_base_is_not_trusted_across_incarnations,
    ]
}

/// The properties of the backup and restore of containers, by name, for a provider that backs up
/// containers.
pub fn container_properties() -> Vec<(&'static str, Property)> {
    properties![
        container::every_kind_of_entry_restores_exactly,
        container::attributes_restore_exactly,
        container::odd_names_restore,
        container::hard_links_restore,
        container::holes_read_as_zeroes,
        container::contents_of_any_length_restore,
        container::a_containers_configurations_are_kept_byte_for_byte,
        container::a_containers_empty_firewall_configuration_is_none,
        container::names_of_containers_archives_are_valid_and_unique,
        container::a_failed_walk_leaves_no_archive,
        container::a_failed_walk_harms_no_earlier_archive,
        container::a_containers_archive_outlives_a_failed_finish,
        container::what_cannot_be_read_is_counted_and_the_rest_is_there,
        container::two_containers_at_once_do_not_mix,
        container::folders_are_listed_in_pages,
        container::an_absent_name_is_not_there,
        container::reading_past_the_end_of_a_file_fails,
        container::a_container_is_no_virtual_machine,
        known::only_what_looks_unchanged_is_known,
        known::what_is_known_restores_as_it_was,
        known::what_changed_while_it_was_read_is_not_known,
        known::what_has_no_witness_is_not_known,
        known::what_may_be_younger_than_the_backup_is_not_known,
        known::what_a_failed_backup_saw_is_not_known,
        known::what_is_audited_is_read_again,
        known::nothing_is_known_of_another_user_namespace,
        known::what_was_read_ahead_is_kept_as_it_is_at_the_end,
        known::a_failed_reading_ahead_leaves_nothing,
        known::another_guests_tree_is_not_known,
        known::what_was_never_known_cannot_be_told_as_known,
    ]
}

/// Checks all properties of virtual machines.
///
/// # Panics
///
/// If a property does not hold; the message names each one that failed.
pub fn assert_vm(factory: Factory<'_>) {
    assert_none(&failing(vm_properties(), factory));
}

/// Checks all properties of containers. A provider may refuse all containers, as `Unsupported`:
/// of such a one nothing more is checked.
///
/// # Panics
///
/// If a property does not hold; the message names each one that failed.
pub fn assert_container(factory: Factory<'_>) {
    let refuses = || {
        let mut job = factory().start_job(drive::START)?;
        let started = job.start_container(&drive::name(drive::GUEST)?, drive::START);
        Ok(started.is_err_and(|e| e.kind() == ErrorKind::Unsupported))
    };
    match refuses() {
        Ok(true) => {}
        Ok(false) => assert_none(&failing(container_properties(), factory)),
        Err(error) => assert_none(&[("the start of a job", drive::text(&error))]),
    }
}

/// The properties of virtual machines that do not hold, and what was seen instead.
pub fn failing_vm_properties(factory: Factory<'_>) -> Vec<(&'static str, String)> {
    failing(vm_properties(), factory)
}

fn failing(
    properties: Vec<(&'static str, Property)>,
    factory: Factory<'_>,
) -> Vec<(&'static str, String)> {
    let checked = (properties.into_iter()).map(|(name, property)| (name, property(factory)));
    checked
        .filter_map(|(name, check)| check.err().map(|why| (name, why)))
        .collect()
}

fn assert_none(failures: &[(&str, String)]) {
    assert!(
        failures.is_empty(),
        "the provider breaks the contract:\n{}",
        failures
            .iter()
            .map(|(name, why)| format!("  {name}: {why}"))
            .collect::<Vec<_>>()
            .join("\n")
    );
}
