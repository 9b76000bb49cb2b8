//! Power cut at every call that changes or syncs something, with every state of the disk that may
//! come up again: no archive that was reported is lost, none is listed that is not whole, and the
//! next backup is right. The same after a kill, after which another process relied on what lay
//! there. Left out one by one, each of the steps that this takes is missed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use snapkeep_repo::{
    ErrorKind, HeadPlace, KeyFile, LocalStorage, Protect, Random, Repository, Result, SnapshotName,
    Storage, Unlock, verify,
};

use support::power::{Power, Stop, Without};
use support::{CHUNK, backup, disk, name, restore};

/// The most states of the disk that are tried for one power cut. Only a program that does without
/// syncs leaves more: the others are few, and tried all.
const STATES_MAX: u64 = 256;

/// The same bytes in every run, other bytes for every process.
#[derive(Debug)]
struct Seeded(u64, AtomicU64);

impl Random for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let turn = self.1.fetch_add(1, Ordering::Relaxed);
        let seed = [self.0.to_le_bytes(), turn.to_le_bytes()].concat();
        blake3::Hasher::new()
            .update(&seed)
            .finalize_xof()
            .fill(buffer);
        Ok(())
    }
}

/// A process on the machine.
struct Process {
    storage: Arc<dyn Storage>,
    random: Arc<Seeded>,
    key: KeyFile,
}

/// What a process told its caller.
#[derive(Clone, Debug, Default)]
struct Told {
    init: bool,
    archives: Vec<SnapshotName>,
    /// The archive that the newest head is known to name.
    head: Option<SnapshotName>,
}

/// What the disk holds when an archive is made; told by the first letter of its name.
fn content(name: &SnapshotName) -> Vec<u8> {
    let (_, last) = name.as_str().rsplit_once('/').unwrap();
    match last.as_bytes()[0] {
        b'1' => disk(1, 7),
        b'2' => {
            let mut bytes = disk(1, 7);
            bytes[CHUNK..3 * CHUNK].fill(2);
            bytes
        }
        _ => disk(3, 5),
    }
}

fn place() -> HeadPlace {
    HeadPlace::new(&name("1"), "store").unwrap()
}

impl Process {
    fn start(machine: &Arc<Power>, number: u64) -> Result<Self> {
        let random = Arc::new(Seeded(number, AtomicU64::new(0)));
        let files = Arc::clone(machine) as Arc<dyn snapkeep_repo::Files>;
        Ok(Self {
            storage: Arc::new(LocalStorage::open_on(files, Path::new("/"))?),
            random,
            key: KeyFile::generate(&Seeded(u64::MAX, AtomicU64::new(0)))?,
        })
    }

    fn init(&self) -> Result<Arc<Repository>> {
        let (storage, random) = (Arc::clone(&self.storage), Arc::clone(&self.random));
        let protect = Protect::KeyFile(self.key.clone());
        Repository::init(storage, random, &protect, CHUNK).map(Arc::new)
    }

    fn open(&self) -> Result<Arc<Repository>> {
        let (storage, random) = (Arc::clone(&self.storage), Arc::clone(&self.random));
        let unlock = Unlock::KeyFile(self.key.clone());
        Repository::open(storage, random, &unlock).map(Arc::new)
    }

    /// Opens the repository, or makes it if nobody was told that there is one.
    fn open_or_init(&self, told: &mut Told) -> Result<Arc<Repository>> {
        let repository = match self.open() {
            Err(e) if e.kind() == ErrorKind::NotFound && !told.init => self.init()?,
            other => other?,
        };
        told.init = true;
        Ok(repository)
    }
}

/// A backup as a host with a fixed name for its bitmaps makes it, incremental if there is a base.
fn back_up(repository: &Arc<Repository>, told: &mut Told, text: &str) -> Result<()> {
    let name = name(text);
    let head = repository.put_head(&place(), &name)?;
    told.head = Some(name.clone());
    repository.remove_heads_before(&place(), &head)?;
    let base = match told.archives.last() {
        Some(base) => Some((repository.snapshot(base)?, content(base))),
        None => None,
    };
    let base = (base.as_ref()).map(|(snapshot, bytes)| (&snapshot.disks[0], &bytes[..]));
    backup(repository, &name, base, &content(&name))?;
    told.archives.push(name);
    Ok(())
}

/// The first process: makes the repository, a full backup and an incremental one.
fn first(machine: &Arc<Power>, told: &mut Told) -> Result<()> {
    let process = Process::start(machine, 1)?;
    let repository = process.init()?;
    told.init = true;
    back_up(&repository, told, "1")?;
    back_up(&repository, told, "2")
}

/// The second: backs up what the first may have stored already.
fn second(machine: &Arc<Power>, told: &mut Told) -> Result<()> {
    let process = Process::start(machine, 2)?;
    let repository = process.open_or_init(told)?;
    back_up(&repository, told, "2b")
}

/// Whether everything that was told is there, all that is listed is whole, and the next backup is
/// right and lasts.
fn judge(machine: Power, told: &Told) -> Result<(), String> {
    let machine = Arc::new(machine);
    let mut told = told.clone();
    let process = Process::start(&machine, 3).map_err(|e| e.chain())?;
    let repository = (process.open_or_init(&mut told)).map_err(|e| e.chain())?;
    holds(&repository, &told)?;
    back_up(&repository, &mut told, "3").map_err(|e| format!("next backup: {}", e.chain()))?;
    drop(repository);
    let least = machine.after_power_cuts(2).swap_remove(0);
    let process = Process::start(&Arc::new(least), 4).map_err(|e| e.chain())?;
    let repository = process.open().map_err(|e| e.chain())?;
    holds(&repository, &told).map_err(|e| format!("after the next backup: {e}"))
}

fn holds(repository: &Arc<Repository>, told: &Told) -> Result<(), String> {
    let listed = repository.snapshots().map_err(|e| e.chain())?;
    if let Some(lost) = told.archives.iter().find(|name| !listed.contains(name)) {
        return Err(format!("{lost} was lost"));
    }
    for found in &listed {
        match restore(repository, found) {
            Ok(bytes) if bytes == content(found) => {}
            Ok(_) => return Err(format!("{found} holds other bytes")),
            Err(e) => return Err(format!("{found}: {}", e.chain())),
        }
    }
    let report = verify(repository).map_err(|e| e.chain())?;
    if let Some(damage) = report.damage.first() {
        return Err(format!("{}: {}", damage.object, damage.error.chain()));
    }
    let latest = repository.latest_head(&place()).map_err(|e| e.chain())?;
    if told.head.is_some() && latest < told.head {
        return Err(format!("{latest:?} is the newest head"));
    }
    Ok(())
}

/// What was tried, and what was lost.
#[derive(Debug, Default)]
struct Count {
    crashes: AtomicUsize,
    losses: Mutex<Vec<String>>,
}

impl Count {
    /// Judges every state that a power cut may leave.
    fn cut(&self, machine: &Power, told: &Told, what: &str) {
        for (number, survivor) in (0..).zip(machine.after_power_cuts(STATES_MAX)) {
            self.crashes.fetch_add(1, Ordering::Relaxed);
            if let Err(why) = judge(survivor, told) {
                let mut losses = self.losses.lock().unwrap();
                losses.push(format!("{what}, state {number}: {why}"));
            }
        }
    }

    fn losses(&self) -> Vec<String> {
        self.losses.lock().unwrap().clone()
    }
}

/// How many steps the first process takes.
fn steps() -> u64 {
    let machine = Arc::new(Power::new(Stop::Never, Without::Nothing));
    first(&machine, &mut Told::default()).expect("without a fault it succeeds");
    machine.steps()
}

/// Calls it for each number below `end`, on two threads.
fn each(end: u64, deed: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        for start in 0..2 {
            let deed = &deed;
            scope.spawn(move || (start..end).step_by(2).for_each(deed));
        }
    });
}

/// Stops the first process at a step; what it told, and the machine it leaves.
fn stopped(stop: u64, without: Without) -> (Arc<Power>, Told) {
    let machine = Arc::new(Power::new(Stop::At(stop), without));
    let mut told = Told::default();
    let ended = first(&machine, &mut told);
    assert!(
        ended.is_err() || machine.steps() <= stop,
        "the caller was not told of the stop at step {stop}"
    );
    (machine, told)
}

/// What is done at a step of the first process.
type At = fn(u64, Without, &Count);

/// The power is cut at this step of the first process.
fn cut_at(stop: u64, without: Without, count: &Count) {
    let (machine, told) = stopped(stop, without);
    count.cut(&machine, &told, &format!("power cut at step {stop}"));
}

/// The first process is killed at this step, another one commits, and then the power is cut; and
/// once more, with the power cut somewhere on the way.
fn kill_at(stop: u64, without: Without, count: &Count) {
    let (machine, mut told) = stopped(stop, without);
    {
        let later = stop * 13 % 60;
        let machine = Arc::new(machine.after_a_kill_until(Stop::At(later)));
        let mut told = told.clone();
        drop(second(&machine, &mut told));
        let what = format!("kill at step {stop}, power cut at step {later} of the next");
        count.cut(&machine, &told, &what);
    }
    let machine = Arc::new(machine.after_a_kill_until(Stop::Never));
    second(&machine, &mut told).unwrap_or_else(|e| {
        panic!(
            "after a kill at step {stop} the next backup fails: {}",
            e.chain()
        )
    });
    let what = format!("kill at step {stop}, a commit, power cut");
    count.cut(&machine, &told, &what);
}

#[test]
fn a_power_cut_at_any_step_loses_nothing() {
    let steps = steps();
    assert!(steps > 100, "{steps}");
    let count = Count::default();
    each(steps + 1, |stop| {
        cut_at(stop, Without::Nothing, &count);
        kill_at(stop, Without::Nothing, &count);
    });
    let (crashes, losses) = (count.crashes.load(Ordering::Relaxed), count.losses());
    let lost = losses.len();
    println!("{steps} storage operations, {crashes} crashes injected, losses {lost}");
    assert!(losses.is_empty(), "{}", losses.join("\n"));
    assert!(crashes as u64 > 3 * steps, "{crashes}");
}

#[test]
fn a_program_without_one_of_the_syncs_loses_something() {
    let steps = steps();
    let cases: [(Without, At); 4] = [
        (Without::FolderSyncs, cut_at),
        (Without::FileSyncs, cut_at),
        (Without::SyncsOfOthersFolders, kill_at),
        (Without::SyncsOfOthersPacks, kill_at),
    ];
    for (without, at) in cases {
        let count = Count::default();
        let found = (0..=steps).rev().any(|stop| {
            at(stop, without, &count);
            !count.losses().is_empty()
        });
        assert!(found, "{without:?} is not missed");
    }
}

#[test]
fn one_failed_call_is_told_and_loses_nothing() {
    let count = Count::default();
    let steps = steps();
    each(steps, |failing| {
        let machine = Arc::new(Power::new(Stop::Failing(failing), Without::Nothing));
        let mut told = Told::default();
        let error = first(&machine, &mut told).expect_err("the caller is told");
        assert!(error.chain().ends_with("the disk failed"), "{error:?}");
        assert!(error.chain().contains(" /"), "names no file: {error}");
        // The same machine, and the same process as far as its kernel's memory goes, tries again.
        let again = second(&machine, &mut told);
        again.unwrap_or_else(|e| panic!("after the failure of step {failing}: {}", e.chain()));
        let what = format!("failure of step {failing}, a commit, power cut");
        count.cut(&machine, &told, &what);
    });
    let losses = count.losses();
    assert!(losses.is_empty(), "{}", losses.join("\n"));
}
