//! A provider that keeps its archives in memory: the contract's smallest complete example, and a
//! test double for what drives providers.
//!
//! Every archive is complete by itself: an incremental copies its base's volume and reads only
//! the dirty regions over it. A bitmap is reused only if its own name carries the archive it is
//! relative to, and that archive has the same guest, device and size. Containers are refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    Archive, ArchiveName, BackupJob, BackupStats, BitmapMode, BitmapName, BitmapRequest,
    DeviceName, Error, ErrorKind, GuestId, GuestKind, Incarnation, Outcome, Provider, Region,
    Result, UnixTime, VmBackup, VmMechanism, VmRestore, VmSource, Volume, VolumeInfo, VolumeReader,
};

/// Volumes larger than this, in bytes, are refused: they are held in memory whole.
const VOLUME_SIZE_MAX: u64 = 1 << 30;
/// Holes are told in units of this many bytes.
const BLOCK_SIZE: usize = 4096;

/// A provider that keeps its archives in memory. Clones share their archives.
#[derive(Clone)]
pub struct MemoryProvider {
    shelf: Arc<Mutex<Shelf>>,
    mechanism: VmMechanism,
}

#[derive(Default)]
struct Shelf {
    archives: BTreeMap<ArchiveName, Stored>,
    /// Backups ever started; makes archive names unique within one second.
    started: u64,
}

/// An archive. What is opened is a clone.
#[derive(Clone)]
struct Stored {
    guest: GuestId,
    guest_config: Vec<u8>,
    firewall_config: Option<Vec<u8>>,
    volumes: BTreeMap<DeviceName, VolumeInfo>,
    contents: BTreeMap<DeviceName, Arc<[u8]>>,
}

impl MemoryProvider {
    /// An empty provider that asks for this mechanism.
    pub fn new(mechanism: VmMechanism) -> Self {
        let shelf = Arc::default();
        Self { shelf, mechanism }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // An archive is inserted whole, so a panic elsewhere leaves nothing half done.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.shelf().archives.keys()).finish()
    }
}

impl Provider for MemoryProvider {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn start_job(&self, _start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        Ok(Box::new(self.clone()))
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        let found = self.shelf().archives.get(name).cloned();
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no archive {name}"));
        Ok(Box::new(found.ok_or_else(missing)?))
    }
}

impl BackupJob for MemoryProvider {
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>> {
        let mut shelf = self.shelf();
        shelf.started += 1;
        let name = format!("memory/vm/{guest}/{}-{}", start_time.0, shelf.started);
        Ok(Box::new(Running {
            provider: self.clone(),
            guest: guest.clone(),
            name: name.parse()?,
            bases: BTreeMap::new(),
        }))
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

struct Running {
    provider: MemoryProvider,
    guest: GuestId,
    name: ArchiveName,
    /// The bitmaps that were asked for, and what they are relative to.
    bases: BTreeMap<DeviceName, (BitmapName, Arc<[u8]>)>,
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
        let mut archive = Stored {
            guest: self.guest.clone(),
            guest_config: vm.guest_config,
            firewall_config: vm.firewall_config.filter(|config| !config.is_empty()),
            volumes: BTreeMap::new(),
            contents: BTreeMap::new(),
        };
        let mut stats = BackupStats::default();
        for (device, volume) in vm.volumes {
            let (size, bitmaps) = (volume.size, Vec::new());
            let content = self.read(&device, volume, &mut stats.read)?;
            archive.contents.insert(device.clone(), content);
            archive.volumes.insert(device, VolumeInfo { size, bitmaps });
            stats.guest_size += size;
        }
        (stats.archive_size, stats.stored) = (stats.guest_size, stats.guest_size);
        stats.new = stats.read;
        let mut shelf = self.provider.shelf();
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
            let base = archive.contents.get(device)?;
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

/// An offset as an index; what no volume has is past the end of each.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Archive for Stored {
    fn guest_kind(&self) -> GuestKind {
        GuestKind::Qemu
    }

    fn guest_config(&self) -> Result<Vec<u8>> {
        Ok(self.guest_config.clone())
    }

    fn firewall_config(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.firewall_config.clone())
    }

    fn restore_vm(self: Box<Self>) -> Result<Box<dyn VmRestore>> {
        Ok(self)
    }
}

impl VmRestore for Stored {
    fn volumes(&self) -> &BTreeMap<DeviceName, VolumeInfo> {
        &self.volumes
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
