//! Backups by the mechanism `nbd` from QEMU's own NBD server: full, then incremental by a dirty
//! bitmap, each restored and compared with what `qemu-img` reads.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use snapkeep_api::{
    ArchiveName, BackupStats, BitmapInfo, BitmapMode, DeviceName, ErrorKind, Incarnation, Level,
    Outcome, Provider, Result, SnapshotAccess, SteppingClock, TaskLog, UnixTime, VmMechanism,
    VmSource, Volume, VolumeInfo,
};
use snapkeep_provider::{Options, RepositoryProvider};
use snapkeep_repo::{KeyFile, MemoryStorage, Protect, Repository, Storage, SystemRandom, Unlock};

const SIZE: u64 = (8 << 20) + 512;
const BITMAP: &str = "since-the-first";

/// When all backups start: what is to wait for the next second waits in no time.
const START: UnixTime = UnixTime(1_800_000_000);

struct Quiet;

impl TaskLog for Quiet {
    fn log(&self, _level: Level, _message: &str) {}
}

fn provider() -> RepositoryProvider {
    let storage = Arc::new(MemoryStorage::new());
    let random = Arc::new(SystemRandom);
    provider_of(Repository::init(storage, random, &Protect::Open, 256 << 10).unwrap())
}

fn provider_of(repository: Repository) -> RepositoryProvider {
    let random = Arc::new(SystemRandom);
    let options = Options {
        namespace: "main".parse().unwrap(),
        storage: None,
        workers: 3,
        mechanism: VmMechanism::Nbd,
        accept_unverified_regions: false,
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

fn tool(name: &str, args: &[&str]) {
    let output = Command::new(name).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {errors}");
}

/// Whether the tools are here; a skip is printed, and is a failure in CI.
fn tools_are_here(test: &str) -> bool {
    for name in ["qemu-img", "qemu-io", "qemu-nbd"] {
        if Command::new(name).arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "{test} needs {name}");
            eprintln!("SKIP: {test}: needs {name}");
            return false;
        }
    }
    true
}

/// Serves the image until the last client leaves, and backs it up from there.
fn backup(
    provider: &dyn Provider,
    folder: &Path,
    image: &str,
    base: Option<&ArchiveName>,
    size: u64,
) -> Result<(ArchiveName, BackupStats)> {
    let socket = folder.join("nbd.sock");
    let path = socket.to_str().unwrap();
    let mut args = vec![
        "--fork",
        "-r",
        "-e",
        "8",
        "-f",
        "qcow2",
        "-x",
        "drive-scsi0",
        "-k",
        path,
    ];
    if base.is_some() {
        args.extend(["-B", BITMAP]);
    }
    let pid = folder.join("nbd.pid");
    args.extend(["--pid-file", pid.to_str().unwrap(), image]);
    tool("qemu-nbd", &args);
    let server = std::fs::read_to_string(pid).unwrap();
    let server = Pid::from_raw(server.trim().parse().unwrap()).unwrap();
    // `None` if it has ended already.
    let server = pidfd_open(server, PidfdFlags::empty()).ok();
    let device: DeviceName = "drive-scsi0".parse().unwrap();
    let mut job = provider.start_job(START)?;
    let mut vm = job.start_vm(&"100".parse().unwrap(), START)?;
    let name = vm.archive_name().clone();
    let bitmap = BitmapInfo {
        name: BITMAP.parse().unwrap(),
        base: base.cloned(),
    };
    let bitmaps = base.map(|_| bitmap).into_iter().collect();
    let volumes = BTreeMap::from([(device.clone(), VolumeInfo { size, bitmaps })]);
    vm.choose_bitmaps(&Incarnation::default(), &volumes)?;
    let mode = if base.is_some() {
        BitmapMode::Reuse
    } else {
        BitmapMode::New
    };
    let bitmap = Some(BITMAP.parse().unwrap());
    let access = SnapshotAccess::Nbd { socket, bitmap };
    let result = vm.run(VmSource {
        guest_config: b"scsi0: x".to_vec(),
        firewall_config: None,
        bandwidth_limit: None,
        volumes: BTreeMap::from([(
            device,
            Volume {
                size,
                bitmap: mode,
                access,
            },
        )]),
    });
    vm.finish(&Outcome::Success)?;
    job.finish(&Outcome::Success)?;
    // It has the image's lock until it ends, a little after its last client left.
    if let Some(server) = server {
        let limit = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let ended = poll(&mut [PollFd::new(&server, PollFlags::IN)], Some(&limit));
        assert_eq!(ended.unwrap(), 1, "qemu-nbd does not end");
    }
    result.map(|stats| (name, stats))
}

fn restored(provider: &dyn Provider, name: &ArchiveName) -> Vec<u8> {
    let mut restore = provider.open_archive(name).unwrap().restore_vm().unwrap();
    let reader = restore
        .open_volume(&"drive-scsi0".parse().unwrap())
        .unwrap();
    let mut bytes = vec![0xee; usize::try_from(reader.size()).unwrap()];
    reader.read_at(0, &mut bytes).unwrap();
    restore.finish().unwrap();
    bytes
}

fn contents(folder: &Path, image: &str) -> Vec<u8> {
    let raw = folder.join("raw");
    tool(
        "qemu-img",
        &[
            "convert",
            "-f",
            "qcow2",
            "-O",
            "raw",
            image,
            raw.to_str().unwrap(),
        ],
    );
    std::fs::read(raw).unwrap()
}

#[test]
fn full_and_incremental_backups_from_qemu_restore_byte_for_byte() {
    if !tools_are_here("full_and_incremental_backups_from_qemu_restore_byte_for_byte") {
        return;
    }
    let provider = provider();
    incrementally(&provider, &provider, 3 * 65_536);
}

/// The rest of a chunk that is partly dirty is the guest's disk then, as QEMU exports it.
#[test]
fn a_host_that_may_only_write_reads_whole_chunks() {
    if !tools_are_here("a_host_that_may_only_write_reads_whole_chunks") {
        return;
    }
    let storage = Arc::new(MemoryStorage::new());
    let random = || Arc::new(SystemRandom);
    let files = || Arc::clone(&storage) as Arc<dyn Storage>;
    let owner = Repository::init(files(), random(), &Protect::Open, 256 << 10).unwrap();
    let key = KeyFile::generate(&SystemRandom).unwrap();
    let protect = Protect::Writer(key.clone());
    owner.add_key(&protect, Some("node-a")).unwrap();
    let host = Repository::open(files(), random(), &Unlock::KeyFile(key)).unwrap();
    let (owner, host) = (provider_of(owner), provider_of(host));
    incrementally(&host, &owner, 3 * 65_536 + 2 * (256 << 10));
}

/// Backs up twice, reading at most so much the second time, and restores both.
fn incrementally(provider: &dyn Provider, owner: &dyn Provider, most: u64) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    let image = image.to_str().unwrap();
    tool(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", image, &SIZE.to_string()],
    );
    tool(
        "qemu-io",
        &[
            "-c",
            "write -P 17 100k 3M",
            "-c",
            "write -P 3 8M 512",
            image,
        ],
    );
    let (first, stats) = backup(provider, folder.path(), image, None, SIZE).unwrap();
    assert!(stats.read < 4 << 20, "holes are not read: {}", stats.read);
    let before = contents(folder.path(), image);
    tool(
        "qemu-img",
        &["bitmap", "--add", "-g", "65536", image, BITMAP],
    );
    // Finer than a chunk, a discard, and the very end.
    tool(
        "qemu-io",
        &[
            "-c",
            "write -P 9 70k 10k",
            "-c",
            "write -z 1M 64k",
            "-c",
            "write -P 4 8M 512",
            image,
        ],
    );
    let after = contents(folder.path(), image);
    let (second, stats) = backup(provider, folder.path(), image, Some(&first), SIZE).unwrap();
    assert!(
        stats.read <= most,
        "only what is dirty is read: {}",
        stats.read
    );
    assert!(restored(owner, &first) == before);
    assert!(restored(owner, &second) == after);
}

#[test]
fn an_export_of_another_size_makes_no_archive() {
    if !tools_are_here("an_export_of_another_size_makes_no_archive") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    let image = image.to_str().unwrap();
    tool(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", image, &SIZE.to_string()],
    );
    let error = backup(&provider(), folder.path(), image, None, SIZE + 512).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{}", error.chain());
}
