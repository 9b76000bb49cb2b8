//! A QEMU has one NBD server: ours is stopped after a backup, and nobody else's ever is.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking; the child that is killed tells when"
)]

mod qemu;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use qemu::between::{self, Moment};
use qemu::{DEVICE, Guest, Log, back_up, provider, request, restored, tool};
use serde_json::json;
use snapkeep_api::SystemClock;
use snapkeep_host::{Qemu, recover};

/// Names the folder of the guest that the child is to back up.
const CHILD: &str = "SNAPKEEP_TEST_KILLED_BACKUP";
/// The child says so where it is to be killed.
const HERE: &str = "the backup stands still";

/// A backup that stands still at its command to start the server.
fn stand_still(folder: &Path, moment: Moment) {
    let pass = move |_, command: &str, when| {
        if command == "nbd-server-start" && when == moment {
            println!("{HERE}");
            loop {
                std::thread::park();
            }
        }
        true
    };
    let socket = between::start(folder, "between", folder.join("backup.qmp"), pass);
    let mut qemu = Qemu::connect(&socket, Arc::new(SystemClock::new())).unwrap();
    let log = Log::default();
    let done = back_up(&mut qemu, &provider(&log), request(folder), &log, None);
    panic!("it ended: {done:?}");
}

/// Starts a backup of the guest, and kills it at its command to start the server.
fn kill_at_the_start(test: &str, guest: &mut Guest) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, guest.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(HERE)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(guest.ours().len() > 3, "{:?}", guest.ours());
}

/// `None` if there is nothing to test, or this is the child.
fn guest(test: &str, moment: Moment) -> Option<Guest> {
    if let Some(folder) = std::env::var_os(CHILD) {
        stand_still(Path::new(&folder), moment);
    }
    (tool(test, "qemu-system-x86_64") && tool(test, "qemu-img")).then(|| Guest::new(true, "raw"))
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
    let Some(mut guest) = guest(test, Moment::After) else {
        return;
    };
    kill_at_the_start(test, &mut guest);
    assert!(recover(&mut guest.connect(), &Log::default()).unwrap());
    nothing_is_left(&mut guest);
    // This would be refused if a server ran.
    foreign_server(&mut guest);
    guest.execute("nbd-server-stop", &json!({}));
    a_backup_is_right(&mut guest);
}

#[test]
fn a_server_that_was_started_after_the_backup_was_killed_goes_on() {
    let test = "a_server_that_was_started_after_the_backup_was_killed_goes_on";
    let Some(mut guest) = guest(test, Moment::Before) else {
        return;
    };
    kill_at_the_start(test, &mut guest);
    let foreign = foreign_server(&mut guest);
    assert!(recover(&mut guest.connect(), &Log::default()).unwrap());
    nothing_is_left(&mut guest);
    UnixStream::connect(foreign).unwrap();
}

#[test]
fn a_server_that_was_in_the_way_of_a_backup_that_was_killed_goes_on() {
    let test = "a_server_that_was_in_the_way_of_a_backup_that_was_killed_goes_on";
    let Some(mut guest) = guest(test, Moment::After) else {
        return;
    };
    // The backup is killed when its own start was refused.
    let foreign = foreign_server(&mut guest);
    kill_at_the_start(test, &mut guest);
    assert!(recover(&mut guest.connect(), &Log::default()).unwrap());
    nothing_is_left(&mut guest);
    UnixStream::connect(foreign).unwrap();
}

#[test]
fn a_server_that_somebody_put_in_the_place_of_ours_goes_on() {
    let test = "a_server_that_somebody_put_in_the_place_of_ours_goes_on";
    let Some(guest) = guest(test, Moment::After) else {
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
    let Some(mut guest) = guest(test, Moment::After) else {
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
