//! A virtual machine's disks, handed over as Proxmox VE does.

use std::collections::BTreeMap;
use std::fs::File;

use snapkeep_api::{
    ArchiveName, BackupStats, BitmapMode, BitmapRequest, DeviceName, Incarnation, Outcome, Result,
    SnapshotAccess, VmBackup, VmMechanism, VmSource, Volume, VolumeInfo,
};

use super::{Call, Dialect, Guest, Regions, died, info, word, wrong};
use crate::perl::value::{Arg, Returned};

const QUERY: &str = "backup_vm_query_incremental";

/// The backup of a virtual machine.
pub(super) struct Vm {
    guest: Guest,
    mechanism: VmMechanism,
    /// The bitmap that version 5 asks for.
    bitmap: Option<String>,
    /// Whether the class was asked for its bitmaps.
    asked: bool,
}

impl Vm {
    pub(super) fn new(guest: Guest) -> Result<Self> {
        let agreed = agree(&guest);
        if let Err(error) = &agreed {
            guest.finish(&Outcome::Failure(error.chain()))?;
        }
        let (mechanism, bitmap) = agreed?;
        Ok(Self {
            guest,
            mechanism,
            bitmap,
            asked: false,
        })
    }

    fn query(&mut self, volumes: Vec<(String, u64)>) -> Result<Returned> {
        self.asked = true;
        let sizes = volumes.into_iter().map(|(device, size)| {
            let size = info(vec![("size", Arg::Number(size))]);
            (device, size)
        });
        let args = vec![Arg::Number(self.guest.vmid), Arg::Hash(sizes.collect())];
        let mut session = self.guest.session();
        session.call(&Call::scalar(QUERY, args))
    }
}

/// What has to stay open until the call is over.
#[derive(Default)]
struct Kept {
    files: Vec<File>,
    regions: Regions,
}

impl Kept {
    /// The disk as the class gets it.
    fn volume(&mut self, device: &DeviceName, volume: Volume) -> Result<Arg> {
        let mode = match volume.bitmap {
            BitmapMode::None => "none",
            BitmapMode::New => "new",
            BitmapMode::Reuse => "reuse",
        };
        let mut pairs = vec![
            ("size", Arg::Number(volume.size)),
            ("bitmap-mode", Arg::text(mode)),
        ];
        match volume.access {
            SnapshotAccess::Nbd { socket, bitmap } => {
                pairs.push(("nbd-path", Arg::text(socket.to_string_lossy())));
                let name = bitmap.map_or(Arg::Undefined, |name| Arg::text(name.as_str()));
                pairs.push(("bitmap-name", name));
            }
            SnapshotAccess::FileHandle { file, dirty } => {
                pairs.push(("file-handle", Arg::file(&file)?));
                pairs.push(("next-dirty-region", Arg::Regions(device.to_string())));
                self.files.push(file);
                self.regions.insert(device.to_string(), dirty);
            }
        }
        Ok(info(pairs))
    }
}

/// The mechanism that the class asks for.
fn agree(guest: &Guest) -> Result<(VmMechanism, Option<String>)> {
    let (asked, bitmap) = guest.mechanism()?;
    let known = [VmMechanism::Nbd, VmMechanism::FileHandle];
    let mechanism = known.into_iter().find(|known| word(*known) == asked);
    let mechanism = mechanism.ok_or_else(|| {
        wrong(
            "backup_get_mechanism",
            &format!("'{asked}', which is none for virtual machines"),
        )
    })?;
    let wanted = guest.session().shared.class.mechanism;
    match wanted.filter(|wanted| *wanted != mechanism) {
        None => Ok((mechanism, bitmap)),
        Some(wanted) => Err(wrong(
            "backup_get_mechanism",
            &format!("'{asked}', but it was to be {}", word(wanted)),
        )),
    }
}

impl VmBackup for Vm {
    fn archive_name(&self) -> &ArchiveName {
        &self.guest.name
    }

    fn mechanism(&self) -> VmMechanism {
        self.mechanism
    }

    fn choose_bitmaps(
        &mut self,
        _incarnation: &Incarnation,
        volumes: &BTreeMap<DeviceName, VolumeInfo>,
    ) -> Result<BTreeMap<DeviceName, BitmapRequest>> {
        let use_or_make = |volume: &VolumeInfo| {
            let there = volume.bitmaps.first();
            there.map_or(BitmapRequest::New, |bitmap| {
                BitmapRequest::Use(bitmap.name.clone())
            })
        };
        let dialect = self.guest.session().dialect();
        if dialect == Dialect::V5 {
            let all = volumes.iter();
            let all = all.map(|(device, volume)| (device.clone(), use_or_make(volume)));
            return Ok(self.bitmap.iter().flat_map(|_| all.clone()).collect());
        }
        let sizes = volumes.iter();
        let sizes = sizes.map(|(device, volume)| (device.to_string(), volume.size));
        let answer = self.query(sizes.collect())?;
        let mut chosen = BTreeMap::new();
        let modes = match &answer {
            Returned::Undefined => return Ok(chosen),
            Returned::Hash(modes) => modes,
            Returned::Scalar(_) | Returned::List(_) => {
                return Err(wrong(QUERY, "what is no hash"));
            }
        };
        for (device, volume) in volumes {
            let Some(mode) = modes.get(device.as_str().as_bytes()) else {
                continue;
            };
            match mode.text() {
                Some("new") => {
                    chosen.insert(device.clone(), BitmapRequest::New);
                }
                Some("use") => {
                    chosen.insert(device.clone(), use_or_make(volume));
                }
                Some("none") => {}
                _ => {
                    return Err(wrong(
                        QUERY,
                        &format!("a mode for {device} that there is not"),
                    ));
                }
            }
        }
        Ok(chosen)
    }

    fn run(&mut self, vm: VmSource) -> Result<BackupStats> {
        if !self.asked && self.guest.session().dialect() == Dialect::Shipped {
            let sizes = vm.volumes.iter();
            let sizes = sizes.map(|(device, volume)| (device.to_string(), volume.size));
            self.query(sizes.collect())?;
        }
        let mut kept = Kept::default();
        let mut volumes = Vec::new();
        for (device, volume) in vm.volumes {
            let volume = kept.volume(&device, volume)?;
            volumes.push((device.to_string(), volume));
        }
        let mut pairs = Vec::new();
        if let Some(limit) = vm.bandwidth_limit {
            pairs.push(("bandwidth-limit", Arg::Number(limit.get())));
        }
        if let Some(config) = vm.firewall_config {
            pairs.push(("firewall-config", Arg::Configuration(config)));
        }
        let args = vec![
            Arg::Number(self.guest.vmid),
            Arg::Configuration(vm.guest_config),
            Arg::Hash(volumes),
            info(pairs),
        ];
        let call = Call::void("backup_vm", args);
        let ran = self.guest.session().attempt(&call, &mut kept.regions)?;
        ran.map_err(|why| died(call.method, &why))?;
        Ok(BackupStats {
            uncounted: true,
            ..BackupStats::default()
        })
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        self.guest.finish(outcome)
    }
}
