//! Many real processes in one repository: eight back up, one forgets and takes back, one verifies,
//! and some are killed now and then. In the end what they told of restores byte for byte.
//!
//! `SNAPKEEP_STRESS_SECONDS` says for how long; `cargo xtask stress` sets it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod work;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use snapkeep_repo::SnapshotName;

const TEST: &str = "what_processes_told_of_that_were_killed_at_any_time_is_there";
/// Set for the processes: what they do, their number, and the folder.
const ROLE: &str = "SNAPKEEP_TEST_ROLE";
const NUMBER: &str = "SNAPKEEP_TEST_NUMBER";
const FOLDER: &str = "SNAPKEEP_TEST_FOLDER";

/// The first eight write different guests.
const ROLES: [&str; 10] = [
    "write", "write", "write", "write", "write", "write", "write", "write", "forget", "verify",
];
const SECONDS: u64 = 10;
/// One process is killed each time.
const BETWEEN_KILLS: Duration = Duration::from_millis(300);

#[expect(clippy::print_stdout, reason = "the other process reads it")]
fn child(role: &str) {
    let (number, folder) = (
        std::env::var(NUMBER).unwrap(),
        std::env::var(FOLDER).unwrap(),
    );
    let tell = |what: &str, archive: &SnapshotName| println!("told {what} {archive}");
    work::work(role, number.parse().unwrap(), Path::new(&folder), &tell);
}

/// A process, all of whose lines go to one channel.
fn start(place: usize, turn: usize, folder: &Path, lines: &Sender<String>) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(ROLE, ROLES[place])
        .env(NUMBER, (turn * 8 + place % 8).to_string())
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let lines = lines.clone();
    std::thread::spawn(move || {
        let lost = |line| lines.send(line).is_err();
        output.lines().map_while(Result::ok).any(lost)
    });
    child
}

fn end(mut child: Child) -> ExitStatus {
    // It may have ended, which its status tells.
    drop(child.kill());
    child.wait().unwrap()
}

/// The archives that were told of and not forgotten since, as far as anybody was told.
#[derive(Default)]
struct Told {
    made: usize,
    wanted: BTreeSet<SnapshotName>,
}

impl Told {
    /// Until so much time has passed, or all processes have ended.
    fn hear(&mut self, lines: &Receiver<String>, until: Instant) {
        loop {
            match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.line(&line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn line(&mut self, line: &str) {
        // The test's own words may stand before it.
        let told = line
            .split_once("told ")
            .and_then(|(_, told)| told.split_once(' '));
        let Some((what, archive)) = told else {
            return;
        };
        let archive = archive.parse().unwrap();
        match what {
            "made" => {
                self.made += 1;
                self.wanted.insert(archive);
            }
            "forgetting" => drop(self.wanted.remove(&archive)),
            _ => drop(self.wanted.insert(archive)),
        }
    }
}

#[test]
fn what_processes_told_of_that_were_killed_at_any_time_is_there() {
    if let Ok(role) = std::env::var(ROLE) {
        return child(&role);
    }
    let seconds = std::env::var("SNAPKEEP_STRESS_SECONDS").map(|text| text.parse().unwrap());
    let end_of_all = Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS));
    let folder = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let folder = folder.path();
    work::init(folder).unwrap();
    let (sender, lines) = channel();
    let start = |place, turn| start(place, turn, folder, &sender);
    let mut children: Vec<Child> = (0..ROLES.len()).map(|place| start(place, 0)).collect();
    let (mut told, mut turn) = (Told::default(), 0);
    while Instant::now() < end_of_all {
        told.hear(&lines, Instant::now() + BETWEEN_KILLS);
        turn += 1;
        // Which one is next is of no order that the roles have.
        let place = turn * 7 % ROLES.len();
        let killed = std::mem::replace(&mut children[place], start(place, turn));
        let status = end(killed);
        assert_eq!(
            status.code(),
            None,
            "{} ended by itself: {status}",
            ROLES[place]
        );
    }
    for (place, child) in children.into_iter().enumerate() {
        let status = end(child);
        assert_eq!(
            status.code(),
            None,
            "{} ended by itself: {status}",
            ROLES[place]
        );
    }
    drop(sender);
    told.hear(&lines, Instant::now() + Duration::from_secs(600));
    let wanted: Vec<SnapshotName> = told.wanted.iter().cloned().collect();
    let (listed, lost) = work::judge(folder, &wanted).unwrap();
    assert!(lost.is_empty() && told.made > 0, "{lost:#?}");
    println!(
        "stress: {} archives made, {turn} processes killed, {listed} archives restored identical, \
         {} of them promised, 0 lost",
        told.made,
        wanted.len()
    );
}
