//! What a killed backup leaves in QEMU is taken back, and what a running one has is let alone.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking; the child that is killed tells when"
)]

mod qemu;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use qemu::{DEVICE, Guest, Log, MIB, back_up, provider, request, restored, tool};
use rustix::fs::FlockOperation;
use serde_json::json;
use snapkeep_api::{BitmapMode, ErrorKind, SystemClock};
use snapkeep_host::{Qemu, recover};

/// Names the folder of the guest that the child is to back up.
const CHILD: &str = "SNAPKEEP_TEST_KILLED_BACKUP";
const FROZEN: &str = "the disks are frozen";

/// A backup that says when the disks are frozen, and then never ends.
fn hang(folder: &Path) {
    let clock = Arc::new(SystemClock::new());
    let mut qemu = Qemu::connect(&folder.join("backup.qmp"), clock).unwrap();
    let nbd = folder.join("nbd");
    if nbd.exists() {
        qemu = qemu.with_nbd_server(&nbd);
    }
    let log = Log::default();
    let meanwhile = Box::new(|| {
        println!("{FROZEN}");
        loop {
            std::thread::park();
        }
    });
    let done = back_up(
        &mut qemu,
        &provider(&log),
        request(folder),
        &log,
        Some(meanwhile),
    );
    panic!("it ended: {done:?}");
}

fn a_killed_backup(test: &str, system: bool) {
    if let Some(folder) = std::env::var_os(CHILD) {
        hang(Path::new(&folder));
    }
    let program = if system {
        "qemu-system-x86_64"
    } else {
        "qemu-storage-daemon"
    };
    if !tool(test, program) || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(system, "raw");
    let log = Log::default();
    let provider = provider(&log);
    let folder = guest.folder.path().to_owned();
    back_up(
        &mut guest.connect(),
        &provider,
        request(&folder),
        &log,
        None,
    )
    .unwrap();
    guest.write(4 * MIB, 10, 4);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, &folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(FROZEN)));
    guest.write(5 * MIB, MIB, 5);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(guest.ours().len() > 4, "{:?}", guest.ours());
    assert_eq!(guest.folders(), 1);

    let mut qemu = guest.connect();
    assert!(recover(&mut qemu, &log).unwrap());
    assert!(!recover(&mut qemu, &log).unwrap());
    assert_eq!(guest.folders(), 0);
    guest.write(6 * MIB, 10, 6);
    let finished = back_up(&mut qemu, &provider, request(&folder), &log, None).unwrap();
    assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
    assert_eq!(
        finished.bitmaps[&DEVICE.parse().unwrap()],
        BitmapMode::Reuse
    );
}

#[test]
fn a_killed_backup_of_a_storage_daemon_is_taken_back() {
    a_killed_backup("a_killed_backup_of_a_storage_daemon_is_taken_back", false);
}

#[test]
fn a_killed_backup_of_an_emulated_machine_is_taken_back() {
    a_killed_backup("a_killed_backup_of_an_emulated_machine_is_taken_back", true);
}

/// What a backup has at first: a folder, with the lock that says that it runs, and a node.
fn begin(guest: &mut Guest) -> (PathBuf, File) {
    let folder = guest.folder.path().join("snapkeep-run-test");
    std::fs::create_dir(&folder).unwrap();
    let image = folder.join("fleece-0");
    File::create(&image).unwrap().set_len(MIB).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let file = json!({"driver": "file", "filename": image});
    let node = json!({"driver": "raw", "node-name": "snapkeep-fleece-0", "file": file});
    guest.execute("blockdev-add", &node);
    (folder, lock)
}

#[test]
fn a_guest_that_a_killed_backup_paused_goes_on() {
    let test = "a_guest_that_a_killed_backup_paused_goes_on";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    let (folder, lock) = begin(&mut guest);
    guest.execute(
        "blockdev-add",
        &json!({"driver": "null-co", "node-name": "snapkeep-paused"}),
    );
    guest.execute("stop", &json!({}));
    let mut qemu = guest.connect();
    let error = recover(&mut qemu, &Log::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "it still runs");
    assert_eq!(
        guest.execute("query-status", &json!({}))["status"],
        "paused"
    );
    drop(lock);
    assert!(recover(&mut qemu, &Log::default()).unwrap());
    assert_eq!(
        guest.execute("query-status", &json!({}))["status"],
        "running"
    );
    assert!(guest.ours().is_empty());
    assert!(!folder.exists());
}

#[test]
fn a_lock_that_is_none_ends_the_recovery_and_is_not_followed() {
    let test = "a_lock_that_is_none_ends_the_recovery_and_is_not_followed";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    let (folder, lock) = begin(&mut guest);
    drop(lock);
    let at = folder.join("lock");
    let elsewhere = guest.folder.path().join("elsewhere");
    std::fs::write(&elsewhere, "").unwrap();
    for kind in ["link", "pipe"] {
        std::fs::remove_file(&at).unwrap();
        if kind == "link" {
            std::os::unix::fs::symlink(&elsewhere, &at).unwrap();
        } else {
            qemu::run("mkfifo", &[at.to_str().unwrap()]);
        }
        let error = recover(&mut guest.connect(), &Log::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{kind}");
        assert!(
            error.chain().contains("snapkeep-run-test"),
            "{}",
            error.chain()
        );
        assert_eq!(guest.ours(), ["snapkeep-fleece-0"], "{kind}");
    }
    // As the error says.
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(recover(&mut guest.connect(), &Log::default()).unwrap());
    assert!(guest.ours().is_empty());
}

#[test]
fn a_second_backup_at_once_is_refused_and_harms_nothing() {
    let test = "a_second_backup_at_once_is_refused_and_harms_nothing";
    if !tool(test, "qemu-storage-daemon") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(false, "raw");
    let (_, _lock) = begin(&mut guest);
    let log = Log::default();
    let request = request(guest.folder.path());
    let error = back_up(&mut guest.connect(), &provider(&log), request, &log, None).unwrap_err();
    assert!(
        error.chain().contains("another backup"),
        "{}",
        error.chain()
    );
    assert_eq!(guest.ours(), ["snapkeep-fleece-0"]);
}

#[test]
fn a_guest_that_was_paused_stays_paused() {
    let test = "a_guest_that_was_paused_stays_paused";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    guest.execute("stop", &json!({}));
    let log = Log::default();
    let provider = provider(&log);
    let request = request(guest.folder.path());
    let finished = back_up(&mut guest.connect(), &provider, request, &log, None).unwrap();
    assert_eq!(
        guest.execute("query-status", &json!({}))["status"],
        "paused"
    );
    assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
}

#[test]
fn a_qemu_that_ends_during_a_backup_leaves_no_fleecing_images() {
    let test = "a_qemu_that_ends_during_a_backup_leaves_no_fleecing_images";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let guest = Guest::new(true, "raw");
    let mut qemu = guest.connect();
    let log = Log::default();
    let request = request(guest.folder.path());
    let guest = Arc::new(Mutex::new(guest));
    let killer = Arc::clone(&guest);
    let meanwhile = Box::new(move || killer.lock().unwrap().kill());
    let done = back_up(&mut qemu, &provider(&log), request, &log, Some(meanwhile));
    assert!(done.is_err(), "{done:?}");
    assert!(log.text().contains("QEMU ended"), "{}", log.text());
    assert_eq!(guest.lock().unwrap().folders(), 0);
}

#[test]
fn a_provider_that_panics_leaves_nothing() {
    let test = "a_provider_that_panics_leaves_nothing";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    let log = Log::default();
    let provider = provider(&log);
    let folder = guest.folder.path().to_owned();
    let mut qemu = guest.connect();
    let meanwhile = Box::new(|| panic!("out of order"));
    let request = || request(&folder);
    let error = back_up(&mut qemu, &provider, request(), &log, Some(meanwhile)).unwrap_err();
    assert!(error.chain().contains("panicked"), "{}", error.chain());
    assert!(guest.ours().is_empty(), "{:?}", guest.ours());
    assert_eq!(guest.folders(), 0);
    let finished = back_up(&mut qemu, &provider, request(), &log, None).unwrap();
    assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
}
