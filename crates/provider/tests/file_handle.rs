//! Backups by the mechanism `file-handle` over real files: full, incremental, restored.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use snapkeep_api::{
    ArchiveName, BackupStats, BitmapInfo, BitmapMode, BitmapRequest, DeviceName, ErrorKind,
    Incarnation, Level, Outcome, Provider, Region, Result, SnapshotAccess, SteppingClock, TaskLog,
    UnixTime, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, Storage, SystemRandom};

/// When all backups start: what is to wait for the next second waits in no time.
const START: UnixTime = UnixTime(1_800_000_000);

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

fn provider() -> RepositoryProvider {
    provider_on(Arc::new(MemoryStorage::new()))
}

fn provider_on(storage: Arc<dyn Storage>) -> RepositoryProvider {
    let random = Arc::new(SystemRandom);
    let repository =
        Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, 64 << 10).unwrap();
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 3,
        mechanism: VmMechanism::FileHandle,
        accept_unverified_regions: true,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
    };
    let clock = Arc::new(SteppingClock::new(START));
    RepositoryProvider::new(
        Arc::new(repository),
        random,
        clock,
        Arc::new(Quiet),
        options,
    )
}

fn device() -> DeviceName {
    "drive-scsi0".parse().unwrap()
}

/// Backs up the bytes; only `dirty` may be read if a base is given.
fn backup(
    provider: &dyn Provider,
    bytes: &[u8],
    base: Option<(&ArchiveName, &[(u64, u64)])>,
) -> Result<(ArchiveName, BackupStats)> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    let size = bytes.len() as u64;
    let regions: Vec<(u64, u64)> = match base {
        None => Some((0, size)).filter(|_| size > 0).into_iter().collect(),
        Some((_, dirty)) => dirty.to_vec(),
    };
    // What may not be read holds other bytes, so that reading it shows.
    file.write_all_at(&vec![0xbd; bytes.len()], 0).unwrap();
    for (offset, length) in &regions {
        let range = usize::try_from(*offset).unwrap()..usize::try_from(offset + length).unwrap();
        file.write_all_at(&bytes[range], *offset).unwrap();
    }
    run(
        provider,
        file,
        size,
        base.map(|(archive, _)| archive),
        regions,
    )
}

fn run(
    provider: &dyn Provider,
    file: File,
    size: u64,
    base: Option<&ArchiveName>,
    regions: Vec<(u64, u64)>,
) -> Result<(ArchiveName, BackupStats)> {
    let mut job = provider.start_job(START)?;
    let mut vm = job.start_vm(&"100".parse().unwrap(), START)?;
    let name = vm.archive_name().clone();
    let bitmap = BitmapInfo {
        name: "bitmap".parse().unwrap(),
        base: base.cloned(),
    };
    let bitmaps = base.map(|_| bitmap).into_iter().collect();
    let volumes = BTreeMap::from([(device(), VolumeInfo { size, bitmaps })]);
    let requests = vm.choose_bitmaps(&Incarnation::default(), &volumes)?;
    let mode = match (&requests[&device()], base) {
        (BitmapRequest::Use(_), Some(_)) => BitmapMode::Reuse,
        (BitmapRequest::New, None) => BitmapMode::New,
        (request, base) => panic!("{request:?} for the base {base:?}"),
    };
    let dirty = Box::new(
        regions
            .into_iter()
            .map(|(offset, length)| Region::new(offset, length)),
    );
    let volume = Volume {
        size,
        bitmap: mode,
        access: SnapshotAccess::FileHandle { file, dirty },
    };
    let source = VmSource {
        guest_config: b"memory: 512\n# \xc3\xa9\n".to_vec(),
        firewall_config: Some(Vec::new()),
        bandwidth_limit: None,
        volumes: BTreeMap::from([(device(), volume)]),
    };
    let stats = vm.run(source)?;
    vm.finish(&Outcome::Failure("the caller failed later".to_owned()))?;
    job.finish(&Outcome::Success)?;
    Ok((name, stats))
}

fn restore(provider: &dyn Provider, name: &ArchiveName) -> Vec<u8> {
    let archive = provider.open_archive(name).unwrap();
    assert_eq!(
        archive.guest_config().unwrap(),
        b"memory: 512\n# \xc3\xa9\n"
    );
    assert_eq!(archive.firewall_config().unwrap(), None);
    let mut restore = archive.restore_vm().unwrap();
    let reader = restore.open_volume(&device()).unwrap();
    let mut bytes = vec![0; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes).unwrap();
    restore.finish().unwrap();
    bytes
}

fn pattern(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    (0..length)
        .map(|i| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            if i / 70_000 % 3 == 1 {
                0
            } else {
                (state >> 56).to_le_bytes()[0]
            }
        })
        .collect()
}

#[test]
fn an_archive_that_is_pruned_while_it_is_restored_is_called_removed_and_not_damaged() {
    let storage = Arc::new(MemoryStorage::new());
    let provider = provider_on(Arc::clone(&storage) as _);
    let (name, _) = backup(&provider, &pattern(1 << 20), None).unwrap();
    let mut restore = (provider.open_archive(&name).unwrap())
        .restore_vm()
        .unwrap();
    let reader = restore.open_volume(&device()).unwrap();
    let remove = |folder: &str| {
        let mut files = Vec::new();
        (storage.list(&folder.parse().unwrap(), &mut |file, _| {
            files.push(file.clone());
            Ok(())
        }))
        .unwrap();
        for file in files {
            storage.remove(&file).unwrap();
        }
    };
    let mut bytes = vec![0; 4096];
    remove("packs");
    let error = reader.read_at(0, &mut bytes).unwrap_err();
    assert!(!error.to_string().contains("was removed"), "{error}");
    remove("snapshots");
    let error = reader.read_at(0, &mut bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("was removed"), "{error}");
}

#[test]
fn a_chain_of_incrementals_with_fine_regions_restores_each_instant() {
    let provider = provider();
    let mut disk = pattern((5 << 20) + 1536);
    let (mut last, stats) = backup(&provider, &disk, None).unwrap();
    assert_eq!(stats.read, disk.len() as u64);
    let mut archives = vec![(last.clone(), disk.clone())];
    for round in 0u64..5 {
        // Regions finer than a chunk, crossing chunks, and the very end.
        let end = disk.len() as u64;
        let dirty = [
            (512 + round * 70_000, 1024),
            (1_000_000, 131_072),
            (4 << 20, 65_536),
            (end - 512, 512),
        ];
        for (offset, length) in dirty {
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap();
            let value = u8::try_from(round).unwrap();
            disk[range].fill(value);
        }
        let (name, stats) = backup(&provider, &disk, Some((&last, &dirty))).unwrap();
        assert_eq!(stats.read, 1024 + 131_072 + 65_536 + 512);
        archives.push((name.clone(), disk.clone()));
        last = name;
    }
    for (name, bytes) in &archives {
        assert!(restore(&provider, name) == *bytes, "{name}");
    }
}

#[test]
fn a_clean_bitmap_reads_nothing_and_the_archive_is_whole() {
    let provider = provider();
    let disk = pattern(3 << 20);
    let (base, _) = backup(&provider, &disk, None).unwrap();
    let (name, stats) = backup(&provider, &disk, Some((&base, &[]))).unwrap();
    assert_eq!((stats.read, stats.new), (0, 0));
    assert!(restore(&provider, &name) == disk);
}

#[test]
fn disks_of_odd_sizes_keep_their_last_bytes() {
    let provider = provider();
    for size in [0, 1, 511, 512, 65_535, 65_537, 528 << 10] {
        let disk = vec![0xa5; size];
        let (name, _) = backup(&provider, &disk, None).unwrap();
        assert!(restore(&provider, &name) == disk, "{size}");
    }
}

#[test]
fn a_list_of_regions_that_ends_early_makes_no_archive() {
    let provider = provider();
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let error = run(&provider, file, 1 << 20, None, Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{}", error.chain());
}

#[test]
fn a_read_that_fails_makes_no_archive() {
    let provider = provider();
    let folder = tempfile::tempdir().unwrap();
    let unreadable = File::create(folder.path().join("write-only")).unwrap();
    unreadable.set_len(1 << 20).unwrap();
    let error = run(&provider, unreadable, 1 << 20, None, vec![(0, 1 << 20)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source, "{}", error.chain());
}
