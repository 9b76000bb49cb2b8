//! Power cut at every call that changes or syncs something, with every state of the disk that may
//! come up again: no archive that was reported is lost, none is listed that is not whole, and the
//! next backup is right. The same after a kill, after which another process relied on what lay
//! there. Left out one by one, each of the steps that this takes is missed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use snapkeep_repo::{ErrorKind, Files, PruneOptions, Repository, Result, prune};

use support::history::{Process, Told, back_up, first, holds, second};
use support::name;
use support::power::{Power, Stop, Without};
use support::pruning::{DAY, options};

/// The most states of the disk that are tried for one power cut. Only a program that does without
/// syncs leaves more: the others are few, and tried all.
const STATES_MAX: u64 = 256;

fn process(machine: &Arc<Power>, number: u64) -> Result<Process> {
    let files = Arc::clone(machine) as Arc<dyn Files>;
    Process::start(files, Path::new("/"), number)
}

/// Whether everything that was told is there, all that is listed is whole, and the next backup is
/// right and lasts.
fn judge(machine: Power, told: &Told) -> Result<(), String> {
    let machine = Arc::new(machine);
    let mut told = told.clone();
    let judging = process(&machine, 3).map_err(|e| e.chain())?;
    let repository = (judging.open_or_init(&mut told)).map_err(|e| e.chain())?;
    holds(&repository, &told)?;
    back_up(&repository, &mut told, "3").map_err(|e| format!("next backup: {}", e.chain()))?;
    drop(repository);
    let least = machine.after_power_cuts(2).swap_remove(0);
    let later = process(&Arc::new(least), 4).map_err(|e| e.chain())?;
    let repository = later.open().map_err(|e| e.chain())?;
    holds(&repository, &told).map_err(|e| format!("after the next backup: {e}"))
}

fn run_first(machine: &Arc<Power>, told: &mut Told) -> Result<()> {
    first(&process(machine, 1)?, told, &|_| {})
}

fn run_second(machine: &Arc<Power>, told: &mut Told) -> Result<()> {
    second(&process(machine, 2)?, told)
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
    run_first(&machine, &mut Told::default()).expect("without a fault it succeeds");
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
    let ended = run_first(&machine, &mut told);
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
        drop(run_second(&machine, &mut told));
        let what = format!("kill at step {stop}, power cut at step {later} of the next");
        count.cut(&machine, &told, &what);
    }
    let machine = Arc::new(machine.after_a_kill_until(Stop::Never));
    run_second(&machine, &mut told).unwrap_or_else(|e| {
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
        let error = run_first(&machine, &mut told).expect_err("the caller is told");
        assert!(error.chain().ends_with("the disk failed"), "{error:?}");
        assert!(error.chain().contains(" /"), "names no file: {error}");
        // The same machine, and the same process as far as its kernel's memory goes, tries again.
        let again = run_second(&machine, &mut told);
        again.unwrap_or_else(|e| panic!("after the failure of step {failing}: {}", e.chain()));
        let what = format!("failure of step {failing}, a commit, power cut");
        count.cut(&machine, &told, &what);
    });
    let losses = count.losses();
    assert!(losses.is_empty(), "{}", losses.join("\n"));
}

#[test]
fn one_failed_call_of_who_relies_on_what_a_killed_one_left_is_told_and_loses_nothing() {
    let (count, failures) = (Count::default(), AtomicUsize::new(0));
    each(steps(), |stop| {
        let (machine, mut told) = stopped(stop, Without::Nothing);
        let failing = stop * 13 % 60;
        let machine = Arc::new(machine.after_a_kill_until(Stop::Failing(failing)));
        let tries_again = process(&machine, 2).unwrap();
        if let Err(error) = second(&tries_again, &mut told) {
            failures.fetch_add(1, Ordering::Relaxed);
            assert!(error.chain().ends_with("the disk failed"), "{error:?}");
            second(&tries_again, &mut told).unwrap_or_else(|e| {
                panic!("after a kill at {stop} and a failure: {}", e.chain());
            });
        }
        let what = format!("kill at step {stop}, failure of step {failing}, a commit, power cut");
        count.cut(&machine, &told, &what);
    });
    let losses = count.losses();
    assert!(losses.is_empty(), "{}", losses.join("\n"));
    let failures = failures.into_inner();
    assert!(failures > 50, "{failures}");
}

/// Forgets the first archive, condemns what only that one needs, and deletes it three days later.
fn forget_and_prune(machine: &Arc<Power>) -> Result<()> {
    let repository = process(machine, 5)?.open()?;
    match repository.forget(&name("1")) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    for _ in 0..3 {
        prune(&repository, &options())?;
        machine.pass(3 * DAY);
    }
    Ok(())
}

/// Where all is durable, and old; what is still wanted once the first archive is forgotten.
fn before_prunings() -> (Power, Told) {
    let start = Arc::new(Power::new(Stop::Never, Without::Nothing));
    let mut told = Told::default();
    run_first(&start, &mut told).unwrap();
    let start = start.after_power_cuts(1).swap_remove(0);
    start.pass(3 * DAY);
    told.archives.retain(|archive| *archive != name("1"));
    (start, told)
}

#[test]
fn a_power_cut_at_any_step_of_a_pruning_loses_nothing() {
    let (start, told) = before_prunings();
    let whole = Arc::new(start.after_a_kill_until(Stop::Never));
    forget_and_prune(&whole).unwrap();
    let steps = whole.steps();
    assert!(steps > 80, "{steps}");
    let losses = Mutex::new(Vec::new());
    let cuts = AtomicUsize::new(0);
    each(steps, |stop| {
        let machine = Arc::new(start.after_a_kill_until(Stop::At(stop)));
        assert!(
            forget_and_prune(&machine).is_err(),
            "nobody was told of step {stop}"
        );
        for (number, survivor) in (0..).zip(machine.after_power_cuts(STATES_MAX)) {
            cuts.fetch_add(1, Ordering::Relaxed);
            let again = Arc::new(survivor.after_a_kill_until(Stop::Never));
            let judged = judge(survivor, &told).and_then(|()| {
                again.pass(3 * DAY);
                forget_and_prune(&again).map_err(|e| format!("again: {}", e.chain()))?;
                let process = process(&again, 6).map_err(|e| e.chain())?;
                let repository = process.open().map_err(|e| e.chain())?;
                holds(&repository, &told)?;
                only_the_second(&repository)
            });
            if let Err(why) = judged {
                let mut losses = losses.lock().unwrap();
                losses.push(format!("power cut at step {stop}, state {number}: {why}"));
            }
        }
    });
    let (cuts, losses) = (cuts.into_inner(), losses.into_inner().unwrap());
    let lost = losses.len();
    println!("pruning: {steps} storage operations, {cuts} crashes injected, losses {lost}");
    assert!(losses.is_empty(), "{}", losses.join("\n"));
}

#[test]
fn a_pruning_that_relies_on_the_copies_of_a_killed_one_loses_nothing_in_a_power_cut() {
    let (start, told) = before_prunings();
    let whole = Arc::new(start.after_a_kill_until(Stop::Never));
    forget_and_prune(&whole).unwrap();
    let count = Count::default();
    each(whole.steps(), |stop| {
        let killed = Arc::new(start.after_a_kill_until(Stop::At(stop)));
        forget_and_prune(&killed).unwrap_err();
        let again = Arc::new(killed.after_a_kill_until(Stop::Never));
        again.pass(3 * DAY);
        forget_and_prune(&again).unwrap();
        let what = format!("pruning killed at step {stop}, another one, power cut");
        count.cut(&again, &told, &what);
    });
    let losses = count.losses();
    assert!(losses.is_empty(), "{}", losses.join("\n"));
}

/// Whether nothing but what the second archive needs is left.
fn only_the_second(repository: &Arc<Repository>) -> Result<(), String> {
    let dry = PruneOptions {
        dry_run: true,
        grace: 0,
        ..options()
    };
    let left = prune(repository, &dry).map_err(|e| e.chain())?.marked;
    let left = left.ok_or("something waits")?;
    if left.condemned.number + left.archives + left.unused == 0 {
        return Ok(());
    }
    Err(format!("{left:?} is left"))
}
