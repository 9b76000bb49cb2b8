//! Prunings that overlap, and writers that remove what they made: no later pruning misses an archive
//! that is rightly gone, and asks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use snapkeep_repo::{ErrorKind, FileName, PruneOptions, Result, Storage, limits, prune};

use support::between::{Between, Moment, Step};
use support::pruning::{Content, DAY, World, options};
use support::stale::Stale;
use support::{begin, disk, name, snapshot};

/// A pruning that asks where it is to be confirmed.
fn asking() -> PruneOptions {
    PruneOptions {
        confirmed: false,
        ..options()
    }
}

fn puts_marker((moment, operation, file): Step<'_>) -> bool {
    (moment, operation) == (Moment::After, "put") && file.ends_with("-swept")
}

/// A pruning that is killed once it has put its marker.
fn dies_after_its_marker(world: &World) {
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world
            .prune_while(&options(), puts_marker, |_| panic!("dies"))
            .map(drop)
    }));
    died.unwrap_err();
}

fn record(text: &str) -> FileName {
    format!("snapshots/{}", name(text)).parse().unwrap()
}

/// Nothing is missed, now and after more prunings.
fn is_at_peace(world: &World, when: &str) {
    for _ in 0..3 {
        (world.misses_nothing()).unwrap_or_else(|e| panic!("{when}: {e}"));
        world.prune_all();
        (world.holds()).unwrap_or_else(|e| panic!("{when}: {e}"));
        world.pass(2 * DAY);
    }
    assert_eq!(world.markers().len(), 1, "{when}");
}

#[test]
fn a_sweep_that_another_overtakes_at_any_operation_names_nothing_that_is_missed_later() {
    // It is condemned, and was taken back.
    let mut start = World::with_history();
    let archive = start.archives.remove_entry(&name("1")).unwrap();
    start.open().forget(&name("1")).unwrap();
    start.prune().unwrap();
    start.open().take_back(&name("1")).unwrap();
    start.archives.insert(archive.0, archive.1);
    start.pass(2 * DAY);
    for at in 0.. {
        let mut world = start.fork();
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let is_meant = move |(moment, _, _): Step<'_>| {
            moment == Moment::Before && counted.fetch_add(1, Ordering::SeqCst) == at
        };
        // It is forgotten again, and another one sweeps it.
        let pruned = world.prune_while(&options(), is_meant, |world| {
            world.same().forget("1");
            drop(world.prune());
        });
        if count.load(Ordering::SeqCst) <= at {
            break;
        }
        drop(pruned);
        world.archives.remove(&name("1"));
        is_at_peace_after_all(&world, at);
    }
}

/// The same where the archive may be there for a while.
fn is_at_peace_after_all(world: &World, at: u64) {
    let when = format!("operation {at}");
    (world.misses_nothing()).unwrap_or_else(|e| panic!("{when}: {e}"));
    world.prune_all();
    world.pass(2 * DAY);
    world.prune_all();
    world.pass(2 * DAY);
    is_at_peace(world, &when);
}

#[test]
fn what_one_marker_of_two_names_is_not_missed() {
    for ended in [false, true] {
        let mut world = World::due();
        dies_after_its_marker(&world);
        // Another one comes upon an archive that its writer removes, and dies too.
        world.back_up("5", &disk(5, 7));
        dies_after_its_marker(&world);
        assert_eq!(world.markers().len(), 2);
        world.memory.remove(&record("5")).unwrap();
        world.archives.remove(&name("5"));
        if ended {
            // The one that ended what both swept died before it removed the other's marker.
            let generation = world.files("prune").remove(0);
            world.memory.remove(&generation.parse().unwrap()).unwrap();
        }
        is_at_peace(&world, &format!("{ended}"));
    }
}

#[test]
fn what_all_markers_name_is_missed_until_a_confirmed_sweep_names_it_no_more() {
    let mut world = World::due();
    world.back_up("5", &disk(5, 7));
    dies_after_its_marker(&world);
    world.prune_all();
    let length = world.memory.length(&record("5")).unwrap();
    let bytes = world.memory.read(&record("5"), 0..length).unwrap();
    world.memory.remove(&record("5")).unwrap();
    world.archives.remove(&name("5"));
    let error = prune(&world.open(), &asking()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("not listed"), "{error}");
    // Until then it may come back, and is no late archive.
    world.pass(2 * DAY);
    world.prune().unwrap();
    let back = world.fork();
    back.memory.put(&record("5"), &bytes).unwrap();
    assert!(back.open().snapshots().unwrap().contains(&name("5")));
    world.pass(2 * DAY);
    assert!(world.misses_nothing().is_err());
    world.prune_all();
    is_at_peace(&world, "confirmed");
}

#[test]
fn an_archive_that_vanishes_while_a_sweep_looks_stops_it() {
    let mut world = World::due();
    world.back_up("5", &disk(5, 7));
    let vanishes = |world: &World| world.memory.remove(&record("5")).unwrap();
    let packs = world.files("packs");
    let kept = world.fork();
    let error = kept
        .prune_while(&asking(), puts_marker, vanishes)
        .unwrap_err();
    assert!(error.to_string().contains("is gone now"), "{error}");
    assert_eq!(kept.files("packs"), packs);
    let report = world
        .prune_while(&options(), puts_marker, vanishes)
        .unwrap();
    assert!(report.swept.unwrap().deleted.number > 0);
    world.archives.remove(&name("5"));
    is_at_peace(&world, "confirmed");
}

#[test]
fn a_sweep_whose_lists_lack_what_is_there_deletes_nothing() {
    let lag = 1000;
    let mut world = World::due();
    let stale = Arc::new(Stale::new(Arc::clone(&world.memory), world.time(), lag));
    let storage = Arc::clone(&stale) as Arc<dyn Storage>;
    support::backup(
        &world.open_on(Arc::clone(&storage)).unwrap(),
        &name("5"),
        None,
        &disk(5, 7),
    )
    .unwrap();
    world.archives.insert(name("5"), Content::Disk(disk(5, 7)));
    world.pass(lag);
    let (others, done) = (world.same(), AtomicBool::new(false));
    let between = Between::new(storage, move |step| {
        if puts_marker(step) && !done.swap(true, Ordering::SeqCst) {
            // From here on lists are of a time before the archive.
            others.pass(-lag / 2);
        }
    });
    let packs = world.files("packs");
    let error = prune(&world.open_on(Arc::new(between)).unwrap(), &options()).unwrap_err();
    assert!(error.to_string().contains("contradict"), "{error}");
    assert_eq!(world.files("packs"), packs);
    world.holds().unwrap();
}

/// Commits an archive, which may be one that a sweep misses, while this happens at each
/// step after its snapshot was put.
fn commit_late(
    world: &World,
    miss: bool,
    mut then: impl FnMut(&World, Step<'_>) + Send + 'static,
) -> Result<()> {
    let writes = Arc::new(Between::new(world.storage(), |_| {}));
    let repository = world
        .open_on_with_its_clock(Arc::clone(&writes) as _)
        .unwrap();
    let (writer, record) = begin(&repository, None, &disk(5, 7)).unwrap();
    let (others, mut put) = (world.same(), false);
    writes.hook(move |step| {
        let (moment, operation, file) = step;
        let puts = operation == "put" && file.starts_with("snapshots/");
        if miss && puts && moment == Moment::Before {
            dies_after_its_marker(&others);
        }
        put |= puts && moment == Moment::After;
        if put {
            then(&others, step);
        }
    });
    let committed = writer.commit(&name("5"), snapshot(vec![record]));
    committed.map(drop)
}

/// Commits an archive while lists of `prune/` show a generation that is gone, in a world that goes on
/// for so many seconds; whether it is there afterwards.
fn commit_while_lists_are_old(world: &World, miss: bool, seconds: i64) -> bool {
    let generation = world.files("prune").remove(0);
    let file: FileName = generation.parse().unwrap();
    let length = world.memory.length(&file).unwrap();
    let bytes = world.memory.read(&file, 0..length).unwrap();
    let mut slept = false;
    let committed = commit_late(world, miss, move |world, (moment, operation, folder)| {
        if !std::mem::replace(&mut slept, true) {
            world.pass(seconds);
        }
        if (operation, folder) == ("list", "prune") {
            match moment {
                Moment::Before => world.memory.put(&file, &bytes).unwrap(),
                Moment::After => world.memory.remove(&file).unwrap(),
            }
        }
    });
    assert_eq!(committed.unwrap_err().kind(), ErrorKind::Swept);
    world.memory.length(&record("5")).is_ok()
}

#[test]
fn an_archive_of_which_nothing_can_be_told_stays() {
    let slept = i64::try_from(limits::WRITER_SECONDS_MAX).unwrap() + 1;
    for (miss, seconds) in [(true, 0), (false, slept)] {
        let mut world = World::due();
        assert!(commit_while_lists_are_old(&world, miss, seconds));
        // It is whole, so it is listed.
        world.archives.insert(name("5"), Content::Disk(disk(5, 7)));
        world.holds().unwrap();
        world.prune_all();
        world.holds().unwrap();
    }
    // If it is late and not whole, nobody is shown it.
    let world = World::due();
    let before = world.files("packs");
    assert!(commit_while_lists_are_old(&world, true, 0));
    for pack in world.files("packs") {
        if !before.contains(&pack) {
            world.memory.remove(&pack.parse().unwrap()).unwrap();
        }
    }
    world.holds().unwrap();
}

/// A sweep misses an archive whose writer has all but its record stored, and the mark after it has
/// looked what is needed when the record is put: it condemns all that only this archive needs. If the
/// writer sleeps then, it looks again while the next sweep has just named it. What it says.
fn made_while_a_mark_looks(world: &mut World, sleeps: bool) -> Result<()> {
    let waits = Arc::new(Between::new(world.storage(), |_| {}));
    let storage = Arc::clone(&waits) as Arc<dyn Storage>;
    let repository = world.open_on_with_its_clock(storage).unwrap();
    let bytes = disk(5, 7);
    let (writer, record) = begin(&repository, None, &bytes).unwrap();
    let meet = Arc::new(Barrier::new(2));
    let met = Arc::clone(&meet);
    waits.hook(move |(moment, operation, file)| {
        let puts = operation == "put" && file.starts_with("snapshots/");
        if puts && (moment == Moment::Before || sleeps) {
            met.wait();
            met.wait();
        }
    });
    let met = Arc::clone(&meet);
    let writer = std::thread::spawn(move || {
        let committed = writer.commit(&name("5"), snapshot(vec![record]));
        met.wait();
        committed.map(drop)
    });
    meet.wait();
    let met = Arc::clone(&meet);
    let goes_on = move |_: &World| {
        met.wait();
        met.wait();
    };
    let puts_generation = |(moment, operation, file): Step<'_>| {
        let other = file.ends_with("-swept") || file.ends_with("-probe");
        let is_generation = file.starts_with("prune/") && !other;
        (moment, operation) == (Moment::Before, "put") && is_generation
    };
    let at_once = PruneOptions {
        grace: 0,
        ..options()
    };
    let report = world
        .prune_while(&at_once, puts_generation, goes_on.clone())
        .unwrap();
    assert!(report.marked.unwrap().condemned.number > 0);
    if sleeps {
        world.pass(2 * DAY);
        world.prune_while(&options(), puts_marker, goes_on).unwrap();
    }
    world.archives.insert(name("5"), Content::Disk(bytes));
    writer.join().unwrap()
}

#[test]
fn a_late_archive_is_there_though_a_later_mark_condemns_what_it_needs() {
    let mut world = World::due();
    made_while_a_mark_looks(&mut world, false).unwrap();
    world.holds().unwrap();
    // Also while it is swept, and if that sweep dies once it has said what stays.
    world.pass(2 * DAY);
    dies_after_its_marker(&world);
    world.holds().unwrap();
    world.pass(2 * DAY);
    is_at_peace(&world, "at last");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_writer_that_slept_leaves_what_a_sweep_is_about_to_copy() {
    let mut world = World::due();
    let error = made_while_a_mark_looks(&mut world, true).unwrap_err();
    assert!(error.to_string().contains("could not be proven"), "{error}");
    world.holds().unwrap();
    is_at_peace(&world, "swept");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
