//! Pruning on a storage whose lists are old, as those of a file system over a network are, and while
//! processes sleep.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, Mutex};

use snapkeep_repo::{ErrorKind, PruneOptions, Repository, Storage, limits, prune};

use support::between::{Between, Moment};
use support::pruning::{Content, DAY, World, options};
use support::stale::Stale;
use support::{begin, disk, name, snapshot};

/// How old lists are: half of what a sweep waits for.
const LAG: i64 = limits::SETTLE_SECONDS.cast_signed() / 2;

fn waiting() -> PruneOptions {
    PruneOptions {
        settle: limits::SETTLE_SECONDS,
        ..options()
    }
}

/// A world in which what only an archive has is about to be condemned, and its storage.
fn world(far: bool) -> (World, Arc<Stale>) {
    let mut world = World::with_history();
    world.forget("1");
    world.forget("3t");
    let stale = Stale::new(Arc::clone(&world.memory), world.time(), LAG);
    (world, Arc::new(stale.at_distance(far)))
}

fn open(world: &World, storage: Arc<dyn Storage>) -> Arc<Repository> {
    world.open_on_with_its_clock(storage).unwrap()
}

/// Prunes while somebody does something at this operation; how many operations there were.
fn prune_with(
    world: &World,
    stale: &Arc<Stale>,
    at: u64,
    mut deed: impl FnMut() + Send + 'static,
) -> u64 {
    let count = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&count);
    let hook = move |(moment, _, _): support::between::Step<'_>| {
        if moment == Moment::Before {
            let mut count = counted.lock().unwrap();
            *count += 1;
            if *count - 1 == at {
                drop(count);
                deed();
            }
        }
    };
    let between = Between::new(Arc::clone(stale) as _, hook);
    // It may have to give way.
    drop(prune(&open(world, Arc::new(between)), &waiting()));
    *count.lock().unwrap()
}

/// Waits until all lists show everything, then prunes until nothing is left to do.
fn long_after(world: &World, what: &str) {
    (world.holds()).unwrap_or_else(|e| panic!("after {what}: {e}"));
    for _ in 0..2 {
        world.pass(2 * DAY);
        world.prune_all();
        (world.holds()).unwrap_or_else(|e| panic!("long after {what}: {e}"));
    }
}

#[test]
fn a_commit_at_any_operation_of_a_sweep_is_whole_or_fails_although_lists_are_old() {
    commits_at_any_operation(false);
}

#[test]
fn the_same_where_both_ask_for_several_things_at_once() {
    commits_at_any_operation(true);
}

fn commits_at_any_operation(far: bool) {
    let bytes = disk(1, 7);
    let (mut kept, mut failed) = (0, 0);
    for at in 0.. {
        let (mut world, stale) = world(far);
        // Its own clock stands still, as that of a machine that was paused.
        let writer = world.open_on(Arc::clone(&stale) as _).unwrap();
        let (writer, record) = begin(&writer, None, &bytes).unwrap();
        prune(&open(&world, Arc::clone(&stale) as _), &waiting()).unwrap();
        world.pass(2 * DAY);
        let made = Arc::new(Mutex::new(None));
        let said = Arc::clone(&made);
        let mut waiting = Some((writer, record));
        let count = prune_with(&world, &stale, at, move || {
            if let Some((writer, record)) = waiting.take() {
                let committed = writer.commit(&name("5"), snapshot(vec![record]));
                *said.lock().unwrap() = Some(committed.map(drop));
            }
        });
        if at >= count {
            break;
        }
        let made = made.lock().unwrap().take().unwrap();
        match made {
            Ok(()) => {
                kept += 1;
                world
                    .archives
                    .insert(name("5"), Content::Disk(bytes.clone()));
            }
            Err(e) if e.kind() == ErrorKind::Swept => failed += 1,
            Err(e) => panic!("operation {at}: {}", e.chain()),
        }
        long_after(&world, &format!("operation {at}"));
    }
    assert!(kept > 10 && failed > 5, "{kept} {failed}");
}

#[test]
fn a_backup_that_took_half_the_least_grace_proves_itself_though_lists_hide_the_sweep() {
    // Lists are older than any sweep waits for.
    let lag = i64::try_from(limits::GRACE_SECONDS_MIN / 4).unwrap();
    let least = PruneOptions {
        grace: limits::GRACE_SECONDS_MIN,
        ..waiting()
    };
    let mut world = World::with_history();
    world.forget("1");
    world.forget("3t");
    let stale = Arc::new(Stale::new(Arc::clone(&world.memory), world.time(), lag));
    let pruner = || open(&world, Arc::clone(&stale) as _);
    let marked = prune(&pruner(), &least).unwrap().marked.unwrap();
    assert!(marked.condemned.number > 0);
    world.pass(lag - 60);
    // It does not see what is condemned, finds all of it, and so stores nothing.
    let writer = open(&world, Arc::clone(&stale) as _);
    let (writer, record) = begin(&writer, None, &disk(1, 7)).unwrap();
    assert_eq!(writer.stored(), 0);
    world.pass(i64::try_from(limits::GRACE_SECONDS_MIN).unwrap() - lag + 120);
    let swept = prune(&pruner(), &least).unwrap().swept.unwrap();
    assert!(swept.deleted.number > 0);
    let committed = writer.commit(&name("5"), snapshot(vec![record]));
    assert_eq!(committed.unwrap_err().kind(), ErrorKind::Swept);
    world.holds().unwrap();
}
