//! A guest whose dirty bitmaps have fixed names, as QEMU and Proxmox VE keep them, and the storages
//! that back it up.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use snapkeep_api::{
    ArchiveName, BackupStats, BitmapInfo, BitmapMode, BitmapName, BitmapRequest, DeviceName,
    Incarnation, Level, Outcome, Process, Provider, Region, Result, SnapshotAccess, SystemClock,
    TaskLog, UnixTime, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_provider::{BitmapStorage, HeadMemory, Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, Storage, SystemRandom, Unlock};

/// Bytes that one bit of a bitmap stands for.
pub(crate) const CLUSTER: usize = 64 << 10;

/// Keeps what was logged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(Level, String)>>>);

impl Log {
    /// Every line so far.
    pub(crate) fn lines(&self) -> Vec<(Level, String)> {
        self.0.lock().unwrap().clone()
    }
}

impl TaskLog for Log {
    fn log(&self, level: Level, message: &str) {
        self.0.lock().unwrap().push((level, message.to_owned()));
    }
}

/// A fresh repository.
pub(crate) fn repository_storage() -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new());
    let random = Arc::new(SystemRandom);
    Repository::init(Arc::clone(&storage) as _, random, &Protect::Open, CLUSTER).unwrap();
    storage
}

/// What a host of this namespace has as its storage.
pub(crate) fn provider(
    storage: &Arc<MemoryStorage>,
    namespace: &str,
    id: Option<&str>,
    log: &Log,
) -> RepositoryProvider {
    let random = Arc::new(SystemRandom);
    let files = Arc::clone(storage) as Arc<dyn Storage>;
    let repository = Repository::open(files, Arc::clone(&random) as _, &Unlock::Open).unwrap();
    let options = Options {
        namespace: namespace.parse().unwrap(),
        storage: id.map(bitmap_storage),
        workers: 2,
        mechanism: VmMechanism::FileHandle,
        accept_unverified_regions: true,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
    };
    let (clock, log) = (Arc::new(SystemClock::new()), Arc::new(log.clone()));
    RepositoryProvider::new(Arc::new(repository), random, clock, log, options)
}

/// A storage whose hosts share one memory, which is that of the test.
pub(crate) fn bitmap_storage(id: &str) -> BitmapStorage {
    BitmapStorage {
        id: id.parse().unwrap(),
        memory: memory(),
    }
}

/// What the hosts of this test remember.
pub(crate) fn memory() -> Arc<Memory> {
    thread_local!(static MEMORY: Arc<Memory> = Arc::default());
    MEMORY.with(Arc::clone)
}

/// Remembers heads by their places.
#[derive(Debug, Default)]
pub(crate) struct Memory(pub(crate) Mutex<BTreeMap<String, String>>);

impl HeadMemory for Memory {
    fn remembered(&self, place: &str) -> Result<Option<String>> {
        Ok(self.0.lock().unwrap().get(place).cloned())
    }

    fn remember(&self, place: &str, head: &str) -> Result<()> {
        (self.0.lock().unwrap()).insert(place.to_owned(), head.to_owned());
        Ok(())
    }
}

/// The next second: each backup starts later than the one before.
fn next_second() -> UnixTime {
    static SECONDS: AtomicI64 = AtomicI64::new(1_800_000_000);
    UnixTime(SECONDS.fetch_add(1, Ordering::Relaxed))
}

/// How a backup ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// Well.
    Committed,
    /// Well, but its caller fails later.
    FailedLater,
    /// A read fails.
    Failed,
    /// Well or not, as the provider finds out.
    Either,
    /// The provider's process is killed before it commits, and somebody tells QEMU that the backup
    /// was a success.
    Killed,
}

/// A running guest.
#[derive(Clone, Debug)]
pub(crate) struct Vm {
    pub(crate) disk: Vec<u8>,
    pub(crate) incarnation: Incarnation,
    /// The dirty clusters by a bitmap's name.
    pub(crate) bitmaps: BTreeMap<BitmapName, BTreeSet<usize>>,
}

/// What came of a backup.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) archive: ArchiveName,
    pub(crate) mode: BitmapMode,
    pub(crate) stats: Option<BackupStats>,
}

pub(crate) fn device() -> DeviceName {
    "drive-scsi0".parse().unwrap()
}

/// A process of a node that is never booted again.
pub(crate) fn process(id: u32, start: u64) -> Process {
    let boot = [0xb0; 16];
    Process { boot, id, start }
}

impl Vm {
    /// A guest with so many clusters, all different, without a generation id.
    pub(crate) fn new(clusters: usize) -> Self {
        let disk = (0..clusters)
            .flat_map(|number| vec![u8::try_from(number % 250 + 1).unwrap(); CLUSTER])
            .collect();
        let process = Some(process(1000, 50_000));
        let vmgenid = None;
        Self {
            disk,
            incarnation: Incarnation { process, vmgenid },
            bitmaps: BTreeMap::new(),
        }
    }

    /// Writes into a cluster.
    pub(crate) fn write(&mut self, cluster: usize, value: u8) {
        self.disk[cluster * CLUSTER + 100..][..512].fill(value);
        for dirty in self.bitmaps.values_mut() {
            dirty.insert(cluster);
        }
    }

    /// Goes back to a snapshot with memory, which has the bitmaps of its time, in a new process.
    pub(crate) fn roll_back(&mut self, to: &Self) {
        let id = self.incarnation.vmgenid;
        let process = self.incarnation.process;
        let process = process.map(|now| self::process(now.id + 7, now.start + 1000));
        *self = to.clone();
        self.incarnation.process = process;
        self.incarnation.vmgenid = id.map(|id| (u128::from_be_bytes(id) + 1).to_be_bytes());
    }

    /// One backup through a storage's own bitmap.
    pub(crate) fn back_up(&mut self, provider: &dyn Provider, storage: &str, end: End) -> Done {
        self.back_up_late(provider, storage, end, || {})
    }

    /// The same, where something happens after the provider has chosen the bitmaps.
    pub(crate) fn back_up_late(
        &mut self,
        provider: &dyn Provider,
        storage: &str,
        end: End,
        meanwhile: impl FnOnce(),
    ) -> Done {
        let name: BitmapName = format!("snapshot-access:{storage}").parse().unwrap();
        let now = next_second();
        let mut job = provider.start_job(now).unwrap();
        let mut backup = job.start_vm(&"100".parse().unwrap(), now).unwrap();
        let archive = backup.archive_name().clone();
        let size = self.disk.len() as u64;
        let bitmap = BitmapInfo {
            name: name.clone(),
            base: None,
        };
        let bitmaps = vec![bitmap];
        let volumes = BTreeMap::from([(device(), VolumeInfo { size, bitmaps })]);
        let requests = backup.choose_bitmaps(&self.incarnation, &volumes).unwrap();
        meanwhile();
        let old = self.bitmaps.remove(&name);
        let all: BTreeSet<usize> = (0..self.disk.len() / CLUSTER).collect();
        let (mode, dirty) = match (requests.get(&device()), old) {
            (None, _) => (BitmapMode::None, all),
            (Some(BitmapRequest::Use(asked)), Some(old)) if *asked == name => {
                (BitmapMode::Reuse, old)
            }
            (Some(BitmapRequest::Use(_) | BitmapRequest::New), _) => (BitmapMode::New, all),
        };
        let access = self.access(&dirty, end);
        let volume = Volume {
            size,
            bitmap: mode,
            access,
        };
        let source = VmSource {
            guest_config: b"memory: 512\n".to_vec(),
            firewall_config: None,
            bandwidth_limit: None,
            volumes: BTreeMap::from([(device(), volume)]),
        };
        let stats = backup.run(source);
        let good = matches!(end, End::Committed | End::FailedLater);
        assert!(end == End::Either || stats.is_ok() == good, "{stats:?}");
        let failed = end == End::Failed || end == End::Either && stats.is_err();
        let kept = if failed { dirty } else { BTreeSet::new() };
        if mode != BitmapMode::None {
            self.bitmaps.insert(name, kept);
        }
        if end != End::Killed {
            let outcome = if stats.is_ok() && end != End::FailedLater {
                Outcome::Success
            } else {
                Outcome::Failure("it failed".to_owned())
            };
            backup.finish(&outcome).unwrap();
            job.finish(&outcome).unwrap();
        }
        let stats = stats.ok();
        Done {
            archive,
            mode,
            stats,
        }
    }

    /// The snapshot access; what is not dirty holds other bytes, so that reading it shows.
    fn access(&self, dirty: &BTreeSet<usize>, end: End) -> SnapshotAccess {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![0xbd; self.disk.len()], 0).unwrap();
        for cluster in dirty {
            let at = cluster * CLUSTER;
            file.write_all_at(&self.disk[at..at + CLUSTER], at as u64)
                .unwrap();
        }
        let mut regions: Vec<_> = dirty
            .iter()
            .map(|cluster| Region::new((cluster * CLUSTER) as u64, CLUSTER as u64))
            .collect();
        if matches!(end, End::Failed | End::Killed) {
            let fault = Region::new(0, 0);
            regions.truncate(2);
            regions.push(fault);
        }
        let dirty = Box::new(regions.into_iter());
        SnapshotAccess::FileHandle { file, dirty }
    }
}

/// What an archive restores to.
pub(crate) fn restored(provider: &dyn Provider, archive: &ArchiveName) -> Vec<u8> {
    let mut restore = provider
        .open_archive(archive)
        .unwrap()
        .restore_vm()
        .unwrap();
    let reader = restore.open_volume(&device()).unwrap();
    let mut bytes = vec![0xee; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes).unwrap();
    restore.finish().unwrap();
    bytes
}
