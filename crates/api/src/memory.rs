//! A provider that keeps its archives in memory: the contract's smallest complete example, and a
//! test double for what drives providers.
//!
//! Every archive is complete by itself: an incremental copies its base's volume and reads only
//! the dirty regions over it. A bitmap is reused only if its own name carries the archive it is
//! relative to, and that archive has the same guest, device and size. Containers are refused.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    Archive, ArchiveName, BackupJob, BackupStats, BitmapMode, BitmapName, BitmapRequest,
    ContainerBackup, ContainerRestore, DeviceName, Error, ErrorKind, GuestId, GuestKind,
    Incarnation, Outcome, Provider, Region, Result, SnapshotAccess, UnixTime, VmBackup,
    VmMechanism, VmRestore, VmSource, Volume, VolumeInfo, VolumeReader,
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
    volumes: BTreeMap<DeviceName, Arc<[u8]>>,
    infos: BTreeMap<DeviceName, VolumeInfo>,
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
        let archives = self.shelf();
        f.debug_set().entries(archives.archives.keys()).finish()
    }
}

fn error<T>(kind: ErrorKind, what: String) -> Result<T> {
    Err(Error::new(kind, what))
}

impl Provider for MemoryProvider {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn start_job(&self, _start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        Ok(Box::new(self.clone()))
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        match self.shelf().archives.get(name).cloned() {
            Some(archive) => Ok(Box::new(archive)),
            None => error(ErrorKind::NotFound, format!("there is no archive {name}")),
        }
    }
}

impl BackupJob for MemoryProvider {
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>> {
        let number = {
            let mut shelf = self.shelf();
            shelf.started += 1;
            shelf.started
        };
        Ok(Box::new(Running {
            provider: self.clone(),
            guest: guest.clone(),
            name: format!("memory/vm/{guest}/{}-{number}", start_time.0).parse()?,
            bases: BTreeMap::new(),
        }))
    }

    fn start_container(
        &mut self,
        guest: &GuestId,
        _start_time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        let what = format!("cannot back up container {guest}: only virtual machines are kept");
        error(ErrorKind::Unsupported, what)
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
            return error(ErrorKind::Protocol, "a backup is run once".to_owned());
        }
        let mut stats = BackupStats::default();
        let mut volumes = BTreeMap::new();
        let mut infos = BTreeMap::new();
        for (device, volume) in vm.volumes {
            let size = volume.size;
            let content = self.read(&device, volume, &mut stats)?;
            let bitmaps = Vec::new();
            infos.insert(device.clone(), VolumeInfo { size, bitmaps });
            volumes.insert(device, content);
            stats.guest_size += size;
        }
        (stats.archive_size, stats.stored) = (stats.guest_size, stats.guest_size);
        stats.new = stats.read;
        let archive = Stored {
            guest: self.guest.clone(),
            guest_config: vm.guest_config,
            firewall_config: vm.firewall_config.filter(|config| !config.is_empty()),
            volumes,
            infos,
        };
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
            let base = archive.volumes.get(device)?;
            let same = archive.guest == self.guest && base.len() as u64 == now.size;
            same.then(|| (bitmap.name.clone(), Arc::clone(base)))
        })
    }

    /// What the volume holds before its dirty regions are read.
    fn old(&self, device: &DeviceName, volume: &Volume) -> Result<Vec<u8>> {
        if volume.bitmap != BitmapMode::Reuse {
            let length = usize::try_from(volume.size).ok();
            return match length.filter(|_| volume.size <= VOLUME_SIZE_MAX) {
                Some(length) => Ok(vec![0; length]),
                None => error(
                    ErrorKind::Invalid,
                    format!("device {device}: {} bytes are too many", volume.size),
                ),
            };
        }
        let handed_over = match &volume.access {
            SnapshotAccess::Nbd { bitmap, .. } => bitmap.as_ref(),
            SnapshotAccess::FileHandle { .. } => None,
        };
        match self.bases.get(device) {
            Some((asked, base))
                if base.len() as u64 == volume.size && handed_over.is_none_or(|b| b == asked) =>
            {
                Ok(base.to_vec())
            }
            _ => error(
                ErrorKind::Protocol,
                format!("device {device}: the bitmap that is reused is not the one asked for"),
            ),
        }
    }

    fn read(
        &self,
        device: &DeviceName,
        volume: Volume,
        stats: &mut BackupStats,
    ) -> Result<Arc<[u8]>> {
        let mut content = self.old(device, &volume)?;
        let (source, dirty) = volume.open(device)?;
        let mut discards = true;
        for region in dirty {
            let region = region?;
            let bytes = part(&content, region.offset(), region.length())?;
            source.read_at(region.offset(), &mut content[bytes])?;
            // Without discards the fleecing image only grows larger.
            discards = discards && source.discard(region).is_ok();
            stats.read += region.length();
        }
        Ok(content.into())
    }
}

/// Where a range lies in a volume.
fn part(volume: &[u8], offset: u64, length: u64) -> Result<Range<usize>> {
    let start = usize::try_from(offset).ok();
    let range = start.zip(usize::try_from(length).ok());
    let range = range.and_then(|(start, length)| Some(start..start.checked_add(length)?));
    match range.filter(|range| range.end <= volume.len()) {
        Some(range) => Ok(range),
        None => error(
            ErrorKind::Protocol,
            format!("{length} bytes at offset {offset} pass the end of the volume"),
        ),
    }
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

    fn restore_container(self: Box<Self>) -> Result<Box<dyn ContainerRestore>> {
        let what = format!("{} is a virtual machine", self.guest);
        error(ErrorKind::Unsupported, what)
    }
}

impl VmRestore for Stored {
    fn volumes(&self) -> &BTreeMap<DeviceName, VolumeInfo> {
        &self.infos
    }

    fn open_volume(&mut self, device: &DeviceName) -> Result<Box<dyn VolumeReader>> {
        match self.volumes.get(device) {
            Some(content) => Ok(Box::new(Reader(Arc::clone(content)))),
            None => error(ErrorKind::NotFound, format!("there is no device {device}")),
        }
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
        let bytes = part(&self.0, offset, buffer.len() as u64)?;
        buffer.copy_from_slice(&self.0[bytes]);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        let blocks = (0u64..).step_by(BLOCK_SIZE).zip(self.0.chunks(BLOCK_SIZE));
        let ends = blocks.map(|(start, block)| (start, start + block.len() as u64, block));
        let mut data =
            ends.filter(|(_, end, block)| *end > offset && block.iter().any(|b| *b != 0));
        let found = data.next().map(|(start, end, _)| (start.max(offset), end));
        found
            .map(|(from, to)| Region::new(from, to - from))
            .transpose()
    }
}
