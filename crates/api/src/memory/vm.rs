//! Virtual machines of the provider in memory: every archive is complete by itself. An incremental
//! copies its base's volume and reads only the dirty regions over it. A bitmap is reused only if
//! its own name carries the archive it is relative to, and that archive has the same guest, device
//! and size.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Configs, Guest, MemoryProvider, Stored, index};
use crate::{
    ArchiveName, BackupStats, BitmapMode, BitmapName, BitmapRequest, DeviceName, Error, ErrorKind,
    GuestId, Incarnation, Outcome, Region, Result, VmBackup, VmMechanism, VmRestore, VmSource,
    Volume, VolumeInfo, VolumeReader,
};

/// Volumes larger than this, in bytes, are refused: they are held in memory whole.
const VOLUME_SIZE_MAX: u64 = 1 << 30;
/// Holes are told in units of this many bytes.
const BLOCK_SIZE: usize = 4096;

/// The volumes of an archive.
#[derive(Clone, Default)]
pub(super) struct Volumes {
    infos: BTreeMap<DeviceName, VolumeInfo>,
    contents: BTreeMap<DeviceName, Arc<[u8]>>,
}

/// A virtual machine's backup.
pub(super) struct Running {
    provider: MemoryProvider,
    guest: GuestId,
    name: ArchiveName,
    /// The bitmaps that were asked for, and what they are relative to.
    bases: BTreeMap<DeviceName, (BitmapName, Arc<[u8]>)>,
}

impl Running {
    pub(super) fn new(provider: MemoryProvider, guest: GuestId, name: ArchiveName) -> Self {
        Self {
            provider,
            guest,
            name,
            bases: BTreeMap::new(),
        }
    }
}

impl VmBackup for Running {
    fn archive_name(&self) -> &ArchiveName {
        &self.name
    }

    fn mechanism(&self) -> VmMechanism {
        self.provider.mechanism
    }

    fn choose_bitmaps(
        &mut self,
        _incarnation: &Incarnation,
        volumes: &BTreeMap<DeviceName, VolumeInfo>,
    ) -> Result<BTreeMap<DeviceName, BitmapRequest>> {
        let bases = volumes.iter();
        self.bases = bases
            .filter_map(|(device, volume)| Some((device.clone(), self.find_base(device, volume)?)))
            .collect();
        let request = |device| match self.bases.get(device) {
            Some((bitmap, _)) => BitmapRequest::Use(bitmap.clone()),
            None => BitmapRequest::New,
        };
        Ok(volumes.keys().map(|d| (d.clone(), request(d))).collect())
    }

    fn run(&mut self, vm: VmSource) -> Result<BackupStats> {
        if self.provider.shelf().archives.contains_key(&self.name) {
            return Err(Error::new(ErrorKind::Protocol, "a backup is run once"));
        }
        let configs = Configs::new(&vm.guest_config, vm.firewall_config.as_deref());
        let mut volumes = Volumes::default();
        let mut stats = BackupStats::default();
        for (device, volume) in vm.volumes {
            let (size, bitmaps) = (volume.size, Vec::new());
            let content = self.read(&device, volume, &mut stats.read)?;
            volumes.contents.insert(device.clone(), content);
            volumes.infos.insert(device, VolumeInfo { size, bitmaps });
            stats.guest_size += size;
        }
        (stats.archive_size, stats.stored) = (stats.guest_size, stats.guest_size);
        stats.new = stats.read;
        let mut shelf = self.provider.shelf();
        let archive = Stored {
            guest: self.guest.clone(),
            configs,
            data: Guest::Vm(volumes),
            number: shelf.archives.len() as u64,
        };
        shelf.archives.insert(self.name.clone(), archive);
        Ok(stats)
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

impl Running {
    /// The newest bitmap that can be trusted, and the volume it is relative to.
    fn find_base(&self, device: &DeviceName, now: &VolumeInfo) -> Option<(BitmapName, Arc<[u8]>)> {
        let shelf = self.provider.shelf();
        now.bitmaps.iter().find_map(|bitmap| {
            let archive = shelf.archives.get(bitmap.base.as_ref()?)?;
            let Guest::Vm(volumes) = &archive.data else {
                return None;
            };
            let base = volumes.contents.get(device)?;
            let same = archive.guest == self.guest && base.len() as u64 == now.size;
            same.then(|| (bitmap.name.clone(), Arc::clone(base)))
        })
    }

    /// Reads the dirty regions over what the volume held before.
    fn read(&self, device: &DeviceName, volume: Volume, read: &mut u64) -> Result<Arc<[u8]>> {
        let asked = self.bases.get(device);
        volume.check_reuse(
            device,
            asked.map(|(bitmap, base)| (bitmap, base.len() as u64)),
        )?;
        let mut content = match asked {
            Some((_, base)) if volume.bitmap == BitmapMode::Reuse => base.to_vec(),
            _ if volume.size <= VOLUME_SIZE_MAX => vec![0; index(volume.size)],
            _ => {
                let what = format!("device {device}: {} bytes are too many", volume.size);
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        };
        let (source, dirty) = volume.open(device)?;
        let mut discards = true;
        for region in dirty {
            let region = region?;
            let target = &mut content[index(region.offset())..index(region.end())];
            source.read_at(region.offset(), target)?;
            // Without discards the fleecing image only grows larger.
            discards = discards && source.discard(region).is_ok();
            *read += region.length();
        }
        Ok(content.into())
    }
}

impl VmRestore for Volumes {
    fn volumes(&self) -> &BTreeMap<DeviceName, VolumeInfo> {
        &self.infos
    }

    fn open_volume(&mut self, device: &DeviceName) -> Result<Box<dyn VolumeReader>> {
        let content = self.contents.get(device).cloned();
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no device {device}"));
        Ok(Box::new(Reader(content.ok_or_else(missing)?)))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct Reader(Arc<[u8]>);

impl VolumeReader for Reader {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = index(offset);
        let bytes = self.0.get(start..start.saturating_add(buffer.len()));
        let past = || Error::new(ErrorKind::Protocol, "a read passes the end of the volume");
        buffer.copy_from_slice(bytes.ok_or_else(past)?);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        let mut blocks = (0u64..).step_by(BLOCK_SIZE).zip(self.0.chunks(BLOCK_SIZE));
        let found = blocks.find_map(|(start, block)| {
            let (from, end) = (start.max(offset), start + block.len() as u64);
            (from < end && block.iter().any(|b| *b != 0)).then(|| Region::new(from, end - from))
        });
        found.transpose()
    }
}
