//! What Perl's form of the contract has no words for.

use rustix::process::geteuid;
use snapkeep_api::memory::tree::MemoryTree;
use snapkeep_api::{ContainerSource, ErrorKind, Outcome, Provider, Result, UnixTime};

use super::{Dialect, PerlClass};
use crate::kit::Property;

/// Properties of either dialect that no caller of a class could break.
const UNSAID: &[(&str, &str)] = &[
    (
        "odd_device_names_restore",
        "Proxmox VE names devices itself: drive-scsi0 and the like",
    ),
    (
        "two_guests_at_once_do_not_mix",
        "Proxmox VE backs up one guest of a job after another",
    ),
    (
        "a_bitmap_of_an_unknown_base_is_not_used",
        "Proxmox VE does not tell which archive a bitmap is relative to",
    ),
    (
        "a_nameless_base_is_not_trusted_across_incarnations",
        "Proxmox VE does not tell a class which process of QEMU a bitmap is of",
    ),
    (
        "reading_past_the_end_of_a_volume_fails",
        "a disk is read as a file, which ends where it ends",
    ),
];

/// Properties of containers that no caller of a class could break, or see to be broken.
const UNSAID_OF_CONTAINERS: &[(&str, &str)] = &[
    ("a_failed_walk_leaves_no_archive", WALK),
    ("a_failed_walk_harms_no_earlier_archive", WALK),
    (
        "what_cannot_be_read_is_counted_and_the_rest_is_there",
        "a class has no words for what it left out",
    ),
    (
        "two_containers_at_once_do_not_mix",
        "Proxmox VE backs up one guest of a job after another",
    ),
    ("folders_are_listed_in_pages", READER),
    ("an_absent_name_is_not_there", READER),
    ("reading_past_the_end_of_a_file_fails", READER),
    ("only_what_looks_unchanged_is_known", KNOWN),
    ("what_is_known_restores_as_it_was", KNOWN),
    ("what_changed_while_it_was_read_is_not_known", KNOWN),
    ("what_has_no_witness_is_not_known", KNOWN),
    ("what_may_be_younger_than_the_backup_is_not_known", KNOWN),
    ("what_a_failed_backup_saw_is_not_known", KNOWN),
    ("what_is_audited_is_read_again", KNOWN),
    ("nothing_is_known_of_another_user_namespace", KNOWN),
    ("what_was_read_ahead_is_kept_as_it_is_at_the_end", KNOWN),
    ("a_failed_reading_ahead_leaves_nothing", KNOWN),
    ("another_guests_tree_is_not_known", KNOWN),
    ("what_was_never_known_cannot_be_told_as_known", KNOWN),
];

const WALK: &str = "a class reads the container's folder itself";
const READER: &str = "a restored tree is a folder, which the kernel reads";
const KNOWN: &str = "a class is given a folder, and nobody sees which of its files it reads";

/// Properties that version 5 leaves to its caller.
const UNSAID_IN_V5: &[(&str, &str)] = &[
    ("a_bitmap_of_an_uncommitted_base_is_not_used", BITMAPS_OF_V5),
    ("a_bitmap_of_another_guest_is_not_used", BITMAPS_OF_V5),
    ("a_bitmap_of_another_device_is_not_used", BITMAPS_OF_V5),
    ("a_bitmap_of_another_size_is_not_used", BITMAPS_OF_V5),
];

const BITMAPS_OF_V5: &str =
    "in version 5 a class is not asked for each disk whether its bitmap is to be used";

impl PerlClass {
    /// Why a property cannot be checked of a class in Perl, if it cannot.
    pub fn not_applicable(&self, property: &Property) -> Option<&'static str> {
        let more = match self.dialect {
            Dialect::Shipped => &[],
            Dialect::V5 => UNSAID_IN_V5,
        };
        let found = UNSAID.iter().chain(UNSAID_OF_CONTAINERS).chain(more);
        let mut found = found.filter(|(name, _)| *name == property.name);
        found.next().map(|(_, why)| *why)
    }

    /// Why no property of containers can be checked, if none can: seen by backing up an empty one.
    /// What else goes wrong with that is for the properties to tell.
    pub fn no_containers(&self) -> Option<&'static str> {
        if !geteuid().is_root() {
            return Some("containers take the rights of root");
        }
        let tried = self.empty_container();
        match tried {
            Ok(mechanism) if mechanism == "tar" => {
                Some("the class restores containers by tar archives, which the kit does not read")
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Some("the class does not back up containers")
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// How an archive of a container without files is restored.
    fn empty_container(&self) -> Result<String> {
        let class = self.class(false)?;
        let start = UnixTime(1_700_000_000);
        let mut job = class.start_job(start)?;
        let mut backup = job.start_container(&"100".parse()?, start)?;
        backup.run(ContainerSource {
            guest_config: b"arch: amd64\n",
            firewall_config: None,
            bandwidth_limit: None,
            id_map: None,
            tree: &mut MemoryTree::new().source(),
        })?;
        let name = backup.archive_name().clone();
        backup.finish(&Outcome::Success)?;
        job.finish(&Outcome::Success)?;
        Ok(class.open(&name)?.mechanism().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{UNSAID, UNSAID_IN_V5, UNSAID_OF_CONTAINERS};
    use crate::kit::properties;

    #[test]
    fn what_is_not_applicable_is_a_property_of_the_kit() {
        let known: Vec<_> = properties().iter().map(|property| property.name).collect();
        let all = UNSAID.iter().chain(UNSAID_OF_CONTAINERS);
        for (name, _) in all.chain(UNSAID_IN_V5) {
            assert!(known.contains(name), "{name}");
        }
    }
}
