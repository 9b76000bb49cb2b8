//! The folder of a backup that died together with its QEMU is removed by the next backup, whatever
//! guest that is of; one that a backup or a QEMU uses is let alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::path::{Path, PathBuf};

use qemu::between::Moment;
use qemu::killed::{can_kill, kill_at};
use qemu::{DEVICE, Guest, Log, MIB, back_up, provider, request, restored, tool};

/// Backs a guest up with this fleecing folder; what the log says.
fn a_right_backup(guest: &Guest, fleecing: &Path) -> String {
    let log = Log::default();
    let provider = provider(&log);
    let finished = back_up(
        &mut guest.connect(),
        &provider,
        request(fleecing),
        &log,
        None,
    )
    .unwrap();
    assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
    log.text()
}

/// The lock of the only folder.
fn lock(fleecing: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(fleecing).unwrap();
    let lock = entries.find_map(|entry| {
        let lock = entry.unwrap().path().join("lock");
        lock.exists().then_some(lock)
    });
    lock.unwrap()
}

/// What names the guest's QEMU: the boot, the process, and when that began.
fn process_line(guest: &Guest) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let process = guest.process();
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let start = stat.rsplit(')').next().unwrap().split_whitespace().nth(19);
    let boot = boot.trim().replace('-', "");
    format!("{boot} {process} {}\n", start.unwrap())
}

#[test]
fn what_a_backup_left_that_was_killed_with_its_qemu_is_removed() {
    let test = "what_a_backup_left_that_was_killed_with_its_qemu_is_removed";
    if !can_kill(test) {
        return;
    }
    let mut guest = Guest::new(true, "raw");
    kill_at(test, &mut guest, "block-export-add", Moment::After);
    guest.write(2 * MIB, 5 * MIB, 8);
    guest.kill();
    guest.start();
    assert_eq!(guest.folders(), 1);
    let said = a_right_backup(&guest, guest.folder.path());
    assert!(
        said.contains("removed ") && said.contains("snapkeep-run-"),
        "{said}"
    );
    assert_eq!(guest.folders(), 0);
}

#[test]
fn the_folder_of_a_qemu_that_lives_stays() {
    let test = "the_folder_of_a_qemu_that_lives_stays";
    if !can_kill(test) {
        return;
    }
    let other = Guest::new(true, "raw");
    // QEMU locks an image only when something is written to it: before, its process tells. And the
    // process may not be known.
    for (command, moment, known) in [
        ("stop", Moment::Before, true),
        ("block-export-add", Moment::After, false),
    ] {
        let mut guest = Guest::new(true, "raw");
        kill_at(test, &mut guest, command, moment);
        // A backup that is to be killed is behind somebody else's socket, and does not know it.
        let line = if known {
            process_line(&guest)
        } else {
            String::new()
        };
        std::fs::write(lock(guest.folder.path()), line).unwrap();
        let said = a_right_backup(&other, guest.folder.path());
        assert_eq!(guest.folders(), 1, "{command}: {said}");
        let said = a_right_backup(&guest, guest.folder.path());
        assert!(said.contains("it is taken back"), "{command}: {said}");
        assert_eq!(guest.folders(), 0, "{command}");
    }
}

#[test]
fn the_folder_of_a_running_backup_stays() {
    let test = "the_folder_of_a_running_backup_stays";
    if !tool(test, "qemu-system-x86_64") || !tool(test, "qemu-img") {
        return;
    }
    let guest = Guest::new(true, "raw");
    let other = Guest::new(true, "raw");
    let folder = guest.folder.path().to_owned();
    let shared = folder.clone();
    let line = process_line(&guest);
    let meanwhile = Box::new(move || {
        assert_eq!(std::fs::read_to_string(lock(&shared)).unwrap(), line);
        a_right_backup(&other, &shared);
    });
    let log = Log::default();
    let provider = provider(&log);
    let mut qemu = guest.connect();
    let finished = back_up(
        &mut qemu,
        &provider,
        request(&folder),
        &log,
        Some(meanwhile),
    )
    .unwrap();
    assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
    assert!(finished.left.is_none());
    assert_eq!(guest.folders(), 0);
}
