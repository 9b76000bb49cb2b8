//! What Perl's form of the contract has no words for.

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
        let found = UNSAID.iter().chain(more);
        let mut found = found.filter(|(name, _)| *name == property.name);
        found.next().map(|(_, why)| *why)
    }
}

#[cfg(test)]
mod tests {
    use super::{UNSAID, UNSAID_IN_V5};
    use crate::kit::properties;

    #[test]
    fn what_is_not_applicable_is_a_property_of_the_kit() {
        let known: Vec<_> = properties().iter().map(|property| property.name).collect();
        for (name, _) in UNSAID.iter().chain(UNSAID_IN_V5) {
            assert!(known.contains(name), "{name}");
        }
    }
}
