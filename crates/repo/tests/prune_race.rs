//! Pruning while others write, prune and change their minds: what they do is tried at every
//! operation of a mark and of a sweep.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use snapkeep_repo::{AttributeChange, DiskReader, ErrorKind, Storage, Writer, prune, verify};

use support::between::{Between, Moment};
use support::pruning::{Content, DAY, World, content_of, options};
use support::{backup, begin, disk, name, snapshot};

/// What others do in a world, and what came of it.
type Others = Arc<dyn Fn(&World) -> Option<(&'static str, Content)> + Send + Sync>;

/// Prunes a world while others do something at this operation; how many operations there were, and
/// which archive was acknowledged meanwhile.
fn prune_with(world: &World, at: u64, others: &Others) -> (u64, Option<(&'static str, Content)>) {
    let count = Arc::new(AtomicU64::new(0));
    let made = Arc::new(Mutex::new(None));
    let hook = {
        let (world, others) = (world.same(), Arc::clone(others));
        let (count, made) = (Arc::clone(&count), Arc::clone(&made));
        move |(moment, _, _): support::between::Step<'_>| {
            if moment == Moment::Before && count.fetch_add(1, Ordering::SeqCst) == at {
                *made.lock().unwrap() = others(&world);
            }
        }
    };
    let repository = world.open_on(Arc::new(Between::new(world.storage(), hook)));
    // It may have to give way; then the next one goes on.
    drop(repository.and_then(|repository| prune(&repository, &options())));
    let made = made.lock().unwrap().take();
    (count.load(Ordering::SeqCst), made)
}

/// Does this at every operation of a pruning of copies of this world.
fn at_every_operation(
    world: &World,
    others: impl Fn(&World) -> Option<(&'static str, Content)> + Send + Sync + 'static,
) -> u64 {
    let others: Others = Arc::new(others);
    let (count, _) = prune_with(&world.fork(), u64::MAX, &others);
    assert!(count > 20, "{count}");
    let mut acknowledged = 0;
    for at in 0..count {
        let mut world = world.fork();
        let (_, made) = prune_with(&world, at, &others);
        if let Some((text, content)) = made {
            acknowledged += 1;
            world.archives.insert(name(text), content);
        }
        let hold = |world: &World, when: &str| {
            (world.holds()).unwrap_or_else(|e| panic!("{when} operation {at}: {e}"));
        };
        hold(&world, "after");
        (world.misses_nothing()).unwrap_or_else(|e| panic!("operation {at}: {e}"));
        for _ in 0..3 {
            world.pass(2 * DAY);
            world.prune_all();
            hold(&world, "long after");
        }
        let left = world.leftovers();
        assert!(left.is_empty(), "operation {at}: {left:?}");
    }
    acknowledged
}

/// A world whose next pruning marks, and one whose next pruning sweeps.
fn worlds() -> (World, World) {
    let mut marks = World::with_history();
    marks.forget("1");
    marks.forget("3t");
    let sweeps = marks.fork();
    sweeps.prune().unwrap();
    sweeps.pass(2 * DAY);
    (marks, sweeps)
}

#[test]
fn two_prunings_at_once_lose_nothing_at_any_operation() {
    let (marks, sweeps) = worlds();
    for world in [marks, sweeps] {
        at_every_operation(&world, |world| {
            world.prune().unwrap();
            None
        });
    }
}

#[test]
fn a_pruning_that_sleeps_while_another_marks_and_sweeps_loses_nothing() {
    let (marks, sweeps) = worlds();
    for world in [marks, sweeps] {
        at_every_operation(&world, |world| {
            world.prune_all();
            None
        });
    }
}

#[test]
fn a_backup_made_at_any_operation_is_whole_if_it_was_acknowledged() {
    let (marks, sweeps) = worlds();
    for world in [marks, sweeps] {
        let acknowledged = at_every_operation(&world, |world| {
            // What only the forgotten archive has.
            let bytes = disk(1, 7);
            let made = backup(&world.open(), &name("5"), None, &bytes);
            match made {
                Ok(_) => Some(("5", Content::Disk(bytes))),
                Err(e) if e.kind() == ErrorKind::Swept => None,
                Err(e) => panic!("{}", e.chain()),
            }
        });
        assert!(acknowledged > 20, "{acknowledged}");
    }
}

/// Tries a commit of what was stored before anything was condemned, at every operation of the mark,
/// and then of the sweep; how many were acknowledged, and how many failed.
fn commit_at_every_operation(bytes: &[u8], sweeps: bool) -> (u32, u32) {
    let (begun, _) = worlds();
    let mut seen = (0, 0);
    let mut at = 0;
    loop {
        let mut world = begun.fork();
        let (writer, record) = begin(&world.open(), None, bytes).unwrap();
        if sweeps {
            world.prune().unwrap();
            world.pass(2 * DAY);
        }
        let waiting = Mutex::new(Some((writer, record)));
        let whole = bytes.to_vec();
        let others: Others = Arc::new(move |_| {
            let (writer, record) = waiting.lock().unwrap().take()?;
            match writer.commit(&name("5"), snapshot(vec![record])) {
                Ok(_) => Some(("5", Content::Disk(whole.clone()))),
                Err(e) if e.kind() == ErrorKind::Swept => None,
                Err(e) => panic!("{}", e.chain()),
            }
        });
        let (count, made) = prune_with(&world, at, &others);
        if at >= count {
            return seen;
        }
        match made {
            Some((text, content)) => {
                seen.0 += 1;
                world.archives.insert(name(text), content);
            }
            None => seen.1 += 1,
        }
        (world.holds()).unwrap_or_else(|e| panic!("after operation {at}: {e}"));
        for _ in 0..3 {
            world.pass(2 * DAY);
            world.prune_all();
            (world.holds()).unwrap_or_else(|e| panic!("long after operation {at}: {e}"));
        }
        assert_eq!(world.leftovers(), Vec::<String>::new(), "operation {at}");
        at += 1;
    }
}

#[test]
fn a_commit_at_any_operation_of_what_was_stored_before_is_whole_or_fails() {
    // What only the forgotten archive has, and so is condemned.
    let (kept, failed) = commit_at_every_operation(&disk(1, 7), false);
    assert!(kept > 20 && failed == 0, "{kept} {failed}");
    let (kept, failed) = commit_at_every_operation(&disk(1, 7), true);
    assert!(kept > 10 && failed > 5, "{kept} {failed}");
}

#[test]
fn an_archive_that_is_taken_back_or_protected_at_any_operation_stays_if_that_was_acknowledged() {
    let (_, sweeps) = worlds();
    let content = World::with_history().archives.remove(&name("1")).unwrap();
    let acknowledged = at_every_operation(&sweeps, move |world| {
        match world.open().take_back(&name("1")) {
            Ok(()) => Some(("1", content.clone())),
            Err(e) => {
                assert!(
                    matches!(e.kind(), ErrorKind::Swept | ErrorKind::NotFound),
                    "{e}"
                );
                None
            }
        }
    });
    assert!(acknowledged > 5, "{acknowledged}");
    let content = World::with_history().archives.remove(&name("1")).unwrap();
    at_every_operation(&sweeps, move |world| {
        // Taken back while the other sleeps, and the sweep is done by a third.
        let taken = world.open().take_back(&name("1"));
        world.prune_all();
        let again = world.open().protect(&name("1"), true);
        let held = taken.is_ok() || again.is_ok();
        held.then(|| ("1", content.clone()))
    });
}

#[test]
fn a_log_that_is_kept_at_any_operation_can_be_read_if_that_was_acknowledged() {
    let (marks, _) = worlds();
    // The log of an archive that is gone, a part of whose packs nothing needs.
    let log = vec![b'l'; 100_000];
    let early = marks.fork();
    let (writer, record) = begin(&early.open(), None, &disk(8, 3)).unwrap();
    writer.commit(&name("8"), snapshot(vec![record])).unwrap();
    let stored = early.open().store_task_log(&log).unwrap();
    early.pass(3 * DAY);
    let mut early = early;
    early.forget("8");
    early.archives.remove(&name("8"));
    for sweeps in [false, true] {
        let mut at = 0;
        loop {
            let world = early.fork();
            if sweeps {
                world.prune().unwrap();
                world.pass(2 * DAY);
            }
            let stored = stored.clone();
            let others: Others = Arc::new(move |world| {
                let change = AttributeChange {
                    task_log: Some(stored.clone()),
                    ..AttributeChange::default()
                };
                let kept = world.open().change_attributes(&name("2"), &change);
                kept.is_ok().then(|| ("2", Content::Disk(Vec::new())))
            });
            let (count, made) = prune_with(&world, at, &others);
            if at >= count {
                break;
            }
            for _ in 0..3 {
                let repository = world.open();
                let found = repository.attributes(&name("2")).unwrap().task_log;
                assert_eq!(found.is_some(), made.is_some(), "operation {at}");
                if let Some(found) = found {
                    assert!(
                        repository.read_task_log(&found).unwrap() == log,
                        "operation {at}"
                    );
                }
                world.pass(2 * DAY);
                world.prune_all();
            }
            at += 1;
        }
    }
}

/// Others do something right before a snapshot is put, and whoever put it dies before its second look.
fn sleeps_and_dies(
    world: &World,
    others: impl Fn(&World) + Send + 'static,
) -> impl FnMut(support::between::Step<'_>) + Send + 'static {
    let (world, mut put) = (world.same(), false);
    move |(moment, operation, name)| {
        if (moment, operation) == (Moment::Before, "put") && name.starts_with("snapshots/") {
            others(&world);
            put = true;
        }
        assert!(!(put && (operation, name) == ("list", "prune")), "dies");
    }
}

#[test]
fn a_writer_that_died_before_its_second_look_leaves_nothing_that_is_listed() {
    let (begun, _) = worlds();
    let bytes = disk(1, 7);
    let world = begun.fork();
    let dying = Arc::new(Between::new(world.storage(), |_| {}));
    let repository = world.open_on(Arc::clone(&dying) as _).unwrap();
    let (writer, record) = begin(&repository, None, &bytes).unwrap();
    // All of it is swept while it sleeps. The writer wakes up, puts its snapshot, and dies.
    dying.hook(sleeps_and_dies(&world, World::prune_all));
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        writer.commit(&name("5"), snapshot(vec![record])).map(drop)
    }));
    died.unwrap_err();
    assert!(
        world
            .files("snapshots")
            .iter()
            .any(|file| file.ends_with("/5"))
    );
    world.holds().unwrap();
    let late = world.open().late(&[name("2"), name("5")]).unwrap();
    assert!(late.contains(&name("5")) && late.len() == 1);
    // It needs nothing, keeps nobody from pruning, and goes with the next generation.
    world.pass(2 * DAY);
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_late_archive_that_is_whole_is_listed_and_stays() {
    let (begun, _) = worlds();
    let mut world = begun.fork();
    let bytes = disk(1, 7);
    let dying = Arc::new(Between::new(world.storage(), |_| {}));
    let repository = world.open_on(Arc::clone(&dying) as _).unwrap();
    let (writer, record) = begin(&repository, None, &bytes).unwrap();
    let same = bytes.clone();
    dying.hook(sleeps_and_dies(&world, move |world| {
        world.prune_all();
        // Another host stores the same again.
        backup(&world.open(), &name("4"), None, &same).unwrap();
    }));
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        writer.commit(&name("5"), snapshot(vec![record])).map(drop)
    }))
    .unwrap_err();
    world
        .archives
        .insert(name("4"), Content::Disk(bytes.clone()));
    world.archives.insert(name("5"), Content::Disk(bytes));
    world.holds().unwrap();
    world.forget("4");
    world.pass(2 * DAY);
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn what_is_condemned_is_stored_anew_by_a_backup_that_begins_then() {
    let (_, sweeps) = worlds();
    let bytes = disk(1, 7);
    let snapshot = backup(&sweeps.open(), &name("5"), None, &bytes).unwrap();
    assert!(snapshot.stats.stored > 60_000 && snapshot.generation == 1);
    let swept = sweeps.prune().unwrap().swept.unwrap();
    assert_eq!(swept.rescued.number, 0);
    let (mut world, content) = (sweeps, Content::Disk(bytes));
    world.archives.insert(name("5"), content);
    world.holds().unwrap();
}

#[test]
fn readers_that_were_there_before_go_on_after_packs_moved() {
    let mut world = World::new();
    world.back_up("1", &disk(1, 7));
    world.back_up("2", &support::pruning::changed(disk(1, 7), 9));
    world.pass(3 * DAY);
    let repository = world.open();
    let record = repository.snapshot(&name("2")).unwrap().disks[0].clone();
    let reader = DiskReader::new(Arc::clone(&repository), record);
    let mut first = vec![0; 1000];
    reader.read_at(0, &mut first).unwrap();
    world.forget("1");
    let packs = world.files("packs");
    world.prune_all();
    assert!(
        world
            .files("packs")
            .iter()
            .any(|pack| !packs.contains(pack))
    );
    let Content::Disk(bytes) = &world.archives[&name("2")] else {
        panic!("it is a disk");
    };
    let mut all = vec![0; bytes.len()];
    reader.read_at(0, &mut all).unwrap();
    assert!(all == *bytes);
    assert_eq!(
        content_of(&repository, &name("2")).unwrap(),
        world.archives[&name("2")]
    );
    let report = verify(&repository).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    // What is in no pack any more is not relied on.
    let again = backup(&repository, &name("3"), None, &disk(1, 7)).unwrap();
    assert!(again.stats.stored > 60_000);
    assert_eq!(
        content_of(&world.open(), &name("3")).unwrap(),
        Content::Disk(disk(1, 7))
    );
}

#[test]
fn a_storage_that_is_not_there_is_not_taken_for_a_pruned_one() {
    let world = World::with_history();
    let repository = world.open();
    for folder in ["packs", "config"] {
        let files = match folder {
            "config" => vec!["config".to_owned()],
            _ => world.files(folder),
        };
        for file in files {
            world.memory.remove(&file.parse().unwrap()).unwrap();
        }
    }
    let error = content_of(&repository, &name("2")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain());
}

#[test]
fn a_generation_that_cannot_be_read_keeps_writers_out_and_readers_not() {
    let (_, sweeps) = worlds();
    let file = sweeps.files("prune").remove(0);
    sweeps
        .memory
        .damage(&file.parse().unwrap(), |bytes| bytes[40] ^= 1);
    let is_read = |world: &World| {
        let repository = world.open();
        for (name, content) in &world.archives {
            assert_eq!(content_of(&repository, name).unwrap(), *content);
        }
        let damage = verify(&repository).unwrap().damage;
        assert!(damage.len() == 1 && damage[0].object == file, "{damage:?}");
    };
    is_read(&sweeps);
    let error = Writer::new(sweeps.open()).unwrap_err();
    assert!(error.to_string().contains(&file), "{error}");
    let error = prune(&sweeps.open(), &options()).unwrap_err();
    assert!(error.to_string().contains(&file), "{error}");
    is_read(&sweeps);
}

#[test]
fn a_verification_during_which_all_is_pruned_at_any_operation_finds_no_damage() {
    let (marks, sweeps) = worlds();
    for world in [marks, sweeps] {
        let verified = |at: u64| {
            let world = world.fork();
            let count = Arc::new(AtomicU64::new(0));
            let hook = {
                let (world, count) = (world.same(), Arc::clone(&count));
                move |(moment, _, _): support::between::Step<'_>| {
                    if moment == Moment::Before && count.fetch_add(1, Ordering::SeqCst) == at {
                        world.prune_all();
                    }
                }
            };
            let repository = world.open();
            let repository = world
                .open_on(Arc::new(Between::new(world.storage(), hook)))
                .unwrap_or(repository);
            let report = verify(&repository).unwrap();
            assert!(report.damage.is_empty(), "{at}: {:?}", report.damage);
            assert!(report.snapshots > 0, "{at}");
            count.load(Ordering::SeqCst)
        };
        let count = verified(u64::MAX);
        assert!(count > 20, "{count}");
        for at in 0..count {
            verified(at);
        }
    }
}
