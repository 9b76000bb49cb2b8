//! A virtual machine: its bitmaps, and how its volumes are handed over.

use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileTypeExt;

use snapkeep_api::{
    BackupStats, BitmapInfo, BitmapMode, BitmapName, BitmapRequest, DeviceName, Error, ErrorKind,
    Incarnation, Outcome, Result, SnapshotAccess, VmBackup, VmMechanism, VmSource, Volume,
    VolumeInfo,
};

use crate::call::{BackupVm, QueryIncremental, VmRegions, VolumeArgs};
use crate::process::Process;
use crate::regions::Regions;

/// A virtual machine's backup, and what was said of it beforehand.
pub(crate) struct Vm {
    backup: Box<dyn VmBackup>,
    regions: Regions,
}

impl Vm {
    pub(crate) fn new(backup: Box<dyn VmBackup>) -> Self {
        Self {
            backup,
            regions: Regions::default(),
        }
    }

    pub(crate) fn mechanism(&self) -> VmMechanism {
        self.backup.mechanism()
    }

    /// Each volume is offered the bitmap that Proxmox VE keeps for the storage, whether it is there
    /// or not.
    pub(crate) fn choose_bitmaps(
        &mut self,
        incarnation: &Incarnation,
        args: &QueryIncremental,
        bitmap: &BitmapName,
    ) -> Result<BTreeMap<DeviceName, BitmapRequest>> {
        let offered = || BitmapInfo {
            name: bitmap.clone(),
            base: None,
        };
        let info = |size| VolumeInfo {
            size,
            bitmaps: vec![offered()],
        };
        let volumes = args.volumes.iter();
        let volumes = volumes.map(|(device, volume)| (device.clone(), info(volume.size)));
        self.backup.choose_bitmaps(incarnation, &volumes.collect())
    }

    pub(crate) fn add_regions(&mut self, args: &VmRegions) -> Result<()> {
        self.regions.add(args)
    }

    /// Reads the volumes and commits the archive.
    pub(crate) fn run(&mut self, args: BackupVm, starter: &Process) -> Result<BackupStats> {
        let volumes = args.volumes.into_iter().map(|(device, volume)| {
            let volume = self.volume(&device, volume, starter)?;
            Ok((device, volume))
        });
        let source = VmSource {
            volumes: volumes.collect::<Result<_>>()?,
            guest_config: args.guest_config,
            firewall_config: args.firewall_config,
            bandwidth_limit: args.bandwidth_limit.and_then(NonZeroU64::new),
        };
        self.backup.run(source)
    }

    fn volume(
        &mut self,
        device: &DeviceName,
        args: VolumeArgs,
        starter: &Process,
    ) -> Result<Volume> {
        let broken = |why: &str| {
            let what = format!("volume {device}: {why}");
            Error::new(ErrorKind::Protocol, what)
        };
        let bitmap = match &*args.bitmap_mode {
            "none" => BitmapMode::None,
            "new" => BitmapMode::New,
            "reuse" => BitmapMode::Reuse,
            other => return Err(broken(&format!("there is no bitmap mode {other:?}"))),
        };
        let access = match (args.nbd_path, args.fd) {
            (Some(socket), None) => SnapshotAccess::Nbd {
                socket,
                bitmap: args.bitmap_name.map(|name| name.parse()).transpose()?,
            },
            (None, Some(number)) => {
                let file = File::from(starter.take(number)?);
                let unknown = |e| {
                    let what = format!("volume {device}: what was handed over cannot be looked at");
                    Error::with_source(ErrorKind::Source, what, e)
                };
                let kind = file.metadata().map_err(unknown)?.file_type();
                if !kind.is_file() && !kind.is_block_device() {
                    return Err(broken(
                        "what was handed over is no file and no block device",
                    ));
                }
                let dirty = Box::new(self.regions.take(device)?);
                SnapshotAccess::FileHandle { file, dirty }
            }
            _ => return Err(broken("it has either an NBD socket or a file descriptor")),
        };
        Ok(Volume {
            size: args.size,
            bitmap,
            access,
        })
    }

    pub(crate) fn finish(self, outcome: &Outcome) -> Result<()> {
        self.backup.finish(outcome)
    }
}
