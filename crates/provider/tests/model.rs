//! Random disks, dirty regions and chunk sizes: each archive of a chain of incremental backups is
//! the disk as it was, byte by byte.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use snapkeep_api::{
    ArchiveName, BitmapInfo, BitmapMode, DeviceName, Incarnation, Level, Outcome, Provider, Region,
    SnapshotAccess, SteppingClock, TaskLog, UnixTime, VmMechanism, VmSource, Volume, VolumeInfo,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{MemoryStorage, Protect, Repository, SystemRandom, limits};

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// Fills with noise, zeroes, or one byte.
    fn fill(&mut self, target: &mut [u8]) {
        match self.below(4) {
            0 => target.fill(0),
            1 => target.fill(7),
            _ => target.fill_with(|| self.next().to_le_bytes()[0]),
        }
    }

    /// Regions of any length at any place, in order and apart; a third of them meet.
    fn regions(&mut self, size: usize) -> Vec<Region> {
        let longest = [1, 512, 70_000, size][self.below(4)].min(size);
        let mut regions = Vec::new();
        let mut at = self.below(size);
        while at < size && regions.len() < 40 {
            let length = (1 + self.below(longest)).min(size - at);
            regions.push(Region::new(at as u64, length as u64).unwrap());
            at += length;
            if self.below(3) > 0 {
                at += self.below(size / 3);
            }
        }
        regions
    }
}

fn provider(chunk: usize, workers: usize) -> RepositoryProvider {
    let random = Arc::new(SystemRandom);
    let storage = Arc::new(MemoryStorage::new());
    let repository = Repository::init(storage, Arc::clone(&random) as _, &Protect::Open, chunk);
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers,
        mechanism: VmMechanism::FileHandle,
        accept_unverified_regions: true,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
    };
    let (repository, clock) = (repository.unwrap(), SteppingClock::new(UnixTime(0)));
    let (repository, clock) = (Arc::new(repository), Arc::new(clock));
    RepositoryProvider::new(repository, random, clock, Arc::new(Quiet), options)
}

fn device() -> DeviceName {
    "drive-scsi0".parse().unwrap()
}

/// Backs the disk up; where it is not dirty, the provider would read other bytes.
fn back_up(
    provider: &dyn Provider,
    disk: &[u8],
    base: Option<(&ArchiveName, Vec<Region>)>,
) -> ArchiveName {
    let size = disk.len() as u64;
    let mut job = provider.start_job(UnixTime(0)).unwrap();
    let mut vm = job.start_vm(&"100".parse().unwrap(), UnixTime(0)).unwrap();
    let bitmaps = base.iter().map(|(base, _)| BitmapInfo {
        name: "bitmap".parse().unwrap(),
        base: Some((*base).clone()),
    });
    let bitmaps = bitmaps.collect();
    let volumes = BTreeMap::from([(device(), VolumeInfo { size, bitmaps })]);
    vm.choose_bitmaps(&Incarnation::default(), &volumes)
        .unwrap();
    let bitmap = match base {
        Some(_) => BitmapMode::Reuse,
        None => BitmapMode::New,
    };
    let whole = || vec![Region::new(0, size).unwrap()];
    let regions = base.map_or_else(whole, |(_, dirty)| dirty);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&vec![0xbd; disk.len()], 0).unwrap();
    for region in &regions {
        let [from, to] = [region.offset(), region.end()].map(|at| usize::try_from(at).unwrap());
        file.write_all_at(&disk[from..to], region.offset()).unwrap();
    }
    let dirty = Box::new(regions.into_iter().map(Ok));
    let access = SnapshotAccess::FileHandle { file, dirty };
    let volume = Volume {
        size,
        bitmap,
        access,
    };
    vm.run(VmSource {
        guest_config: Vec::new(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([(device(), volume)]),
    })
    .unwrap();
    let name = vm.archive_name().clone();
    vm.finish(&Outcome::Success).unwrap();
    name
}

fn restored(provider: &dyn Provider, archive: &ArchiveName) -> Vec<u8> {
    let archive = provider.open_archive(archive).unwrap();
    let mut restore = archive.restore_vm().unwrap();
    let reader = restore.open_volume(&device()).unwrap();
    let mut bytes = vec![0xee; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn every_archive_of_a_chain_is_the_disk_as_it_was() {
    let chunks = [limits::CHUNK_MIN, 1 << 20, limits::CHUNK_MAX];
    for seed in 1..=12u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let chunk = chunks[dice.below(3)];
        let workers = 1 + dice.below(4);
        let provider = provider(chunk, workers);
        // Up to three lowest nodes of the smallest chunks, and any number of bytes.
        let size = 1 + dice.below(12 << 20);
        let mut disk = vec![0; size];
        for region in dice.regions(size) {
            let [from, to] = [region.offset(), region.end()].map(|at| usize::try_from(at).unwrap());
            dice.fill(&mut disk[from..to]);
        }
        let mut archives = vec![(back_up(&provider, &disk, None), disk.clone())];
        for _ in 0..4 {
            let dirty = dice.regions(size);
            for region in &dirty {
                let [from, to] =
                    [region.offset(), region.end()].map(|at| usize::try_from(at).unwrap());
                dice.fill(&mut disk[from..to]);
            }
            let (base, _) = archives.last().unwrap();
            archives.push((back_up(&provider, &disk, Some((base, dirty))), disk.clone()));
        }
        for (archive, disk) in &archives {
            let same = restored(&provider, archive) == *disk;
            assert!(same, "seed {seed}, chunks of {chunk}: {archive}");
        }
    }
}
