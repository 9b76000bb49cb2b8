//! The names of what a backup makes in QEMU: by them a later run knows what a killed one left.
//!
//! Node names have at most 31 bytes in QEMU, so the disks of a backup are numbered. One QEMU can
//! have one node of a name: the first node of a backup is also what keeps out a second backup.

use snapkeep_api::{ArchiveName, BitmapName, Result};

/// How everything begins.
pub(crate) const PREFIX: &str = "snapkeep-";
/// The frozen copy of the bitmap that is read from.
pub(crate) const RUN_BITMAP: &str = "snapkeep-run";
/// A node that is there while this program keeps the guest paused.
pub(crate) const PAUSED_MARK: &str = "snapkeep-paused";
/// A node that is there while the NBD server is this program's.
pub(crate) const SERVER_MARK: &str = "snapkeep-server";

pub(crate) const FLEECE: &str = "snapkeep-fleece-";
pub(crate) const FILTER: &str = "snapkeep-cbw-";
pub(crate) const SNAPSHOT: &str = "snapkeep-snap-";
pub(crate) const EXPORT: &str = "snapkeep-export-";

/// The bitmap that records what changes after this archive: its name carries the archive, and the
/// size that the disk had, because a bitmap that grows with its disk calls the new part clean.
pub(crate) fn generation(archive: &ArchiveName, size: u64) -> Result<BitmapName> {
    format!("{PREFIX}{size}-{archive}").parse()
}

/// The archive and the size that a bitmap of ours is relative to.
pub(crate) fn parse_generation(name: &str) -> Option<(ArchiveName, u64)> {
    let (size, archive) = name.strip_prefix(PREFIX)?.split_once('-')?;
    if !size.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((archive.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmaps_name_carries_its_archive_and_size() {
        let archive: ArchiveName = "main/vm/web-1/2026-11-22T20:29:00Z-00ff".parse().expect("valid");
        let name = generation(&archive, 512).expect("short enough");
        assert_eq!(parse_generation(name.as_str()), Some((archive, 512)));
    }

    #[test]
    fn other_names_are_no_generations() {
        for name in [
            RUN_BITMAP, "", "snapkeep-", "snapkeep-12", "snapkeep-x-a", "snapkeep-+1-a",
            "snapkeep-1-", "backup-1-a", "snapkeep-99999999999999999999-a", "snapkeep-1-a b",
        ] {
            assert_eq!(parse_generation(name), None, "{name}");
        }
    }
}
