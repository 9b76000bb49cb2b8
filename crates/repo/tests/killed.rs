//! A process that is killed at any call that changes or syncs something loses nothing that it told
//! of, and the next one goes on where it left off.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use snapkeep_repo::{Entry, Files, SystemFiles};

use support::history::{Process, Told, back_up, first, holds, second};
use support::name;

const TEST: &str = "a_process_killed_at_any_step_loses_nothing";
/// Set for the process that is to be killed: the number of the step, and the folder.
const STEP: &str = "SNAPKEEP_TEST_KILLED_AT";
const FOLDER: &str = "SNAPKEEP_TEST_FOLDER";

/// Kills its process at a step.
#[derive(Debug)]
struct Killing {
    steps: AtomicU64,
    at: u64,
}

impl Killing {
    fn is_last(&self) -> bool {
        self.steps.fetch_add(1, Ordering::SeqCst) == self.at
    }

    fn kill() -> ! {
        kill_process(getpid(), Signal::KILL).unwrap();
        unreachable!("a killed process runs no further")
    }

    fn step(&self) -> SystemFiles {
        if self.is_last() {
            Self::kill();
        }
        SystemFiles
    }
}

impl Files for Killing {
    fn identity(&self, folder: &Path) -> io::Result<(u64, u64)> {
        SystemFiles.identity(folder)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.step().make_folder(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.step().sync_folder(folder)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.is_last() {
            std::fs::write(path, &bytes[..bytes.len() / 2])?;
            Self::kill();
        }
        SystemFiles.write_new(path, bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.step().sync_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step().remove(path)
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        SystemFiles.read(path, offset, length)
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        SystemFiles.entry(path)
    }

    fn modified(&self, path: &Path) -> io::Result<i64> {
        SystemFiles.modified(path)
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        SystemFiles.names(folder)
    }
}

#[expect(clippy::print_stdout, reason = "the other process reads it")]
/// The process that is to be killed: prints a line `told N` for the repository and each archive.
fn child(at: u64, folder: &Path) {
    let files = Arc::new(Killing {
        steps: AtomicU64::new(0),
        at,
    });
    let process = Process::start(Arc::clone(&files) as Arc<dyn Files>, folder, 1).unwrap();
    let tell = |told: &Told| println!("told {}", told.archives.len());
    first(&process, &mut Told::default(), &tell).unwrap();
    println!("steps {}", files.steps.load(Ordering::SeqCst));
}

/// Runs it; what it printed.
fn run(at: u64, folder: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(STEP, at.to_string())
        .env(FOLDER, folder)
        .output()
        .unwrap()
}

fn told(output: &Output) -> Told {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut told = Told::default();
    for line in text.lines().filter_map(|line| line.strip_prefix("told ")) {
        told.init = true;
        told.archives = ["1", "2"][..line.parse().unwrap()]
            .iter()
            .map(|text| name(text))
            .collect();
        // It is written before the archive.
        told.head = told.archives.last().cloned();
    }
    told
}

/// In memory where that can be: a kill loses nothing that was not synced, and syncs take time.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Kills a process at this step, and judges what it left.
fn kill_at(at: u64) {
    let folder = folder();
    let output = run(at, folder.path());
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(signal, Some(9), "{output:?}");
    let mut told = told(&output);
    let failed = |e: String| panic!("killed at step {at}: {e}");
    let next = Process::start(Arc::new(SystemFiles), folder.path(), 2).unwrap();
    if told.init {
        let repository = next.open().unwrap_or_else(|e| panic!("step {at}: {e}"));
        holds(&repository, &told).unwrap_or_else(failed);
    }
    second(&next, &mut told).unwrap_or_else(|e| panic!("step {at}: {}", e.chain()));
    let last = Process::start(Arc::new(SystemFiles), folder.path(), 3).unwrap();
    let repository = last.open().unwrap_or_else(|e| panic!("step {at}: {e}"));
    holds(&repository, &told).unwrap_or_else(failed);
    back_up(&repository, &mut told, "3").unwrap_or_else(|e| panic!("step {at}: {e}"));
    holds(&repository, &told).unwrap_or_else(failed);
}

#[test]
fn a_process_killed_at_any_step_loses_nothing() {
    if let (Ok(at), Ok(folder)) = (std::env::var(STEP), std::env::var(FOLDER)) {
        return child(at.parse().unwrap(), Path::new(&folder));
    }
    let folder = folder();
    let whole = run(u64::MAX, folder.path());
    let text = String::from_utf8_lossy(&whole.stdout);
    let steps = text.lines().find_map(|line| line.strip_prefix("steps "));
    let steps: u64 = steps
        .unwrap_or_else(|| panic!("{whole:?}"))
        .parse()
        .unwrap();
    assert!(steps > 60 && told(&whole).archives.len() == 2, "{text}");
    std::thread::scope(|scope| {
        for start in 0..2 {
            scope.spawn(move || (start..steps).step_by(2).for_each(kill_at));
        }
    });
    println!("{steps} storage operations, {steps} processes killed, losses 0");
}
