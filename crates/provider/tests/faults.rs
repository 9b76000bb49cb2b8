//! Several disks at once, what goes wrong with one of them, and what the task log and the
//! bandwidth limit make of a backup. Time is made up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapkeep_api::{
    ArchiveName, BackupStats, BitmapInfo, BitmapMode, BitmapName, BitmapRequest, Clock, DeviceName,
    ErrorKind, Incarnation, Level, Outcome, Provider, Region, Result, SnapshotAccess,
    SteppingClock, TaskLog, UnixTime, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom, limits};

const MIB: usize = 1 << 20;
/// Bytes of a chunk.
const CHUNK: usize = 64 << 10;

/// Keeps what was logged, and when.
struct Log {
    clock: Arc<SteppingClock>,
    lines: Mutex<Vec<(Duration, Level, String)>>,
}

impl TaskLog for Log {
    fn log(&self, level: Level, message: &str) {
        let line = (self.clock.monotonic(), level, message.to_owned());
        self.lines.lock().unwrap().push(line);
    }
}

/// A provider over a repository of its own.
struct Host {
    provider: RepositoryProvider,
    repository: Arc<Repository>,
    clock: Arc<SteppingClock>,
    log: Arc<Log>,
}

/// A disk to hand over.
struct Disk {
    device: &'static str,
    /// What the host says.
    announced: u64,
    content: Vec<u8>,
    /// What may be read, with a reused bitmap; everything without one.
    dirty: Option<Vec<Region>>,
    /// Where reads fail from, if they do.
    broken_at: Option<u64>,
}

impl Disk {
    fn new(device: &'static str, content: Vec<u8>) -> Self {
        Self {
            device,
            announced: content.len() as u64,
            content,
            dirty: None,
            broken_at: None,
        }
    }

    fn name(&self) -> DeviceName {
        self.device.parse().unwrap()
    }

    fn volume(&self) -> Volume {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&self.content, 0).unwrap();
        let whole = || Region::new(0, self.announced).into_iter().collect();
        let regions: Vec<_> = self.dirty.clone().unwrap_or_else(whole);
        // The file is cut when its length was looked at already.
        let (trap, cut) = (file.try_clone().unwrap(), self.broken_at);
        let dirty = Box::new(regions.into_iter().map(move |region| {
            if let Some(length) = cut {
                trap.set_len(length).unwrap();
            }
            Ok(region)
        }));
        let reused = self.dirty.is_some();
        Volume {
            size: self.announced,
            bitmap: if reused {
                BitmapMode::Reuse
            } else {
                BitmapMode::New
            },
            access: SnapshotAccess::FileHandle { file, dirty },
        }
    }
}

impl Host {
    fn new(workers: usize) -> Self {
        let random = Arc::new(SystemRandom);
        let storage = Arc::new(MemoryStorage::new());
        let repository = Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, CHUNK);
        let repository = Arc::new(repository.unwrap());
        let options = Options {
            namespace: "main".parse().unwrap(),
            storage: None,
            workers,
            mechanism: VmMechanism::FileHandle,
            accept_unverified_regions: true,
            change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
        };
        let clock = Arc::new(SteppingClock::new(UnixTime(1_800_000_000)));
        let log = Arc::new(Log {
            clock: Arc::clone(&clock),
            lines: Mutex::default(),
        });
        let (files, now, told) = (
            Arc::clone(&repository),
            Arc::clone(&clock),
            Arc::clone(&log),
        );
        let provider = RepositoryProvider::new(files, random, now, told, options);
        Self {
            provider,
            repository,
            clock,
            log,
        }
    }

    /// Backs disks up, each with a bitmap relative to this archive.
    fn back_up(
        &self,
        disks: &[Disk],
        base: Option<&ArchiveName>,
        limit: Option<u64>,
    ) -> (ArchiveName, Result<BackupStats>) {
        let now = self.clock.now();
        let mut job = self.provider.start_job(now).unwrap();
        let mut vm = job.start_vm(&"100".parse().unwrap(), now).unwrap();
        let bitmap: BitmapName = "ours".parse().unwrap();
        let bitmaps = base.map(|base| BitmapInfo {
            name: bitmap,
            base: Some(base.clone()),
        });
        let bitmaps: Vec<_> = bitmaps.into_iter().collect();
        let info = |disk: &Disk| VolumeInfo {
            size: disk.announced,
            bitmaps: bitmaps.clone(),
        };
        let volumes: BTreeMap<_, _> = disks.iter().map(|d| (d.name(), info(d))).collect();
        vm.choose_bitmaps(&Incarnation::default(), &volumes)
            .unwrap();
        let name = vm.archive_name().clone();
        let ran = vm.run(VmSource {
            guest_config: b"memory: 512\n".to_vec(),
            firewall_config: None,
            bandwidth_limit: limit.and_then(NonZeroU64::new),
            volumes: disks.iter().map(|d| (d.name(), d.volume())).collect(),
        });
        let outcome = match &ran {
            Ok(_) => Outcome::Success,
            Err(error) => Outcome::Failure(error.chain()),
        };
        vm.finish(&outcome).unwrap();
        job.finish(&outcome).unwrap();
        (name, ran)
    }

    /// The disks back, in order of their names.
    fn restored(&self, archive: &ArchiveName) -> BTreeMap<DeviceName, Vec<u8>> {
        let archive = self.provider.open_archive(archive).unwrap();
        let mut restore = archive.restore_vm().unwrap();
        let devices: Vec<_> = restore.volumes().keys().cloned().collect();
        let mut disks = BTreeMap::new();
        for device in devices {
            let reader = restore.open_volume(&device).unwrap();
            let mut bytes = vec![0xee; usize::try_from(reader.size()).unwrap()];
            reader.read_at(0, &mut bytes).unwrap();
            disks.insert(device, bytes);
        }
        disks
    }

    /// That this backup fails with this kind and these words, and leaves no archive.
    fn expect_failure(&self, disks: &[Disk], kind: ErrorKind, words: &[&str]) {
        let before = self.repository.snapshots().unwrap();
        let (name, ran) = self.back_up(disks, None, None);
        let error = ran.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.chain());
        for word in words {
            assert!(error.chain().contains(word), "{word}: {}", error.chain());
        }
        let opened = self.provider.open_archive(&name).map(|_| ());
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(self.repository.snapshots().unwrap(), before);
    }
}

/// Bytes that do not compress, and differ by seed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn several_disks_with_odd_names_and_sizes_restore_from_one_archive() {
    let long = "d".repeat(255).leak();
    let disks = [
        Disk::new("drive-tpmstate0-backup", noise(4 * MIB, 1)),
        Disk::new("drive-efidisk0", noise(528 << 10, 2)),
        Disk::new("drive-scsi0", noise(3 * MIB + 512, 3)),
        Disk::new("#block123", noise(1, 4)),
        Disk::new("a disk: \\with 'every' =sign,.+_-%2F", vec![0; MIB]),
        Disk::new(long, noise(CHUNK, 5)),
        Disk::new("\u{e9}", Vec::new()),
    ];
    let host = Host::new(3);
    let (archive, ran) = host.back_up(&disks, None, None);
    let size: u64 = disks.iter().map(|disk| disk.announced).sum();
    assert_eq!(ran.unwrap().guest_size, size);
    let wanted: BTreeMap<_, _> = (disks.iter())
        .map(|disk| (disk.name(), disk.content.clone()))
        .collect();
    assert!(
        host.restored(&archive) == wanted,
        "a disk came back changed"
    );
}

#[test]
fn one_disk_that_cannot_be_read_fails_the_backup_by_its_name() {
    let host = Host::new(2);
    let disks = |broken: usize| {
        let mut disks = [
            Disk::new("drive-scsi0", noise(2 * MIB, 1)),
            Disk::new("drive-scsi1", noise(17 * MIB, 2)),
            Disk::new("drive-virtio7", noise(3 * MIB, 3)),
        ];
        disks[broken].broken_at = Some(disks[broken].announced / 2 + 512);
        disks
    };
    let (good, ran) = host.back_up(&[Disk::new("drive-scsi0", noise(MIB, 9))], None, None);
    ran.unwrap();
    for broken in 0..3 {
        let disks = disks(broken);
        host.expect_failure(&disks, ErrorKind::Source, &[disks[broken].device, "read"]);
    }
    let kept = host.restored(&good);
    assert!(
        kept.into_values().eq([noise(MIB, 9)]),
        "an earlier archive changed"
    );
}

#[test]
fn one_disk_of_another_size_fails_the_backup_by_its_name() {
    let host = Host::new(2);
    for wrong in [MIB - 512, MIB + 512, 0] {
        let mut disks = [
            Disk::new("drive-scsi0", noise(MIB, 1)),
            Disk::new("drive-scsi1", noise(MIB, 2)),
        ];
        disks[1].announced = wrong as u64;
        let (wrong, real) = (wrong.to_string(), MIB.to_string());
        let words = ["drive-scsi1", &*wrong, &*real];
        host.expect_failure(&disks, ErrorKind::Protocol, &words);
    }
}

#[test]
fn regions_without_number_are_refused_before_they_fill_the_memory() {
    let host = Host::new(1);
    let mut disk = Disk::new("drive-scsi0", noise(4 * MIB, 1));
    let (base, ran) = host.back_up(std::slice::from_ref(&disk), None, None);
    ran.unwrap();
    // Below the one lowest node: as many as there are sectors, and one more.
    let sectors = (4 * MIB / 512) as u64;
    for (regions, fine) in [(sectors, true), (sectors + 1, false)] {
        let bytes = (0..regions).map(|n| Region::new(n * 16, 1).unwrap());
        disk.dirty = Some(bytes.collect());
        host.clock.sleep(Duration::from_secs(1));
        let (_, ran) = host.back_up(std::slice::from_ref(&disk), Some(&base), None);
        assert_eq!(ran.is_ok(), fine);
        let refused = ran.err().is_none_or(|e| e.kind() == ErrorKind::Protocol);
        assert!(refused, "of another kind");
    }
}

#[test]
fn a_bitmap_that_was_given_up_on_a_second_thought_is_not_reused() {
    let host = Host::new(1);
    let mut disk = Disk::new("drive-scsi0", noise(MIB, 1));
    let (base, ran) = host.back_up(std::slice::from_ref(&disk), None, None);
    ran.unwrap();
    let mut job = host.provider.start_job(host.clock.now()).unwrap();
    let mut vm = job
        .start_vm(&"100".parse().unwrap(), host.clock.now())
        .unwrap();
    let named = BitmapInfo {
        name: "ours".parse().unwrap(),
        base: Some(base),
    };
    let mut choose = |bitmaps| {
        let size = disk.announced;
        let volumes = BTreeMap::from([(disk.name(), VolumeInfo { size, bitmaps })]);
        vm.choose_bitmaps(&Incarnation::default(), &volumes)
            .unwrap()
            .remove(&disk.name())
    };
    assert!(matches!(choose(vec![named]), Some(BitmapRequest::Use(_))));
    assert_eq!(choose(Vec::new()), Some(BitmapRequest::New));
    disk.dirty = Some(Vec::new());
    let ran = vm.run(VmSource {
        guest_config: Vec::new(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([(disk.name(), disk.volume())]),
    });
    assert_eq!(ran.unwrap_err().kind(), ErrorKind::Protocol);
}

#[test]
fn what_no_archive_can_hold_is_refused_before_a_disk_is_read() {
    let asked = Arc::new(AtomicBool::new(false));
    let volume = |size: u64| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(512).unwrap();
        let asked = Arc::clone(&asked);
        let dirty = Box::new(std::iter::from_fn(move || {
            asked.store(true, Ordering::SeqCst);
            None
        }));
        Volume {
            size,
            bitmap: BitmapMode::New,
            access: SnapshotAccess::FileHandle { file, dirty },
        }
    };
    let (most, long) = (limits::DISK_SIZE_MAX, limits::GUEST_CONFIG_MAX + 1);
    let disks = |sizes: &[u64]| {
        let named = sizes.iter().enumerate();
        let named = named.map(|(n, size)| (format!("d{n}").parse().unwrap(), volume(*size)));
        named.collect::<BTreeMap<DeviceName, _>>()
    };
    let cases = [
        (long, 0, disks(&[512]), "guest configuration"),
        (0, long, disks(&[512]), "firewall configuration"),
        (0, 0, disks(&[512, most + 1]), "device d1"),
        (0, 0, disks(&[512, u64::MAX]), "device d1"),
        (0, 0, disks(&[512; limits::DISKS_MAX + 1]), "257 disks"),
    ];
    let host = Host::new(1);
    for (guest, firewall, volumes, words) in cases {
        let mut job = host.provider.start_job(host.clock.now()).unwrap();
        let id = "100".parse().unwrap();
        let mut vm = job.start_vm(&id, host.clock.now()).unwrap();
        let ran = vm.run(VmSource {
            guest_config: vec![b'#'; guest],
            firewall_config: Some(vec![b'#'; firewall]),
            bandwidth_limit: None,
            volumes,
        });
        let error = ran.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
        assert!(error.chain().contains(words), "{}", error.chain());
        assert!(!asked.load(Ordering::SeqCst), "{words}: a disk was read");
    }
    assert!(host.repository.snapshots().unwrap().is_empty());
}

/// The number before ` MiB` that follows a word of a line.
fn mib_after(line: &str, word: &str) -> f64 {
    let (_, rest) = line.split_once(word).unwrap();
    let (number, _) = rest.split_once(" MiB").unwrap();
    number.trim_start_matches([' ', '(']).parse().unwrap()
}

#[test]
fn progress_is_told_every_few_seconds() {
    let host = Host::new(1);
    // A third of each: new, of zeroes, and once more the same.
    let mut content = noise(8 * MIB, 1);
    content.extend(vec![0; 8 * MIB]);
    content.extend(noise(8 * MIB, 1));
    let disks = [Disk::new("drive-scsi0", content)];
    let (_, ran) = host.back_up(&disks, None, Some(MIB as u64));
    ran.unwrap();
    let lines = host.log.lines.lock().unwrap();
    let lines: Vec<_> = lines
        .iter()
        .filter(|(_, _, line)| line.contains("read "))
        .collect();
    assert!(lines.len() >= 4, "{lines:?}");
    let mut last = (Duration::ZERO, 0.0);
    for (at, level, line) in &lines {
        assert_eq!(*level, Level::Info);
        let waited = at.saturating_sub(last.0);
        assert!(waited < Duration::from_secs(9), "{waited:?} without a line");
        let read = mib_after(line, "read");
        assert!(read >= last.1 && read <= mib_after(line, " of"), "{line}");
        assert!((0.8..=1.2).contains(&mib_after(line, "dirty (")), "{line}");
        last = (*at, read);
    }
    let (_, _, total) = lines.last().unwrap();
    for (word, wanted) in [
        ("read", 24.0),
        (" of", 24.0),
        ("new", 8.0),
        ("reused", 8.0),
        ("zero", 8.0),
    ] {
        let found = mib_after(total, word);
        assert!((found - wanted).abs() < 0.2, "{word} {found}: {total}");
    }
}

#[test]
fn the_limit_holds_for_what_is_read() {
    for workers in [1, 4] {
        let host = Host::new(workers);
        // Zeroes are read, and nothing is written.
        let disks = [
            Disk::new("drive-scsi0", vec![0; 10 * MIB]),
            Disk::new("drive-scsi1", vec![0; 10 * MIB]),
        ];
        let (_, ran) = host.back_up(&disks, None, Some(2 * MIB as u64));
        assert_eq!(ran.unwrap().read, 20 * MIB as u64);
        let took = host.clock.monotonic().as_secs_f64();
        assert!(took >= 9.5, "{took} s with {workers} workers");
        assert!(workers > 1 || took <= 10.5, "{took} s");
    }
}

#[test]
fn the_limit_holds_for_what_is_written_out() {
    let host = Host::new(1);
    let mut disk = Disk::new("drive-scsi0", noise(6 * MIB, 1));
    let (base, ran) = host.back_up(std::slice::from_ref(&disk), None, None);
    ran.unwrap();
    assert_eq!(host.clock.monotonic(), Duration::ZERO);
    // One sector of each chunk is dirty, and each such chunk is written whole.
    let sectors = (0..disk.content.len()).step_by(CHUNK);
    let mut dirty = Vec::new();
    for at in sectors {
        disk.content[at..at + 512].fill(0x5a);
        dirty.push(Region::new(at as u64, 512).unwrap());
    }
    disk.dirty = Some(dirty);
    // The base's second is over.
    host.clock.sleep(Duration::from_secs(1));
    let start = host.clock.monotonic();
    let (archive, ran) = host.back_up(&[disk], Some(&base), Some(MIB as u64));
    let stats = ran.unwrap();
    assert!(
        stats.stored >= 6 * MIB as u64 && stats.read < MIB as u64,
        "{stats:?}"
    );
    let took = host.clock.monotonic().saturating_sub(start).as_millis();
    let wanted = u128::from(stats.stored) * 1000 / MIB as u128;
    assert!(
        took * 100 >= wanted * 95 && took * 100 <= wanted * 105,
        "{took} ms, not {wanted}"
    );
    assert_eq!(host.restored(&archive).len(), 1);
}

#[test]
fn without_a_limit_nothing_waits() {
    let host = Host::new(2);
    let (_, ran) = host.back_up(&[Disk::new("drive-scsi0", noise(4 * MIB, 1))], None, None);
    ran.unwrap();
    assert_eq!(host.clock.monotonic(), Duration::ZERO);
}
