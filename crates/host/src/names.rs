//! The names of what a backup makes in QEMU: by them a later run knows what a killed one left.
//!
//! Node names have at most 31 bytes in QEMU, so the disks of a backup are numbered. One QEMU can
//! have one node of a name: the first fleecing node is also what keeps out a second backup.

use snapkeep_api::{ArchiveName, BitmapName, DeviceName, Result};

/// How the names of all nodes, exports and jobs of ours begin.
pub(crate) const OURS: &str = "snapkeep-";
/// A node that is there while this program keeps the guest paused.
pub(crate) const PAUSED_MARK: &str = "snapkeep-paused";

pub(crate) const FLEECE: &str = "snapkeep-fleece-";
pub(crate) const FILTER: &str = "snapkeep-cbw-";
/// What others find on top of a disk, so that they lay nothing between a filter and its snapshot.
pub(crate) const GUARD: &str = "snapkeep-guard-";
pub(crate) const SNAPSHOT: &str = "snapkeep-snap-";
pub(crate) const EXPORT: &str = "snapkeep-export-";

/// The job that gives an overlay of somebody else its backing file back.
pub(crate) const DETACH_JOB: &str = "snapkeep-detach";
/// A bitmap of the fleecing node in which nothing is dirty.
pub(crate) const NOTHING: &str = "snapkeep-nothing";

/// How the bitmaps begin.
const GENERATION: &str = "snapkeep-";
/// Separates the parts of a bitmap's name. It is in no archive name and in no number.
const SEPARATOR: char = '@';

/// The bitmap that records what changes after this archive. Its name carries the archive; the size
/// that the disk had, because a bitmap that grows with its disk calls the new part clean; and the
/// device, because a bitmap that is kept in the image travels with it to another device.
pub(crate) fn generation(
    archive: &ArchiveName,
    size: u64,
    device: &DeviceName,
) -> Result<BitmapName> {
    format!("{GENERATION}{archive}{SEPARATOR}{size}{SEPARATOR}{device}").parse()
}

/// Whether a bitmap is one of ours, of any archive, size and device.
pub(crate) fn is_generation(name: &str) -> bool {
    parse(name).is_some()
}

/// The archive that a bitmap is relative to, if it was made for this device at this size.
pub(crate) fn base(name: &str, size: u64, device: &DeviceName) -> Option<ArchiveName> {
    let (archive, of_size, of_device) = parse(name)?;
    (of_size == size && of_device == device.as_str()).then_some(archive)
}

fn parse(name: &str) -> Option<(ArchiveName, u64, &str)> {
    let mut parts = name.strip_prefix(GENERATION)?.splitn(3, SEPARATOR);
    let (archive, size, device) = (parts.next()?, parts.next()?, parts.next()?);
    if !size.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((archive.parse().ok()?, size.parse().ok()?, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmaps_name_carries_its_archive_size_and_device() {
        let archive: ArchiveName = "main/vm/web-1/2026-11-22T20:29:00Z-00ff"
            .parse()
            .expect("valid");
        let device: DeviceName = "odd @ name".parse().expect("valid");
        let name = generation(&archive, 512, &device).expect("short enough");
        let name = name.as_str();
        assert_eq!(base(name, 512, &device), Some(archive));
        assert_eq!(base(name, 513, &device), None);
        assert_eq!(base(name, 512, &"name".parse().expect("valid")), None);
        assert!(is_generation(name));
    }

    #[test]
    fn other_names_are_no_generations() {
        for name in [
            "",
            "snapkeep-",
            "snapkeep-a@1",
            "snapkeep-a@x@d",
            "snapkeep-a@+1@d",
            "snapkeep-@1@d",
            "backup-a@1@d",
            "snapkeep-a@99999999999999999999@d",
            "snapkeep-a b@1@d",
        ] {
            assert!(!is_generation(name), "{name}");
        }
    }
}
