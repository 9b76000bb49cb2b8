//! Which archive a dirty bitmap is relative to, and whether that may be believed.
//!
//! A bitmap whose own name carries its archive is believed if that archive is whole, with a disk
//! of the same name and size. A bitmap with a fixed name says nothing of its base: it is believed
//! if the storage's head names the archive, the archive's own record says that it left this bitmap
//! to this storage, and the guest has not gone back in time since. Otherwise the disk is read
//! again, which costs reading, never an upload of what is stored.

use snapkeep_api::{
    ArchiveName, BitmapInfo, BitmapName, DeviceName, Error, Incarnation, Process, StorageId,
    VolumeInfo,
};
use snapkeep_repo::{DiskRecord, Lineage, Repository};

use crate::heads::Announced;

/// What a volume is read incrementally to.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) bitmap: BitmapInfo,
    pub(crate) archive: ArchiveName,
    pub(crate) disk: DiskRecord,
}

impl Base {
    /// The bitmap's name, if it is a fixed one.
    pub(crate) fn fixed_name(&self) -> Option<&BitmapName> {
        self.bitmap.base.is_none().then_some(&self.bitmap.name)
    }
}

/// What is known when the bitmaps are chosen.
pub(crate) struct Evidence<'a> {
    pub(crate) repository: &'a Repository,
    /// The archive being made: a base must be of the same namespace, kind and guest.
    pub(crate) archive: &'a ArchiveName,
    pub(crate) incarnation: &'a Incarnation,
    /// The storage, and what its head says; only where bitmaps with fixed names are offered.
    pub(crate) storage: Option<(&'a StorageId, &'a Announced)>,
}

impl Evidence<'_> {
    /// The first bitmap that can be believed, or why none can.
    pub(crate) fn choose(&self, device: &DeviceName, volume: &VolumeInfo) -> Result<Base, String> {
        let mut reasons = Vec::new();
        for bitmap in &volume.bitmaps {
            match self.base(device, volume.size, bitmap) {
                Ok(base) => return Ok(base),
                Err(reason) => reasons.push(format!("bitmap {}: {reason}", bitmap.name)),
            }
        }
        if reasons.is_empty() {
            reasons.push("no bitmap was offered".to_owned());
        }
        Err(reasons.join("; "))
    }

    fn base(&self, device: &DeviceName, size: u64, bitmap: &BitmapInfo) -> Result<Base, String> {
        let (archive, disk) = match (&bitmap.base, self.storage) {
            (Some(archive), _) => (archive.clone(), self.disk(archive, device, size)?),
            (None, Some((storage, announced))) => {
                let archive = announced.base()?.as_str();
                let archive: ArchiveName = archive.parse().map_err(|e: Error| e.chain())?;
                let disk = self.disk(&archive, device, size)?;
                left(&disk.lineage, storage, &bitmap.name)
                    .and_then(|()| same_life(&disk.lineage, self.incarnation))
                    .map_err(|why| format!("archive {archive} {why}"))?;
                (archive, disk)
            }
            (None, None) => {
                return Err("it does not name its archive, and this storage has no ID".to_owned());
            }
        };
        Ok(Base {
            bitmap: bitmap.clone(),
            archive,
            disk,
        })
    }

    /// The device's disk in an archive, if the archive can be a base for this one.
    fn disk(
        &self,
        base: &ArchiveName,
        device: &DeviceName,
        size: u64,
    ) -> Result<DiskRecord, String> {
        if group(base) != group(self.archive) {
            return Err("it is relative to another guest's archive".to_owned());
        }
        let chain = |e: snapkeep_repo::Error| e.chain();
        let name = base.as_str().parse().map_err(chain)?;
        let snapshot = self.repository.snapshot(&name).map_err(chain)?;
        let mut disks = snapshot.disks.into_iter();
        let disk = (disks.find(|disk| disk.device == device.as_str()))
            .ok_or_else(|| format!("archive {base} has no device {device}"))?;
        if disk.size != size {
            return Err(format!(
                "the disk had {} bytes in archive {base}, now {size}",
                disk.size
            ));
        }
        if disk.chunk_size as usize != self.repository.config().chunk_size() {
            return Err(format!("archive {base} has another chunk size"));
        }
        (self.repository.check_whole(&disk))
            .map_err(|e| format!("archive {base} is damaged: {}", e.chain()))?;
        Ok(disk)
    }
}

/// Namespace, kind and guest of an archive.
fn group(archive: &ArchiveName) -> Option<&str> {
    archive.as_str().rsplit_once('/').map(|(group, _)| group)
}

/// Whether an archive left this bitmap to this storage.
fn left(lineage: &Lineage, storage: &StorageId, bitmap: &BitmapName) -> Result<(), String> {
    if lineage.storage.as_deref() != Some(storage.as_str()) {
        return Err("was not made for this storage".to_owned());
    }
    match &lineage.bitmap {
        Some(name) if name == bitmap.as_str() => Ok(()),
        Some(name) => Err(format!("was made with bitmap {name}")),
        None => Err("was made without a bitmap of this disk".to_owned()),
    }
}

/// Whether the guest has surely not gone back in time since: a rollback brings an old bitmap back
/// under the same name. Its generation id would have changed, or its QEMU was started again.
fn same_life(then: &Lineage, now: &Incarnation) -> Result<(), String> {
    let why = match (&then.vmgenid, vmgenid(now)) {
        (Some(then), Some(now)) if *then == now => return Ok(()),
        (Some(_), Some(_)) => {
            "was made when the guest had another generation ID: it was rolled back or copied"
        }
        _ if then.process.is_some() && then.process == process(now) => return Ok(()),
        _ => {
            "was made before the guest's QEMU was started again, and no generation ID tells \
             whether it was rolled back"
        }
    };
    Err(why.to_owned())
}

/// The generation ID in hexadecimal; zero is none.
pub(crate) fn vmgenid(incarnation: &Incarnation) -> Option<String> {
    let id = incarnation.vmgenid.map(u128::from_be_bytes);
    id.filter(|id| *id != 0).map(|id| format!("{id:032x}"))
}

/// The guest's QEMU as text that no other process has.
pub(crate) fn process(incarnation: &Incarnation) -> Option<String> {
    let Process { boot, id, start } = incarnation.process?;
    let boot = u128::from_be_bytes(boot);
    Some(format!("{boot:032x}/{id}/{start}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn then(pid: Option<(u8, u32, u64)>, id: Option<u8>) -> Lineage {
        let now = now(pid, id);
        Lineage {
            process: process(&now),
            vmgenid: vmgenid(&now),
            ..Lineage::default()
        }
    }

    fn now(pid: Option<(u8, u32, u64)>, id: Option<u8>) -> Incarnation {
        Incarnation {
            process: pid.map(|(boot, id, start)| Process {
                boot: [boot; 16],
                id,
                start,
            }),
            vmgenid: id.map(|byte| [byte; 16]),
        }
    }

    #[test]
    fn a_generation_id_that_is_unchanged_is_enough_and_one_that_changed_is_too_much() {
        let (p, q) = (Some((1, 1, 10)), Some((1, 2, 20)));
        assert!(same_life(&then(p, Some(7)), &now(q, Some(7))).is_ok());
        assert!(same_life(&then(None, Some(7)), &now(None, Some(7))).is_ok());
        assert!(same_life(&then(p, Some(7)), &now(p, Some(8))).is_err());
    }

    #[test]
    fn without_a_generation_id_only_the_same_process_is_believed() {
        let (p, q) = (Some((1, 1, 10)), Some((1, 1, 11)));
        assert!(same_life(&then(p, None), &now(p, None)).is_ok());
        assert!(same_life(&then(p, None), &now(q, None)).is_err());
        let rebooted = Some((2, 1, 10));
        assert!(same_life(&then(p, None), &now(rebooted, None)).is_err());
        assert!(same_life(&then(None, None), &now(None, None)).is_err());
        assert!(same_life(&then(p, Some(0)), &now(q, Some(0))).is_err());
        assert!(same_life(&then(p, Some(7)), &now(q, None)).is_err());
    }
}
