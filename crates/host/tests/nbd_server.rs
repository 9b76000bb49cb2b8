//! A QEMU has one NBD server: ours is stopped after a backup, and nobody else's ever is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod qemu;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use qemu::between::Moment;
use qemu::killed::{can_kill, kill_at};
use qemu::{DEVICE, Guest, Log, back_up, provider, request, restored};
use serde_json::json;
use snapkeep_host::recover;

/// `None` if there is nothing to test.
fn guest(test: &str) -> Option<Guest> {
    can_kill(test).then(|| Guest::new(true, "raw"))
}

/// Kills a backup of the guest at its command to start the server.
fn kill_at_the_start(test: &str, guest: &mut Guest, moment: Moment) {
    kill_at(test, guest, "nbd-server-start", moment);
}

/// Starts a server that is not ours.
fn foreign_server(guest: &mut Guest) -> PathBuf {
    let socket = guest.folder.path().join("foreign.nbd");
    let address = json!({"type": "unix", "data": {"path": socket}});
    guest.execute("nbd-server-start", &json!({"addr": address}));
    socket
}

fn nothing_is_left(guest: &mut Guest) {
    let ours = guest.ours();
    let nodes = ours.iter().filter(|name| !name.contains('@'));
    assert_eq!(nodes.count(), 0, "{ours:?}");
    assert_eq!(guest.folders(), 0);
}

fn a_backup_is_right(guest: &mut Guest) {
    let log = Log::default();
    let provider = provider(&log);
    let request = request(guest.folder.path());
    let finished = back_up(&mut guest.connect(), &provider, request, &log, None).unwrap();
    assert!(restored(&provider, &finished.archive, DEVICE) == guest.model);
}

#[test]
fn the_server_of_a_backup_that_was_killed_is_stopped() {
    let test = "the_server_of_a_backup_that_was_killed_is_stopped";
    // The server runs, and the backup has not heard of it yet.
    let Some(mut guest) = guest(test) else {
        return;
    };
    kill_at_the_start(test, &mut guest, Moment::After);
    assert!(recover(&mut guest.connect(), &Log::default()).unwrap());
    nothing_is_left(&mut guest);
    // This would be refused if a server ran.
    foreign_server(&mut guest);
    guest.execute("nbd-server-stop", &json!({}));
    a_backup_is_right(&mut guest);
}

#[test]
fn the_server_of_a_killed_backup_whose_folder_was_removed_is_stopped() {
    let test = "the_server_of_a_killed_backup_whose_folder_was_removed_is_stopped";
    let Some(mut guest) = guest(test) else {
        return;
    };
    kill_at_the_start(test, &mut guest, Moment::After);
    for entry in std::fs::read_dir(guest.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("snapkeep-run-") {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    assert!(recover(&mut guest.connect(), &Log::default()).unwrap());
    nothing_is_left(&mut guest);
    a_backup_is_right(&mut guest);
}

#[test]
fn a_server_that_was_started_after_the_backup_was_killed_goes_on() {
    let test = "a_server_that_was_started_after_the_backup_was_killed_goes_on";
    let Some(mut guest) = guest(test) else {
        return;
    };
    kill_at_the_start(test, &mut guest, Moment::Before);
    let foreign = foreign_server(&mut guest);
    assert!(recover(&mut guest.connect(), &Log::default()).unwrap());
    nothing_is_left(&mut guest);
    UnixStream::connect(foreign).unwrap();
}

#[test]
fn a_server_that_was_in_the_way_of_a_backup_that_was_killed_goes_on() {
    let test = "a_server_that_was_in_the_way_of_a_backup_that_was_killed_goes_on";
    let Some(mut guest) = guest(test) else {
        return;
    };
    // The backup is killed when its own start was refused.
    let foreign = foreign_server(&mut guest);
    kill_at_the_start(test, &mut guest, Moment::After);
    assert!(recover(&mut guest.connect(), &Log::default()).unwrap());
    nothing_is_left(&mut guest);
    UnixStream::connect(foreign).unwrap();
}

#[test]
fn a_server_that_somebody_put_in_the_place_of_ours_goes_on() {
    let test = "a_server_that_somebody_put_in_the_place_of_ours_goes_on";
    let Some(guest) = guest(test) else {
        return;
    };
    let mut qemu = guest.connect();
    let log = Log::default();
    let request = request(guest.folder.path());
    let guest = Arc::new(Mutex::new(guest));
    let other = Arc::clone(&guest);
    let meanwhile = Box::new(move || {
        let mut guest = other.lock().unwrap();
        guest.execute("nbd-server-stop", &json!({}));
        foreign_server(&mut guest);
    });
    let done = back_up(&mut qemu, &provider(&log), request, &log, Some(meanwhile));
    assert!(done.is_err(), "{done:?}");
    let mut guest = guest.lock().unwrap();
    nothing_is_left(&mut guest);
    UnixStream::connect(guest.folder.path().join("foreign.nbd")).unwrap();
}

#[test]
fn a_server_that_is_in_the_way_is_named_and_goes_on() {
    let test = "a_server_that_is_in_the_way_is_named_and_goes_on";
    let Some(mut guest) = guest(test) else {
        return;
    };
    let foreign = foreign_server(&mut guest);
    let log = Log::default();
    let request = request(guest.folder.path());
    let error = back_up(&mut guest.connect(), &provider(&log), request, &log, None).unwrap_err();
    assert!(
        error.chain().contains("name its socket"),
        "{}",
        error.chain()
    );
    nothing_is_left(&mut guest);
    UnixStream::connect(foreign).unwrap();
}
