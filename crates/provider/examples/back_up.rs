//! Backs up one disk from snapshot access that is already there, with no hypervisor around it:
//! what the benchmark measures. Prints what was done as lines of `NAME VALUE`.
//!
//! `back_up REPOSITORY KEY-FILE file PATH SIZE` reads a raw image by a file handle;
//! `back_up REPOSITORY KEY-FILE nbd SOCKET SIZE [BASE-ARCHIVE BITMAP]` reads the export
//! `drive-scsi0`, where a base is given only what its dirty bitmap names.

#![allow(
    clippy::print_stdout,
    reason = "a program whose purpose is to print what it did"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use snapkeep_api::{
    BitmapInfo, BitmapMode, BitmapRequest, Clock, DeviceName, Incarnation, Level, Outcome,
    Provider, Region, SnapshotAccess, SystemClock, TaskLog, VmMechanism, VmSource, Volume,
    VolumeInfo,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{Counted, LocalStorage, Repository, Storage, SystemRandom, Tally, Unlock};

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (repository, key, mechanism, place, size, base) = match arguments[..] {
        [repository, key, mechanism, place, size] => {
            (repository, key, mechanism, place, size, None)
        }
        [repository, key, mechanism, place, size, archive, bitmap] => (
            repository,
            key,
            mechanism,
            place,
            size,
            Some((archive, bitmap)),
        ),
        _ => {
            return Err(
                "usage: back_up REPOSITORY KEY-FILE file|nbd PLACE SIZE [BASE BITMAP]".into(),
            );
        }
    };
    let size: u64 = size.parse()?;
    let device: DeviceName = "drive-scsi0".parse()?;
    let (mechanism, access) = match mechanism {
        "file" => {
            let dirty = Box::new((size > 0).then(|| Region::new(0, size)).into_iter());
            let file = File::open(place)?;
            let access = SnapshotAccess::FileHandle { file, dirty };
            (VmMechanism::FileHandle, access)
        }
        "nbd" => {
            let bitmap = base.map(|(_, bitmap)| bitmap.parse()).transpose()?;
            let socket = place.into();
            (VmMechanism::Nbd, SnapshotAccess::Nbd { socket, bitmap })
        }
        other => return Err(format!("the mechanism {other:?} is neither file nor nbd").into()),
    };
    let now = SystemClock::new().now();
    let storage = Arc::new(Counted::new(Arc::new(LocalStorage::open(Path::new(
        repository,
    ))?)));
    let provider = provider(Arc::clone(&storage) as _, key, mechanism)?;

    let mut job = provider.start_job(now)?;
    let mut vm = job.start_vm(&"100".parse()?, now)?;
    let bitmaps = match base {
        None => Vec::new(),
        Some((archive, bitmap)) => vec![BitmapInfo {
            name: bitmap.parse()?,
            base: Some(archive.parse()?),
        }],
    };
    let volumes = BTreeMap::from([(device.clone(), VolumeInfo { size, bitmaps })]);
    let requests = vm.choose_bitmaps(&Incarnation::default(), &volumes)?;
    let bitmap = match (requests.get(&device), base) {
        (Some(BitmapRequest::Use(_)), Some(_)) => BitmapMode::Reuse,
        (Some(BitmapRequest::New), None) => BitmapMode::New,
        (answer, _) => return Err(format!("the provider answered {answer:?}").into()),
    };
    let volume = Volume {
        size,
        bitmap,
        access,
    };
    let stats = vm.run(VmSource {
        guest_config: b"scsi0: bench\n".to_vec(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([(device, volume)]),
    })?;
    println!("archive {}", vm.archive_name());
    println!("read {}", stats.read);
    println!("new {}", stats.new);
    println!("stored {}", stats.stored);
    vm.finish(&Outcome::Success)?;
    job.finish(&Outcome::Success)?;
    print_tally(&storage.take());
    Ok(())
}

fn print_tally(tally: &Tally) {
    println!("data {}", tally.data_bytes);
    println!("metadata {}", tally.metadata_bytes);
    println!("puts {}", tally.puts);
    println!("operations {}", tally.operations());
    println!("fetched {}", tally.read_bytes);
}

/// The provider over the repository in this storage.
fn provider(
    storage: Arc<dyn Storage>,
    key: &str,
    mechanism: VmMechanism,
) -> Result<RepositoryProvider, Box<dyn Error>> {
    let random = Arc::new(SystemRandom);
    let unlock = Unlock::KeyFile(std::fs::read_to_string(key)?.parse()?);
    let repository = Arc::new(Repository::open(
        storage,
        Arc::clone(&random) as _,
        &unlock,
    )?);
    let clock = Arc::new(SystemClock::new());
    let options = Options {
        namespace: "bench".parse()?,
        workers: std::thread::available_parallelism()?.get() + 1,
        mechanism,
        accept_unverified_regions: false,
        change_detection: snapkeep_provider::ChangeDetection::Metadata { audit: 0 },
        storage: None,
    };
    Ok(RepositoryProvider::new(
        repository,
        random,
        clock,
        Arc::new(Quiet),
        options,
    ))
}
