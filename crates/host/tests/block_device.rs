//! Restores to a block device: a loop device over a file that is full of somebody else's data.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

mod disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use disk::{Disk, MIB, User, options, run, tool};
use snapkeep_api::{Cancel, Clock, Error, ErrorKind, SystemClock};
use snapkeep_host::restore::{RestoreOptions, convert, restore_raw};
use tempfile::TempDir;

/// A loop device; detached when dropped.
struct Loop {
    _folder: TempDir,
    backing: PathBuf,
    device: String,
}

impl Loop {
    /// With so many bytes of 0xee; `None`, said aloud, where no loop device can be made.
    fn new(test: &str, size: u64) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let backing = folder.path().join("backing");
        fs::write(&backing, vec![0xee; usize::try_from(size).unwrap()]).unwrap();
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&backing)
            .output();
        match made {
            Ok(output) if output.status.success() => Some(Self {
                _folder: folder,
                backing,
                device: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            }),
            _ => {
                eprintln!(
                    "SKIP: block_device::{test}: needs loop devices and the right to make one"
                );
                None
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.device).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.device]);
    }
}

fn overwriting() -> RestoreOptions {
    RestoreOptions {
        overwrite: true,
        ..options()
    }
}

fn raw(disk: &Disk, target: &str, options: &RestoreOptions) -> Result<(), Error> {
    let clock = SystemClock::new();
    restore_raw(disk, Path::new(target), options, &clock, &|_| {}).map(drop)
}

fn assert_holds(device: &Loop, disk: &Disk) {
    let bytes = device.bytes();
    assert!(bytes[..disk.bytes.len()] == disk.bytes[..]);
    assert!(bytes[disk.bytes.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn nothing_stale_is_left_on_a_larger_device() {
    let Some(device) = Loop::new("nothing_stale_is_left_on_a_larger_device", 16 * MIB) else {
        return;
    };
    raw(&Disk::new(), &device.device, &overwriting()).unwrap();
    assert_holds(&device, &Disk::new());
    assert!(fs::metadata(&device.backing).unwrap().len() == 16 * MIB);
}

#[test]
fn qemu_img_leaves_nothing_stale_either() {
    let test = "qemu_img_leaves_nothing_stale_either";
    let Some(device) = Loop::new(test, 16 * MIB).filter(|_| tool(test, "qemu-img")) else {
        return;
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let name = "drive-scsi0".parse().unwrap();
    let (volume, target) = (Arc::new(Disk::new()), Path::new(&device.device));
    convert(
        volume,
        &name,
        target,
        "raw",
        &overwriting(),
        &clock,
        &|_| {},
    )
    .unwrap();
    assert_holds(&device, &Disk::new());
}

#[test]
fn a_device_is_overwritten_only_when_that_is_asked_for() {
    let test = "a_device_is_overwritten_only_when_that_is_asked_for";
    let Some(device) = Loop::new(test, 16 * MIB) else {
        return;
    };
    let error = raw(&Disk::new(), &device.device, &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(device.bytes().iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_device_that_is_too_small_is_not_touched() {
    let Some(device) = Loop::new("a_device_that_is_too_small_is_not_touched", 12 * MIB) else {
        return;
    };
    let error = raw(&Disk::new(), &device.device, &overwriting()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.chain().contains("12582912"), "{}", error.chain());
    assert!(device.bytes().iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_device_in_use_is_not_touched() {
    let Some(device) = Loop::new("a_device_in_use_is_not_touched", 16 * MIB) else {
        return;
    };
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::EXCL;
    let _user = rustix::fs::open(&device.device, flags, rustix::fs::Mode::empty()).unwrap();
    let error = raw(&Disk::new(), &device.device, &overwriting()).unwrap_err();
    assert!(error.chain().contains("in use"), "{}", error.chain());
    assert!(device.bytes().iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_device_that_qemu_has_open_is_not_touched() {
    let test = "a_device_that_qemu_has_open_is_not_touched";
    let Some(device) = Loop::new(test, 16 * MIB).filter(|_| tool(test, "qemu-io")) else {
        return;
    };
    let user = User::of(Path::new(&device.device));
    let error = raw(&Disk::new(), &device.device, &overwriting()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for words in [&device.device, "in use by a running QEMU"] {
        assert!(error.chain().contains(words), "{}", error.chain());
    }
    assert!(device.bytes().iter().all(|byte| *byte == 0xee));
    drop(user);
    raw(&Disk::new(), &device.device, &overwriting()).unwrap();
}

#[test]
fn half_a_disk_does_not_look_like_a_whole_one() {
    let Some(device) = Loop::new("half_a_disk_does_not_look_like_a_whole_one", 16 * MIB) else {
        return;
    };
    let error = raw(&Disk::damaged(), &device.device, &overwriting()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.chain().contains("only a part"), "{}", error.chain());
    assert!(device.bytes()[..512].iter().all(|byte| *byte == 0));
}

fn through_qemu_img(disk: Disk, device: &Loop, format: &str, options: &RestoreOptions) -> Error {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let name = "drive-scsi0".parse().unwrap();
    let target = Path::new(&device.device);
    convert(
        Arc::new(disk),
        &name,
        target,
        format,
        options,
        &clock,
        &|_| {},
    )
    .unwrap_err()
}

#[test]
fn half_a_disk_through_qemu_img_does_not_look_like_a_whole_one() {
    let test = "half_a_disk_through_qemu_img_does_not_look_like_a_whole_one";
    let Some(device) = Loop::new(test, 16 * MIB).filter(|_| tool(test, "qemu-img")) else {
        return;
    };
    let cancel = Cancel::new();
    let stopping = RestoreOptions {
        cancel: cancel.clone(),
        ..overwriting()
    };
    let ways = [
        (Disk::damaged(), overwriting(), ErrorKind::Corrupt),
        (Disk::cancelling(cancel), stopping, ErrorKind::Cancelled),
    ];
    for (disk, options, kind) in ways {
        let error = through_qemu_img(disk, &device, "raw", &options);
        assert_eq!(error.kind(), kind);
        assert!(error.chain().contains("only a part"), "{}", error.chain());
        assert!(device.bytes()[..1 << 20].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn qemu_img_that_never_came_to_the_disk_leaves_the_device() {
    let test = "qemu_img_that_never_came_to_the_disk_leaves_the_device";
    let Some(device) = Loop::new(test, 16 * MIB).filter(|_| tool(test, "qemu-img")) else {
        return;
    };
    let error = through_qemu_img(Disk::new(), &device, "nonsense", &overwriting());
    assert!(error.chain().contains("nonsense"), "{}", error.chain());
    assert!(!error.chain().contains("a part"), "{}", error.chain());
    assert!(device.bytes().iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_cancelled_restore_says_what_the_device_holds() {
    let test = "a_cancelled_restore_says_what_the_device_holds";
    let Some(device) = Loop::new(test, 16 * MIB) else {
        return;
    };
    let cancel = Cancel::new();
    let options = RestoreOptions {
        cancel: cancel.clone(),
        ..overwriting()
    };
    let error = raw(&Disk::cancelling(cancel), &device.device, &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(error.chain().contains("only a part"), "{}", error.chain());
}
