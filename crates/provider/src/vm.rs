//! The backup of a virtual machine: which bitmaps to use, then every disk, then the commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_api::{
    ArchiveName, BackupStats, BitmapInfo, BitmapMode, BitmapName, BitmapRequest, DeviceName, Error,
    ErrorKind, Incarnation, Level, Outcome, Result, UnixTime, VmBackup, VmMechanism, VmSource,
    Volume, VolumeInfo,
};
use snapkeep_repo::{DiskRecord, Lineage, Stats, Writer, limits};

use crate::archive::{Data, NewArchive, tell_kept};
use crate::disk::DiskBackup;
use crate::heads::Announced;
use crate::lineage::{Base, Evidence, process, vmgenid};
use crate::pace::Pace;
use crate::panics::caught;
use crate::progress::{Progress, value};
use crate::provider::Shared;

/// One virtual machine's backup, from its name to its commit.
pub(crate) struct RunningBackup {
    shared: Arc<Shared>,
    name: ArchiveName,
    time: UnixTime,
    incarnation: Incarnation,
    bases: BTreeMap<DeviceName, Base>,
    /// Bitmaps with fixed names: those that a new one would get.
    fixed: BTreeMap<DeviceName, BitmapName>,
    announced: Option<Announced>,
    committed: bool,
}

impl RunningBackup {
    pub(crate) fn new(shared: Arc<Shared>, name: ArchiveName, time: UnixTime) -> Self {
        let incarnation = Incarnation::default();
        Self {
            shared,
            name,
            time,
            incarnation,
            bases: BTreeMap::new(),
            fixed: BTreeMap::new(),
            announced: None,
            committed: false,
        }
    }

    fn lineage(&self, device: &DeviceName, mode: BitmapMode) -> Lineage {
        let base = self.bases.get(device).filter(|_| mode == BitmapMode::Reuse);
        let bitmap = match mode {
            BitmapMode::None => None,
            BitmapMode::New => self.fixed.get(device),
            BitmapMode::Reuse => base.and_then(Base::fixed_name),
        };
        let storage = self.shared.options.storage.as_ref();
        Lineage {
            base: base.map(|base| base.archive.as_str().to_owned()),
            storage: storage.map(|storage| storage.id.as_str().to_owned()),
            bitmap: bitmap.map(|name| name.as_str().to_owned()),
            process: process(&self.incarnation),
            vmgenid: vmgenid(&self.incarnation),
        }
    }

    fn back_up_disk(
        &self,
        writer: &Writer,
        progress: &Progress,
        pace: &Pace,
        device: &DeviceName,
        volume: Volume,
    ) -> Result<DiskRecord> {
        let asked = self.bases.get(device);
        volume.check_reuse(
            device,
            asked.map(|base| (&base.bitmap.name, base.disk.size)),
        )?;
        let base = asked.filter(|_| volume.bitmap == BitmapMode::Reuse);
        let lineage = self.lineage(device, volume.bitmap);
        let size = volume.size;
        let disk = DiskBackup {
            shared: &self.shared,
            writer,
            progress,
            pace,
            device,
            size,
            base: base.map(|base| &base.disk),
        };
        let root = caught(format_args!("device {device}"), || disk.run(volume))?;
        let chunk_size = self.shared.repository.config().chunk_size;
        Ok(DiskRecord {
            device: device.as_str().to_owned(),
            size,
            chunk_size,
            root,
            lineage,
        })
    }
}

impl VmBackup for RunningBackup {
    fn archive_name(&self) -> &ArchiveName {
        &self.name
    }

    fn mechanism(&self) -> VmMechanism {
        self.shared.options.mechanism
    }

    fn choose_bitmaps(
        &mut self,
        incarnation: &Incarnation,
        volumes: &BTreeMap<DeviceName, VolumeInfo>,
    ) -> Result<BTreeMap<DeviceName, BitmapRequest>> {
        self.incarnation = incarnation.clone();
        self.bases.clear();
        let shared = &*self.shared;
        let options = &shared.options;
        self.fixed = fixed_names(volumes);
        if self.announced.is_none()
            && let (Some(storage), false) = (&options.storage, self.fixed.is_empty())
        {
            self.announced = Some(Announced::new(shared, storage, &self.name)?);
        }
        let evidence = Evidence {
            repository: &shared.repository,
            archive: &self.name,
            incarnation,
            storage: (options.storage.as_ref())
                .map(|storage| &storage.id)
                .zip(self.announced.as_ref()),
        };
        let unverified =
            options.mechanism == VmMechanism::FileHandle && !options.accept_unverified_regions;
        let mut requests = BTreeMap::new();
        for (device, volume) in volumes {
            let chosen = if unverified {
                Err("a file handle's dirty regions cannot be verified".to_owned())
            } else {
                evidence.choose(device, volume)
            };
            let request = match chosen {
                Ok(base) => {
                    let request = BitmapRequest::Use(base.bitmap.name.clone());
                    self.bases.insert(device.clone(), base);
                    request
                }
                Err(reason) => {
                    let line = format!("{device}: the whole disk is read: {reason}");
                    shared.log.log(Level::Info, &line);
                    if options.storage.is_none() && self.fixed.contains_key(device) {
                        // Its new base would stand in no head.
                        continue;
                    }
                    BitmapRequest::New
                }
            };
            requests.insert(device.clone(), request);
        }
        Ok(requests)
    }

    fn run(&mut self, vm: VmSource) -> Result<BackupStats> {
        if self.committed {
            return Err(Error::new(ErrorKind::Protocol, "a backup is run once"));
        }
        check_disks(&vm.volumes)?;
        let clock = &*self.shared.clock;
        let start = clock.monotonic();
        let progress = Progress::new(clock);
        let pace = Pace::new(vm.bandwidth_limit);
        let archive = NewArchive::new(&self.shared, &self.name, self.time)?;
        // Before the disks: a configuration that cannot be kept must not cost hours.
        let configs = archive.configs(&vm.guest_config, vm.firewall_config.as_deref())?;
        let mut disks = Vec::new();
        for (device, volume) in vm.volumes {
            disks.push(self.back_up_disk(&archive.writer, &progress, &pace, &device, volume)?);
        }
        let sizes = disks.iter().map(|disk| disk.size);
        let size = sizes.fold(0, u64::saturating_add);
        let stats = Stats {
            size,
            read: value(&progress.read),
            new: value(&progress.new),
            stored: 0,
        };
        let data = Data {
            disks,
            ..Data::default()
        };
        let stats = archive.commit(configs, data, stats, &pace)?;
        self.committed = true;
        let Stats {
            size,
            read,
            new,
            stored,
        } = stats;
        progress.finish(
            &*self.shared.log,
            stored,
            clock.monotonic().saturating_sub(start),
        );
        Ok(BackupStats {
            archive_size: size,
            guest_size: size,
            read,
            new,
            stored,
            left_out: 0,
            uncounted: false,
        })
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        if self.committed {
            tell_kept(&self.shared, &self.name, outcome);
        }
        // A host that may only write cannot use a bitmap that is finer than a chunk. Should that be
        // why this backup failed, the next one reads the disks whole.
        let again = self.shared.repository.may_read().is_ok();
        if let (false, true, Some(announced)) = (self.committed, again, &self.announced) {
            announced.take_back(&self.shared);
        }
        Ok(())
    }
}

/// Refuses disks of which no reader would take the archive.
fn check_disks(volumes: &BTreeMap<DeviceName, Volume>) -> Result<()> {
    let invalid = |what| Err(Error::new(ErrorKind::Invalid, what));
    if volumes.len() > limits::DISKS_MAX {
        return invalid(format!(
            "{} disks are more than the {} that an archive can hold",
            volumes.len(),
            limits::DISKS_MAX
        ));
    }
    for (device, Volume { size, .. }) in volumes {
        if *size > limits::DISK_SIZE_MAX {
            return invalid(format!(
                "device {device} has {size} bytes, more than the {} that a disk in an archive can have",
                limits::DISK_SIZE_MAX
            ));
        }
    }
    Ok(())
}

/// The name of the one bitmap that each volume has, where that is a fixed name. A host that offers
/// several does not say which of them a new one would be.
fn fixed_names(volumes: &BTreeMap<DeviceName, VolumeInfo>) -> BTreeMap<DeviceName, BitmapName> {
    let fixed = |volume: &VolumeInfo| match &volume.bitmaps[..] {
        [BitmapInfo { name, base: None }] => Some(name.clone()),
        _ => None,
    };
    let named = volumes.iter();
    named
        .filter_map(|(device, volume)| Some((device.clone(), fixed(volume)?)))
        .collect()
}
