//! Which archive a dirty bitmap is relative to, and whether that may be believed.
//!
//! A bitmap whose own name carries its archive is believed if that archive is there with a disk
//! of the same name and size. A bitmap with a fixed name says nothing of its base, and an archive
//! in between could have been removed since: without a record outside the archives it is never
//! believed, and the disk is read again. That costs reading, never an upload of what is stored.

use snapkeep_api::{ArchiveName, BitmapRequest, DeviceName, VolumeInfo};
use snapkeep_repo::{DiskRecord, Repository};

/// The answer for one volume.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Read incrementally to this disk of this archive.
    Use {
        request: BitmapRequest,
        archive: ArchiveName,
        disk: DiskRecord,
    },
    /// Read everything, for this reason.
    New { reason: String },
}

/// Chooses among the bitmaps that the host offers for a volume, newest first.
/// `archive` is the one being made: a base must be of the same namespace, kind and guest.
pub(crate) fn choose(
    repository: &Repository,
    archive: &ArchiveName,
    device: &DeviceName,
    volume: &VolumeInfo,
) -> Choice {
    let mut reasons = Vec::new();
    for bitmap in &volume.bitmaps {
        let Some(base) = &bitmap.base else {
            reasons.push(format!("bitmap {} does not name its archive", bitmap.name));
            continue;
        };
        if group(base) != group(archive) {
            reasons.push(format!(
                "bitmap {}: it is relative to another guest's archive",
                bitmap.name
            ));
            continue;
        }
        match find(repository, device, volume.size, base) {
            Ok(disk) => {
                let request = BitmapRequest::Use(bitmap.name.clone());
                return Choice::Use {
                    request,
                    archive: base.clone(),
                    disk,
                };
            }
            Err(reason) => reasons.push(format!("bitmap {}: {reason}", bitmap.name)),
        }
    }
    if reasons.is_empty() {
        reasons.push("there is no bitmap yet".to_owned());
    }
    Choice::New {
        reason: reasons.join("; "),
    }
}

/// Namespace, kind and guest of an archive.
fn group(archive: &ArchiveName) -> Option<&str> {
    archive.as_str().rsplit_once('/').map(|(group, _)| group)
}

fn find(
    repository: &Repository,
    device: &DeviceName,
    size: u64,
    base: &ArchiveName,
) -> Result<DiskRecord, String> {
    let name = base
        .as_str()
        .parse()
        .map_err(|e: snapkeep_repo::Error| e.chain())?;
    let snapshot = repository.snapshot(&name).map_err(|e| e.chain())?;
    let disk = (snapshot
        .disks
        .into_iter()
        .find(|disk| disk.device == device.as_str()))
    .ok_or_else(|| format!("archive {base} has no device {device}"))?;
    if disk.size != size {
        return Err(format!(
            "the disk had {} bytes in archive {base}, now {size}",
            disk.size
        ));
    }
    if disk.chunk_size as usize != repository.config().chunk_size() {
        return Err(format!("archive {base} has another chunk size"));
    }
    if !repository.has_map(&disk) {
        return Err(format!("archive {base} is damaged"));
    }
    Ok(disk)
}
