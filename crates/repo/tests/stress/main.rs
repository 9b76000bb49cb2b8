//! Many real processes in one repository: eight back up, two prune, one forgets and takes back, one
//! verifies, and some are killed now and then. In the end what they told of restores byte for byte.
//!
//! `SNAPKEEP_STRESS_SECONDS` says for how long; `cargo xtask stress` sets it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod work;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use snapkeep_repo::SnapshotName;

const TEST: &str = "what_processes_told_of_that_were_killed_at_any_time_is_there";
/// Set for the processes: what they do, their number, and the folder.
const ROLE: &str = "SNAPKEEP_TEST_ROLE";
const NUMBER: &str = "SNAPKEEP_TEST_NUMBER";
const FOLDER: &str = "SNAPKEEP_TEST_FOLDER";

/// The first eight write different guests.
const ROLES: [&str; 12] = [
    "write", "write", "write", "write", "write", "write", "write", "write", "prune", "prune",
    "forget", "verify",
];
const SECONDS: u64 = 10;
/// One process is killed each time.
const BETWEEN_KILLS: Duration = Duration::from_millis(300);

#[expect(clippy::print_stdout, reason = "the other process reads it")]
fn child(role: &str) {
    // None outlives a test that fails.
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let (number, folder) = (
        std::env::var(NUMBER).unwrap(),
        std::env::var(FOLDER).unwrap(),
    );
    let tell = |what: &str| println!("told {what}");
    work::work(role, number.parse().unwrap(), Path::new(&folder), &tell);
}

/// A process, and the thread by which all its lines go to one channel.
type Running = (Child, JoinHandle<()>);

fn start(place: usize, turn: usize, folder: &Path, lines: &Sender<String>) -> Running {
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
    let pass = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            lines.send(line).unwrap();
        }
    });
    (child, pass)
}

/// Kills a process. What it told is heard before what the next one does.
fn end(place: usize, (mut child, pass): Running) {
    // It may have ended, which its status tells.
    drop(child.kill());
    let status = child.wait().unwrap();
    assert_eq!(
        status.code(),
        None,
        "{} ended by itself: {status}",
        ROLES[place]
    );
    pass.join().unwrap();
}

/// The archives that were told of and not forgotten since, as far as anybody was told.
#[derive(Default)]
struct Told {
    made: usize,
    gave_way: usize,
    verified: usize,
    sweeps: usize,
    packs: u64,
    bytes: u64,
    damage: Vec<String>,
    wanted: BTreeSet<SnapshotName>,
    /// Who made an archive may tell of it later than who forgot it.
    forgotten: BTreeSet<SnapshotName>,
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
        let Some((_, told)) = line.split_once("told ") else {
            return;
        };
        let (what, of) = told.split_once(' ').unwrap_or((told, ""));
        match what {
            "made" => {
                self.made += 1;
                let archive = of.parse().unwrap();
                if !self.forgotten.contains(&archive) {
                    self.wanted.insert(archive);
                }
            }
            "forgetting" => {
                let archive = of.parse().unwrap();
                self.wanted.remove(&archive);
                self.forgotten.insert(archive);
            }
            "taken-back" => {
                let archive = of.parse().unwrap();
                self.forgotten.remove(&archive);
                self.wanted.insert(archive);
            }
            "swept" => {
                let (packs, bytes) = of.split_once(' ').unwrap();
                self.sweeps += 1;
                self.packs += packs.parse::<u64>().unwrap();
                self.bytes += bytes.parse::<u64>().unwrap();
            }
            "gave-way" => self.gave_way += 1,
            "verified" => self.verified += 1,
            _ => self.damage.push(told.to_owned()),
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
    let mut running: Vec<Option<Running>> = (0..ROLES.len())
        .map(|place| Some(start(place, 0)))
        .collect();
    let (mut told, mut turn) = (Told::default(), 0);
    while Instant::now() < end_of_all {
        told.hear(&lines, Instant::now() + BETWEEN_KILLS);
        turn += 1;
        // Which one is next is of no order that the roles have.
        let place = turn * 7 % ROLES.len();
        end(place, running[place].take().unwrap());
        running[place] = Some(start(place, turn));
    }
    for (place, running) in running.into_iter().flatten().enumerate() {
        end(place, running);
    }
    drop(sender);
    told.hear(&lines, Instant::now() + Duration::from_secs(600));
    let wanted: Vec<SnapshotName> = told.wanted.iter().cloned().collect();
    let last = RefCell::new(Vec::new());
    let hear = |line: &str| last.borrow_mut().push(format!("told {line}"));
    let (listed, lost) = work::judge(folder, &wanted, &hear).unwrap();
    last.into_inner().iter().for_each(|line| told.line(line));
    assert!(lost.is_empty() && told.made > 0, "{lost:#?}");
    assert!(told.damage.is_empty(), "{:#?}", told.damage);
    // A machine that is busy has nothing to forget so soon.
    assert!(told.packs > 0 || told.made < 100, "nothing was removed");
    println!(
        "stress: folder: {} archives made, {} backups gave way to a sweep, {turn} processes killed, {} sweeps \
         removed {} packs ({} bytes), {} verifications, {listed} archives restored identical, {} of them \
         promised, 0 lost",
        told.made,
        told.gave_way,
        told.sweeps,
        told.packs,
        told.bytes,
        told.verified,
        wanted.len()
    );
}
