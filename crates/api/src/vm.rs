//! The backup of a virtual machine.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use crate::{
    ArchiveName, BackupStats, BitmapName, DeviceName, Error, ErrorKind, Outcome, Result,
    SnapshotAccess,
};

/// The backup of one virtual machine.
pub trait VmBackup: Send {
    /// The name the archive will have once it is committed.
    fn archive_name(&self) -> &ArchiveName;
    /// How the snapshot access is to be handed over (`backup_get_mechanism`).
    fn mechanism(&self) -> VmMechanism;
    /// Which volumes may be read incrementally (`backup_vm_query_incremental`). A volume left out
    /// uses no bitmap. Called before `run`; if it is called again, the last answer counts.
    ///
    /// `Use` only if the bitmap is known to be relative to an archive that is whole: by the
    /// archive that the bitmap's own name carries, or by the guest's incarnation.
    fn choose_bitmaps(
        &mut self,
        incarnation: &Incarnation,
        volumes: &BTreeMap<DeviceName, VolumeInfo>,
    ) -> Result<BTreeMap<DeviceName, BitmapRequest>>;
    /// Reads every dirty region and commits the archive, lineage included, before it returns
    /// (`backup_vm`). The caller clears the dirty bitmaps when this has returned `Ok`: from then
    /// on they are relative to this archive, whatever happens later.
    fn run(&mut self, vm: VmSource) -> Result<BackupStats>;
    /// Ends the backup (`backup_cleanup`). What was committed stays, whatever the outcome; what
    /// was not committed is never listed.
    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()>;
}

/// How a virtual machine's snapshot access is handed over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VmMechanism {
    /// `file-handle`: a file descriptor and a list of dirty regions.
    FileHandle,
    /// `nbd`: an NBD export with the bitmap as a metadata context.
    Nbd,
}

/// What tells one life of a guest's QEMU from another.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Incarnation {
    /// The process, if it could be learned.
    pub process: Option<Process>,
    /// The guest's generation id, if it has one that is not zero.
    pub vmgenid: Option<[u8; 16]>,
}

/// A process, so that no other is equal: process ids and start times come again after a reboot,
/// and on another node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    /// The kernel's `/proc/sys/kernel/random/boot_id`, the digits' bytes.
    pub boot: [u8; 16],
    /// Process id.
    pub id: u32,
    /// Start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start: u64,
}

/// What is known of a volume without reading it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeInfo {
    /// Size in bytes.
    pub size: u64,
    /// The dirty bitmaps that could be used for it, newest first, where the host can tell.
    pub bitmaps: Vec<BitmapInfo>,
}

/// A dirty bitmap that a host offers for a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BitmapInfo {
    /// Its name in QEMU.
    pub name: BitmapName,
    /// The archive it is relative to, if its own name carries that (as our host's bitmaps do).
    /// `None` for a fixed name, such as Proxmox VE's; it is offered whether it is there or not, and
    /// alone, because it is also the name of a new one.
    pub base: Option<ArchiveName>,
}

/// What a provider asks of a volume's dirty bitmap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BitmapRequest {
    /// Create it, or create it anew.
    New,
    /// Use this one if it is there, create one if not.
    Use(BitmapName),
}

/// What became of the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BitmapMode {
    /// `none`: no bitmap, the whole volume is dirty.
    None,
    /// `new`: a new bitmap, the whole volume is dirty.
    New,
    /// `reuse`: the bitmap that was asked for; only what it names may be read.
    Reuse,
}

/// A virtual machine to read.
#[derive(Debug)]
pub struct VmSource {
    /// Raw guest configuration, kept byte for byte.
    pub guest_config: Vec<u8>,
    /// Raw firewall configuration, if the guest has one. An empty one means none: Proxmox VE
    /// passes it for containers that have no firewall file, and takes it for none in a restore.
    pub firewall_config: Option<Vec<u8>>,
    /// Bytes per second, for reading and for writing out; `None` is no limit.
    pub bandwidth_limit: Option<NonZeroU64>,
    /// The volumes by device name.
    pub volumes: BTreeMap<DeviceName, Volume>,
}

/// A volume to read.
#[derive(Debug)]
pub struct Volume {
    /// Size in bytes.
    pub size: u64,
    /// How the bitmap is used.
    pub bitmap: BitmapMode,
    /// Where the data is.
    pub access: SnapshotAccess,
}

impl Volume {
    /// Fails if a bitmap is reused that was not asked for, or with another size than the volume
    /// had in its base. `asked` is what [`VmBackup::choose_bitmaps`] answered for this device, if
    /// it was `Use`, and that size.
    pub fn check_reuse(
        &self,
        device: &DeviceName,
        asked: Option<(&BitmapName, u64)>,
    ) -> Result<()> {
        if self.bitmap != BitmapMode::Reuse {
            return Ok(());
        }
        let handed_over = match &self.access {
            SnapshotAccess::Nbd { bitmap, .. } => bitmap.as_ref(),
            SnapshotAccess::FileHandle { .. } => None,
        };
        let why = match asked {
            None => "a bitmap is reused that was not asked for".to_owned(),
            Some((name, _)) if handed_over.is_some_and(|bitmap| bitmap != name) => {
                format!("another bitmap than {name}, which was asked for, is reused")
            }
            Some((name, size)) if self.size != size => format!(
                "it has {} bytes, but bitmap {name} is relative to an archive where it had {size}",
                self.size
            ),
            Some(_) => return Ok(()),
        };
        Err(Error::new(
            ErrorKind::Protocol,
            format!("device {device}: {why}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bitmap_that_was_asked_for_is_reused_at_the_size_of_its_base() {
        let device: DeviceName = "drive-scsi0".parse().unwrap();
        let [ours, other] = ["ours", "other"].map(|name| name.parse::<BitmapName>().unwrap());
        let check = |bitmap, handed_over: Option<&BitmapName>, asked| {
            let access = SnapshotAccess::Nbd {
                socket: "nbd.sock".into(),
                bitmap: handed_over.cloned(),
            };
            let volume = Volume {
                size: 4096,
                bitmap,
                access,
            };
            volume.check_reuse(&device, asked)
        };
        let reuse = BitmapMode::Reuse;
        assert!(check(reuse, Some(&ours), Some((&ours, 4096))).is_ok());
        for (handed_over, asked, word) in [
            (&ours, None, "not asked for"),
            (&other, Some((&ours, 4096)), "another bitmap than ours"),
            (&ours, Some((&ours, 4095)), "4095"),
        ] {
            let error = check(reuse, Some(handed_over), asked).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
            assert!(error.chain().contains(word), "{}", error.chain());
            // Without a bitmap everything is read.
            assert!(check(BitmapMode::New, None, asked).is_ok());
        }
    }
}
