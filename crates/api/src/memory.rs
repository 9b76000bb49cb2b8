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
    ContainerBackup, ContainerRestore, DeviceName, Error, ErrorKind, GuestId, GuestKind,
    Incarnation, Outcome, Provider, Region, Result, SnapshotAccess, UnixTime, VmBackup,
    VmMechanism, VmRestore, VmSource, Volume, VolumeInfo, VolumeReader,
};

/// Volumes larger than this, in bytes, are refused: they are held in memory whole.
const VOLUME_SIZE_MAX: u64 = 1 << 30;
/// Bytes read from a source at a time.
const READ_SIZE: u64 = 1 << 20;
/// Holes are told in units of this many bytes.
const BLOCK_SIZE: usize = 4096;

/// A provider that keeps its archives in memory. Clones share their archives.
#[derive(Clone, Debug)]
pub struct MemoryProvider {
    store: Arc<Store>,
    mechanism: VmMechanism,
}

impl MemoryProvider {
    /// An empty provider that asks for this mechanism.
    pub fn new(mechanism: VmMechanism) -> Self {
        let store = Arc::default();
        Self { store, mechanism }
    }

    /// The names of all archives, in order.
    pub fn archive_names(&self) -> Vec<ArchiveName> {
        self.store.lock().archives.keys().cloned().collect()
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
        match self.store.find(name) {
            Some(archive) => Ok(Box::new(OpenArchive(archive))),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no archive {name}"),
            )),
        }
    }
}

impl BackupJob for MemoryProvider {
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>> {
        let number = {
            let mut shelf = self.store.lock();
            shelf.started += 1;
            shelf.started
        };
        let name = format!("memory/vm/{guest}/{}-{number}", start_time.0).parse()?;
        Ok(Box::new(MemoryBackup {
            store: Arc::clone(&self.store),
            mechanism: self.mechanism,
            guest: guest.clone(),
            name,
            bases: BTreeMap::new(),
        }))
    }

    fn start_container(
        &mut self,
        guest: &GuestId,
        _start_time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("cannot back up container {guest}: only virtual machines are kept in memory"),
        ))
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Store(Mutex<Shelf>);

#[derive(Default)]
struct Shelf {
    archives: BTreeMap<ArchiveName, Arc<StoredArchive>>,
    /// Backups ever started; makes archive names unique within one second.
    started: u64,
}

struct StoredArchive {
    guest: GuestId,
    guest_config: Vec<u8>,
    firewall_config: Option<Vec<u8>>,
    volumes: BTreeMap<DeviceName, Arc<[u8]>>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // An archive is inserted whole, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &ArchiveName) -> Option<Arc<StoredArchive>> {
        self.lock().archives.get(name).cloned()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().archives.keys()).finish()
    }
}

struct MemoryBackup {
    store: Arc<Store>,
    mechanism: VmMechanism,
    guest: GuestId,
    name: ArchiveName,
    /// What a reused bitmap is relative to.
    bases: BTreeMap<DeviceName, (BitmapName, Arc<[u8]>)>,
}

impl VmBackup for MemoryBackup {
    fn archive_name(&self) -> &ArchiveName {
        &self.name
    }

    fn mechanism(&self) -> VmMechanism {
        self.mechanism
    }

    fn choose_bitmaps(
        &mut self,
        _incarnation: &Incarnation,
        volumes: &BTreeMap<DeviceName, VolumeInfo>,
    ) -> Result<BTreeMap<DeviceName, BitmapRequest>> {
        self.bases.clear();
        let mut requests = BTreeMap::new();
        for (device, volume) in volumes {
            let request = match self.find_base(device, volume) {
                Some((bitmap, base)) => {
                    self.bases.insert(device.clone(), (bitmap.clone(), base));
                    BitmapRequest::Use(bitmap)
                }
                None => BitmapRequest::New,
            };
            requests.insert(device.clone(), request);
        }
        Ok(requests)
    }

    fn run(&mut self, vm: VmSource) -> Result<BackupStats> {
        if self.store.find(&self.name).is_some() {
            let what = format!("archive {} is already committed", self.name);
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        let mut stats = BackupStats::default();
        let mut volumes = BTreeMap::new();
        for (device, volume) in vm.volumes {
            let content = self.read_volume(&device, volume, &mut stats)?;
            stats.guest_size += content.len() as u64;
            volumes.insert(device, content);
        }
        stats.archive_size = stats.guest_size;
        stats.new = stats.read;
        stats.stored = stats.guest_size;
        let archive = StoredArchive {
            guest: self.guest.clone(),
            guest_config: vm.guest_config,
            firewall_config: vm.firewall_config.filter(|config| !config.is_empty()),
            volumes,
        };
        let name = self.name.clone();
        self.store.lock().archives.insert(name, Arc::new(archive));
        Ok(stats)
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

impl MemoryBackup {
    /// The newest bitmap that can be trusted, and the volume it is relative to.
    fn find_base(
        &self,
        device: &DeviceName,
        volume: &VolumeInfo,
    ) -> Option<(BitmapName, Arc<[u8]>)> {
        volume.bitmaps.iter().find_map(|bitmap| {
            let archive = self.store.find(bitmap.base.as_ref()?)?;
            let base = archive.volumes.get(device)?;
            (archive.guest == self.guest && base.len() as u64 == volume.size)
                .then(|| (bitmap.name.clone(), Arc::clone(base)))
        })
    }

    fn read_volume(
        &self,
        device: &DeviceName,
        volume: Volume,
        stats: &mut BackupStats,
    ) -> Result<Arc<[u8]>> {
        let mut content = match volume.bitmap {
            BitmapMode::None | BitmapMode::New => zeroes(device, volume.size)?,
            BitmapMode::Reuse => self.base_of(device, &volume)?.to_vec(),
        };
        let (source, dirty) = volume.open(device)?;
        let mut discards = true;
        for region in dirty {
            let region = region?;
            let mut offset = region.offset();
            while offset < region.end() {
                let length = READ_SIZE.min(region.end() - offset);
                let piece = Region::new(offset, length)?;
                source.read_at(offset, slice_of(&mut content, device, piece)?)?;
                // Without discards the fleecing image only grows larger.
                discards = discards && source.discard(piece).is_ok();
                stats.read += length;
                offset = piece.end();
            }
        }
        Ok(content.into())
    }

    fn base_of(&self, device: &DeviceName, volume: &Volume) -> Result<&Arc<[u8]>> {
        let protocol = |why: &str| {
            let what = format!("device {device}: a bitmap is reused, but {why}");
            Error::new(ErrorKind::Protocol, what)
        };
        let (chosen, base) = self
            .bases
            .get(device)
            .ok_or_else(|| protocol("none was asked for"))?;
        if base.len() as u64 != volume.size {
            return Err(protocol("the volume has another size than its base"));
        }
        match &volume.access {
            SnapshotAccess::Nbd {
                bitmap: Some(other),
                ..
            } if other != chosen => Err(protocol("it is not the one asked for")),
            SnapshotAccess::Nbd { .. } | SnapshotAccess::FileHandle { .. } => Ok(base),
        }
    }
}

fn zeroes(device: &DeviceName, size: u64) -> Result<Vec<u8>> {
    match usize::try_from(size) {
        Ok(length) if size <= VOLUME_SIZE_MAX => Ok(vec![0; length]),
        _ => Err(Error::new(
            ErrorKind::Invalid,
            format!("device {device}: {size} bytes are too many to hold in memory"),
        )),
    }
}

fn slice_of<'a>(
    content: &'a mut [u8],
    device: &DeviceName,
    region: Region,
) -> Result<&'a mut [u8]> {
    let range = usize::try_from(region.offset())
        .ok()
        .zip(usize::try_from(region.end()).ok());
    range
        .and_then(|(start, end)| content.get_mut(start..end))
        .ok_or_else(|| {
            let what = format!("device {device}: a region runs past the end of the volume");
            Error::new(ErrorKind::Protocol, what)
        })
}

struct OpenArchive(Arc<StoredArchive>);

impl Archive for OpenArchive {
    fn guest_kind(&self) -> GuestKind {
        GuestKind::Qemu
    }

    fn guest_config(&self) -> Result<Vec<u8>> {
        Ok(self.0.guest_config.clone())
    }

    fn firewall_config(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.0.firewall_config.clone())
    }

    fn restore_vm(self: Box<Self>) -> Result<Box<dyn VmRestore>> {
        let info = |content: &Arc<[u8]>| VolumeInfo {
            size: content.len() as u64,
            bitmaps: Vec::new(),
        };
        let volumes = self.0.volumes.iter();
        let infos = volumes.map(|(d, v)| (d.clone(), info(v))).collect();
        Ok(Box::new(MemoryRestore {
            archive: self.0,
            infos,
        }))
    }

    fn restore_container(self: Box<Self>) -> Result<Box<dyn ContainerRestore>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "cannot restore a virtual machine's archive as a container",
        ))
    }
}

struct MemoryRestore {
    archive: Arc<StoredArchive>,
    infos: BTreeMap<DeviceName, VolumeInfo>,
}

impl VmRestore for MemoryRestore {
    fn volumes(&self) -> &BTreeMap<DeviceName, VolumeInfo> {
        &self.infos
    }

    fn open_volume(&mut self, device: &DeviceName) -> Result<Box<dyn VolumeReader>> {
        match self.archive.volumes.get(device) {
            Some(content) => Ok(Box::new(MemoryReader(Arc::clone(content)))),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("the archive has no device {device}"),
            )),
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct MemoryReader(Arc<[u8]>);

impl VolumeReader for MemoryReader {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.0.get(start..start.checked_add(buffer.len())?));
        match found {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "cannot read {} bytes at offset {offset} of a volume of {} bytes",
                    buffer.len(),
                    self.0.len()
                ),
            )),
        }
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        let Ok(from) = usize::try_from(offset) else {
            return Ok(None);
        };
        let blocks = self.0.chunks(BLOCK_SIZE).enumerate();
        let mut run: Option<(usize, usize)> = None;
        for (number, block) in blocks.skip(from / BLOCK_SIZE) {
            let start = (number * BLOCK_SIZE).max(from);
            let end = number * BLOCK_SIZE + block.len();
            let data = start < end && block.iter().any(|&byte| byte != 0);
            match (data, &mut run) {
                (true, None) => run = Some((start, end)),
                (true, Some((_, run_end))) => *run_end = end,
                (false, Some(_)) => break,
                (false, None) => {}
            }
        }
        run.map(|(start, end)| Region::new(start as u64, (end - start) as u64))
            .transpose()
    }
}
