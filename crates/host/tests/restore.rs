//! Restores of a disk to files, through `qemu-img`, and over NBD.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use disk::{Disk, MIB, User, options, run, tool};
use snapkeep_api::{
    Cancel, Clock, ErrorKind, Part, Region, SystemClock, Take, Throttle, VolumeReader,
};
use snapkeep_host::restore::{RestoreOptions, VolumeExport, convert, restore_raw};
use snapkeep_nbd::{Address, Export, Server, ServerOptions};
use tempfile::TempDir;

fn raw(disk: &Disk, target: &Path, options: &RestoreOptions) -> snapkeep_api::Result<()> {
    restore_raw(disk, target, options, &SystemClock::new(), &|_| {}).map(|restored| {
        assert_eq!(restored.size, disk.size());
    })
}

fn through_qemu_img(
    disk: Disk,
    target: &Path,
    format: &str,
    options: &RestoreOptions,
) -> snapkeep_api::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let device = "drive-scsi0".parse().unwrap();
    convert(
        Arc::new(disk),
        &device,
        target,
        format,
        options,
        &clock,
        &|_| {},
    )
    .map(drop)
}

fn is_empty(folder: &TempDir) -> bool {
    fs::read_dir(folder.path()).unwrap().next().is_none()
}

#[test]
fn a_raw_file_has_the_disks_bytes_and_holes() {
    let folder = TempDir::new().unwrap();
    let disk = Disk::new();
    let target = folder.path().join("disk.raw");
    raw(&disk, &target, &options()).unwrap();
    assert!(fs::read(&target).unwrap() == disk.bytes);
    let found = fs::metadata(&target).unwrap();
    assert!(found.blocks() * 512 < found.len(), "it has no holes");
    assert_eq!(found.mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_read_and_what_is_done_are_told() {
    let folder = TempDir::new().unwrap();
    let disk = Disk::new();
    let most = std::sync::atomic::AtomicU64::new(0);
    let observer = |done| {
        most.fetch_max(done, std::sync::atomic::Ordering::SeqCst);
    };
    let target = folder.path().join("disk.raw");
    let clock = SystemClock::new();
    let restored = restore_raw(&disk, &target, &options(), &clock, &observer).unwrap();
    assert_eq!(most.into_inner(), disk.size());
    assert_eq!(restored.data, 5 * MIB + 512);
}

#[test]
fn a_file_that_exists_is_not_touched_unless_that_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("disk.raw");
    fs::write(&target, "precious").unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o640)).unwrap();
    let error = raw(&Disk::new(), &target, &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.chain().contains("exists"), "{}", error.chain());
    assert_eq!(fs::read(&target).unwrap(), b"precious");

    let overwrite = RestoreOptions {
        overwrite: true,
        ..options()
    };
    raw(&Disk::new(), &target, &overwrite).unwrap();
    assert!(fs::read(&target).unwrap() == Disk::new().bytes);
    assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_file_that_qemu_has_open_is_not_replaced() {
    let test = "a_file_that_qemu_has_open_is_not_replaced";
    if !tool(test, "qemu-io") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("disk.raw");
    fs::write(&target, "precious").unwrap();
    let user = User::of(&target);
    let overwrite = RestoreOptions {
        overwrite: true,
        ..options()
    };
    let error = raw(&Disk::new(), &target, &overwrite).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for words in ["disk.raw", "in use by a running QEMU"] {
        assert!(error.chain().contains(words), "{}", error.chain());
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(user);

    // Neither if it is opened while the restore runs.
    let user = std::sync::OnceLock::new();
    let observer = |_| {
        user.get_or_init(|| std::sync::Mutex::new(User::of(&target)));
    };
    let clock = SystemClock::new();
    restore_raw(&Disk::new(), &target, &overwrite, &clock, &observer).unwrap_err();
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    drop(user);
    raw(&Disk::new(), &target, &overwrite).unwrap();
}

#[test]
fn a_restore_that_fails_leaves_what_was_there() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("disk.raw");
    let error = raw(&Disk::damaged(), &target, &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(is_empty(&folder));

    fs::write(&target, "precious").unwrap();
    let overwrite = RestoreOptions {
        overwrite: true,
        ..options()
    };
    raw(&Disk::damaged(), &target, &overwrite).unwrap_err();
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A disk of which a part is not delivered, or a part that nobody asked for.
struct Delivered {
    disk: Disk,
    left_out: bool,
}

impl VolumeReader for Delivered {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> snapkeep_api::Result<()> {
        self.disk.read_at(offset, buffer)
    }

    fn next_data(&self, offset: u64) -> snapkeep_api::Result<Option<Region>> {
        self.disk.next_data(offset)
    }

    fn deliver(&self, range: Region, threads: usize, take: Take<'_>) -> snapkeep_api::Result<()> {
        if !self.left_out {
            let (offset, bytes) = (self.size() - 1, &[1; 2][..]);
            return take(Part::Data { offset, bytes });
        }
        let some = |part: Part<'_>| {
            if matches!(part, Part::Data { offset, .. } if offset > 0) {
                return Ok(());
            }
            take(part)
        };
        self.disk.deliver(range, threads, &some)
    }
}

#[test]
fn a_disk_that_is_delivered_in_part_or_too_far_is_no_restored_disk() {
    for left_out in [true, false] {
        let folder = TempDir::new().unwrap();
        let target = folder.path().join("disk.raw");
        let disk = Delivered {
            disk: Disk::new(),
            left_out,
        };
        let (options, clock) = (options(), SystemClock::new());
        let error = restore_raw(&disk, &target, &options, &clock, &|_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(is_empty(&folder));
    }
}

#[test]
fn a_cancelled_restore_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let cancel = Cancel::new();
    let options = RestoreOptions {
        cancel: cancel.clone(),
        ..options()
    };
    let target = folder.path().join("disk");
    let disk = Disk::cancelling(cancel);
    let error = raw(&disk, &target, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    if tool("a_cancelled_restore_leaves_nothing", "qemu-img") {
        let error = through_qemu_img(disk, &target, "qcow2", &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
    assert!(is_empty(&folder));
}

#[test]
fn a_link_keeps_pointing_to_the_file_that_is_replaced() {
    let folder = TempDir::new().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    fs::write(&file, "old").unwrap();
    symlink("file", &link).unwrap();
    let overwrite = RestoreOptions {
        overwrite: true,
        ..options()
    };
    raw(&Disk::new(), &link, &overwrite).unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("file"));
    assert!(fs::read(&file).unwrap() == Disk::new().bytes);

    let nowhere = folder.path().join("nowhere");
    symlink("missing", &nowhere).unwrap();
    let error = raw(&Disk::new(), &nowhere, &options()).unwrap_err();
    assert!(error.chain().contains("symbolic link"), "{}", error.chain());
}

#[test]
fn a_place_that_cannot_be_is_named() {
    let folder = TempDir::new().unwrap();
    let error = raw(&Disk::new(), folder.path(), &options()).unwrap_err();
    assert!(
        error.chain().contains("it is a folder"),
        "{}",
        error.chain()
    );
    let error = raw(&Disk::new(), Path::new("/dev/null"), &options()).unwrap_err();
    assert!(error.chain().contains("neither"), "{}", error.chain());
    let target = folder.path().join("missing/disk.raw");
    let error = raw(&Disk::new(), &target, &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    assert!(
        error.chain().contains("missing/disk.raw"),
        "{}",
        error.chain()
    );
}

#[test]
fn a_second_restore_to_the_same_place_is_refused() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join(".disk.raw.snapkeep-partial")).unwrap();
    let error = raw(&Disk::new(), &folder.path().join("disk.raw"), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.chain().contains("another restore"),
        "{}",
        error.chain()
    );
}

#[test]
fn qemu_img_writes_a_format_with_the_same_bytes() {
    if !tool("qemu_img_writes_a_format_with_the_same_bytes", "qemu-img") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (original, target) = (folder.path().join("a.raw"), folder.path().join("disk"));
    fs::write(&original, Disk::new().bytes).unwrap();
    for format in ["qcow2", "vmdk", "raw"] {
        through_qemu_img(Disk::new(), &target, format, &options()).unwrap();
        let files = [original.to_str().unwrap(), target.to_str().unwrap()];
        let args = [&["compare", "-f", "raw", "-F", format], &files[..]].concat();
        run("qemu-img", &args);
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn the_error_of_the_archive_is_told_not_that_of_qemu_img() {
    if !tool(
        "the_error_of_the_archive_is_told_not_that_of_qemu_img",
        "qemu-img",
    ) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("disk.qcow2");
    let error = through_qemu_img(Disk::damaged(), &target, "qcow2", &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(is_empty(&folder));
}

#[test]
fn a_format_that_is_none_is_refused() {
    if !tool("a_format_that_is_none_is_refused", "qemu-img") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("disk");
    for format in ["-o", "", "RAW", "nosuch"] {
        let error = through_qemu_img(Disk::new(), &target, format, &options()).unwrap_err();
        assert!(error.chain().contains(format), "{}", error.chain());
        assert!(is_empty(&folder));
    }
}

#[test]
fn nbd_clients_see_the_disks_bytes_and_holes() {
    let test = "nbd_clients_see_the_disks_bytes_and_holes";
    if !tool(test, "nbdcopy") || !tool(test, "nbdinfo") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let clock = Arc::new(SystemClock::new());
    let export = VolumeExport::new(
        Arc::new(Disk::new()),
        Throttle::new(None),
        clock,
        Cancel::new(),
    );
    let exports = BTreeMap::from([("a disk".to_owned(), Arc::new(export) as Arc<dyn Export>)]);
    let address = Address::Unix(folder.path().join("socket"));
    let server = Server::bind(address, exports, ServerOptions::default()).unwrap();
    let uri = server.address().uri("a disk");
    let copy = folder.path().join("copy");
    run("nbdcopy", &[&uri, copy.to_str().unwrap()]);
    assert!(fs::read(&copy).unwrap() == Disk::new().bytes);
    let map = run("nbdinfo", &["--map", "--json", &uri]);
    let types: Vec<_> = (map.lines())
        .filter_map(|line| {
            line.split("\"type\": ")
                .nth(1)?
                .split([',', ' ', '}'])
                .next()
        })
        .collect();
    assert_eq!(types, ["0", "3", "0", "3"], "{map}");
}
