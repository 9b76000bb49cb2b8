//! A process that dies at any operation of forgetting, marking or sweeping loses nothing, and the next
//! prunings end with exactly what is needed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use snapkeep_repo::{FaultPoint, Faulty, Result, SnapshotName, prune};

use support::name;
use support::pruning::{Content, DAY, World, options};

/// What one process does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Forget,
    Mark,
    Sweep,
}

const FORGOTTEN: [&str; 2] = ["1", "3t"];

fn run(world: &World, deed: Deed, point: FaultPoint) -> (Result<()>, u64) {
    let faulty = Arc::new(Faulty::new(world.storage(), point));
    let done = (world.open_on(Arc::clone(&faulty) as _)).and_then(|repository| match deed {
        Deed::Forget => (FORGOTTEN.iter()).try_for_each(|text| repository.forget(&name(text))),
        Deed::Mark | Deed::Sweep => prune(&repository, &options()).map(drop),
    });
    (done, faulty.count())
}

/// The worlds in which each deed is done.
fn worlds() -> [(Deed, World); 3] {
    let mut first = World::with_history();
    // A part of the index is in tables, a part is not.
    first.merge();
    // What a killed backup left is there too, and a chunk that lies in two packs.
    first.back_up("0", &support::disk(1, 7));
    first.pass(3 * DAY);
    let mut second = first.fork();
    for text in FORGOTTEN {
        second.forget(text);
    }
    let third = second.fork();
    run(&third, Deed::Mark, FaultPoint::Never).0.unwrap();
    third.pass(2 * DAY);
    [
        (Deed::Forget, first),
        (Deed::Mark, second),
        (Deed::Sweep, third),
    ]
}

/// Whether nothing is lost by a death at this point, and nothing left behind in the end.
fn judge(world: &World, deed: Deed, point: FaultPoint) -> Result<(), String> {
    let mut world = world.fork();
    let (done, count) = run(&world, deed, point);
    // What is only told of it may be read in another way.
    let is_done = matches!(deed, Deed::Mark) && !world.files("prune").is_empty();
    let was_missed = matches!(point, FaultPoint::Before(number) if number < count);
    if done.is_ok() && was_missed && !is_done {
        return Err("nobody was told of it".to_owned());
    }
    let mut more: Vec<(SnapshotName, Content)> = Vec::new();
    for text in FORGOTTEN {
        // Whether it was forgotten is not known before that was answered.
        more.extend(world.archives.remove_entry(&name(text)));
    }
    let more: Vec<_> = more.iter().collect();
    world.holds_also(&more)?;
    for text in FORGOTTEN {
        match world.open().forget(&name(text)) {
            Err(e) if e.kind() != snapkeep_repo::ErrorKind::NotFound => return Err(e.chain()),
            Ok(()) | Err(_) => {}
        }
    }
    world.pass(2 * DAY);
    world.prune_all();
    // What was left behind by the death may have been too young before.
    world.pass(2 * DAY);
    world.prune_all();
    world.holds().map_err(|e| format!("in the end: {e}"))?;
    match world.leftovers() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("left behind: {left:?}")),
    }
}

#[test]
fn a_death_at_any_operation_loses_nothing_and_leaves_nothing_behind() {
    let (tried, wrong) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    for (deed, world) in worlds() {
        let (done, count) = run(&world.fork(), deed, FaultPoint::Never);
        done.unwrap();
        assert!(count > 10, "{deed:?} has {count} operations");
        std::thread::scope(|scope| {
            for start in 0..2 {
                let (world, tried, wrong) = (&world, &tried, &wrong);
                scope.spawn(move || {
                    for number in (start..count).step_by(2) {
                        for point in [FaultPoint::Before(number), FaultPoint::After(number)] {
                            tried.fetch_add(1, Ordering::Relaxed);
                            if let Err(why) = judge(world, deed, point) {
                                let mut wrong = wrong.lock().unwrap();
                                wrong.push(format!("{deed:?}, {point:?}: {why}"));
                            }
                        }
                    }
                });
            }
        });
    }
    let (tried, wrong) = (tried.into_inner(), wrong.into_inner().unwrap());
    let left = wrong.iter().filter(|why| why.contains("left behind"));
    let left = left.count();
    let losses = wrong.len() - left;
    println!("prune kill table: {tried} operations, losses {losses}, leftovers {left}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
