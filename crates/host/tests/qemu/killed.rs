//! A backup that is killed at one of its commands: it runs in a process of its own, which is this
//! test again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use snapkeep_api::SystemClock;
use snapkeep_host::Qemu;

use super::between::{self, Moment};
use super::{Guest, Log, back_up, provider, request};

/// Names the folder of the guest that the child is to back up.
const FOLDER: &str = "SNAPKEEP_TEST_KILLED_FOLDER";
/// Names the command at which it stands still; `!` before it: when that is done.
const PLACE: &str = "SNAPKEEP_TEST_KILLED_PLACE";
/// The child says so where it is to be killed.
const HERE: &str = "the backup stands still";

/// Whether the tools are there. Never returns if this process is the child.
pub(crate) fn can_kill(test: &str) -> bool {
    if let Some(folder) = std::env::var_os(FOLDER) {
        stand_still(Path::new(&folder), &std::env::var(PLACE).unwrap());
    }
    super::tool(test, "qemu-system-x86_64") && super::tool(test, "qemu-img")
}

fn stand_still(folder: &Path, place: &str) -> ! {
    let (moment, place) = match place.strip_prefix('!') {
        Some(place) => (Moment::After, place),
        None => (Moment::Before, place),
    };
    let place = place.to_owned();
    let pass = move |_, command: &str, when| {
        if command == place && when == moment {
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

/// Starts a backup of the guest, and kills it before this command, or when it is done.
pub(crate) fn kill_at(test: &str, guest: &mut Guest, command: &str, moment: Moment) {
    let done = if moment == Moment::After { "!" } else { "" };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, guest.folder.path())
        .env(PLACE, format!("{done}{command}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(HERE)));
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(guest.folder.path().join("between")).unwrap();
    assert!(!guest.ours().is_empty());
    assert_eq!(guest.folders(), 1);
}
