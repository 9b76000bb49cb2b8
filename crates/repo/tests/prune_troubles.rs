//! Pruning where clocks are wrong, files damaged, and storages fail: it is said, nothing is lost, and
//! it comes to an end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use snapkeep_repo::{
    AttributeChange, Copier, ErrorKind, FaultPoint, Faulty, Protect, Storage, Writer, apply_repair,
    plan_repair, prune,
};

use support::between::{Between, Moment, Step};
use support::pruning::{Content, DAY, World, options};
use support::{backup, disk, key, name, open};

fn damage(world: &World, file: &str) {
    (world.memory).damage(&file.parse().unwrap(), |bytes| bytes[40] ^= 1);
}

#[test]
fn a_file_of_the_future_is_never_old_and_is_named() {
    let mut world = World::new();
    world.pass(1000 * DAY);
    world.back_up("1", &disk(1, 7));
    world.pass(-1000 * DAY);
    world.back_up("2", &disk(2, 7));
    world.pass(3 * DAY);
    world.forget("1");
    let report = world.prune().unwrap();
    let marked = report.marked.unwrap();
    assert_eq!(marked.condemned.number, 0, "{marked:?}");
    assert_eq!(marked.young.number, 2, "{marked:?}");
    let packs = world.files("packs");
    assert_eq!(report.ahead.len(), 2, "{report:?}");
    for ahead in &report.ahead {
        assert!(packs.contains(&ahead.file.to_string()), "{report:?}");
        assert_eq!(ahead.time, 2000 * DAY);
    }
    // The same of what waits to be swept.
    world.pass(500 * DAY);
    let generation = world.files("prune").remove(0);
    let report = world.prune().unwrap();
    assert!(
        report
            .ahead
            .iter()
            .all(|ahead| ahead.file.as_str() != generation)
    );
    let mut world = World::due();
    world.forget("2");
    world.pass(-1000 * DAY);
    let report = world.prune().unwrap();
    assert!(report.waiting.is_some() && report.swept.is_none());
    let generation = world.files("prune").remove(0);
    assert_eq!(report.ahead.len(), 1);
    assert_eq!(report.ahead[0].file.to_string(), generation);
}

#[test]
fn a_host_that_may_only_write_does_not_begin_to_prune() {
    let mut world = World::with_history();
    world.forget("1");
    let host = key();
    let protect = Protect::Writer(host.clone());
    world.open().add_key(&protect, None).unwrap();
    let host = open(&world.storage(), &host).unwrap();
    let error = prune(&host, &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongKey);
    assert!(error.to_string().contains("nothing is pruned"), "{error}");
    assert!(world.files("prune").is_empty(), "not even a probe");
}

#[test]
fn the_ages_of_packs_are_asked_by_one_list() {
    let mut world = World::with_history();
    world.forget("1");
    world.forget("3t");
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let hook = move |(moment, operation, file): Step<'_>| {
        if (moment, operation) == (Moment::Before, "modified") && file.starts_with("packs/") {
            count.fetch_add(1, Ordering::SeqCst);
        }
    };
    let between = Arc::new(Between::new(world.storage(), hook));
    let report = prune(&world.open_on(between).unwrap(), &options()).unwrap();
    assert!(report.marked.unwrap().condemned.number > 2);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn an_archive_that_a_sweep_came_upon_is_kept_from_then_on_also_when_it_is_damaged() {
    let mut world = World::due();
    let bytes = disk(5, 7);
    let made = bytes.clone();
    let report = world.prune_while(
        &options(),
        |(moment, operation, file)| {
            (moment, operation) == (Moment::Before, "put") && file.ends_with("-swept")
        },
        // The sweep has listed what there is.
        move |world| drop(backup(&world.open(), &name("5"), None, &made).unwrap()),
    );
    assert!(report.unwrap().swept.unwrap().deleted.number > 0);
    world.archives.insert(name("5"), Content::Disk(bytes));
    world.holds().unwrap();
    assert_eq!(world.markers().len(), 1);
    // What is lost of it later makes it damaged, and not one that nobody was told of.
    for pack in world.files("packs") {
        world.memory.remove(&pack.parse().unwrap()).unwrap();
    }
    assert!(world.open().late(&[name("5")]).unwrap().is_empty());
    assert!(world.open().snapshots().unwrap().contains(&name("5")));
}

#[test]
fn a_sweep_that_takes_longer_than_a_day_goes_on_and_ends() {
    let world = World::due();
    let swept = AtomicBool::new(false);
    let report = world.prune_while(
        &options(),
        move |(moment, operation, file)| {
            let put = (moment, operation) == (Moment::After, "put") && file.ends_with("-swept");
            let walks = swept.load(Ordering::SeqCst) && file.starts_with("packs/");
            swept.fetch_or(put, Ordering::SeqCst);
            walks && operation == "read"
        },
        |world| world.pass(2 * DAY),
    );
    let swept = report.unwrap().swept.unwrap();
    assert!(swept.archives == 2 && swept.deleted.number > 0, "{swept:?}");
    world.holds().unwrap();
    world.prune_all();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn markers_of_sweeps_that_failed_do_not_pile_up() {
    let world = World::due();
    let broken = world.files("snapshots").remove(1);
    damage(&world, &broken);
    for _ in 0..8 {
        world.prune().unwrap_err();
        world.pass(DAY);
    }
    assert!(world.markers().len() <= 4, "{:?}", world.files("prune"));
}

#[test]
fn daily_prunings_end_what_one_died_in_that_names_an_archive_which_was_taken_back() {
    let mut world = World::with_history();
    let archive = world.archives.remove_entry(&name("1")).unwrap();
    world.open().forget(&name("1")).unwrap();
    world.prune().unwrap();
    world.open().take_back(&name("1")).unwrap();
    world.archives.insert(archive.0, archive.1);
    world.pass(DAY);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world
            .prune_while(
                &options(),
                |(moment, operation, file)| {
                    (moment, operation) == (Moment::After, "put") && file.ends_with("-swept")
                },
                |_| panic!("dies"),
            )
            .map(drop)
    }));
    died.unwrap_err();
    for _ in 0..3 {
        world.pass(DAY);
        world.prune().unwrap();
    }
    let files = world.files("prune");
    assert!(
        files.iter().all(|file| file.ends_with("-swept")),
        "{files:?}"
    );
    world.holds().unwrap();
}

#[test]
fn a_damaged_marker_hides_no_archive_and_is_replaced_by_repair() {
    let mut world = World::due();
    world.prune_all();
    let file = world.markers().remove(0);
    damage(&world, &file);
    world.back_up("5", &disk(5, 3));
    let repository = world.open();
    let listed = repository.snapshots().unwrap();
    assert!(world.archives.keys().all(|name| listed.contains(name)));
    assert_eq!(repository.damaged_markers()[0].0.to_string(), file);
    let error = world.prune().unwrap_err();
    assert!(error.to_string().contains(&file), "{error}");
    assert!(error.to_string().contains("snapkeep repair"), "{error}");
    // A backup that began before it may still be about to look.
    let plan = plan_repair(&repository, &()).unwrap();
    assert_eq!(plan.prunings.len(), 1, "{plan:?}");
    let early = world.fork();
    early.pass(-2 * DAY);
    let repaired = apply_repair(&early.open(), &plan).unwrap();
    assert_eq!((repaired.prunings, repaired.left.len()), (0, 1));
    world.pass(2 * DAY);
    let repaired = apply_repair(&repository, &plan).unwrap();
    assert_eq!((repaired.prunings, repaired.left.len()), (1, 0));
    assert!(!world.files("prune").contains(&file));
    assert_eq!(world.markers()[0][..14], file[..14], "the same number");
    world.holds().unwrap();
    assert!(plan_repair(&world.open(), &()).unwrap().is_empty());
    world.forget("5");
    world.pass(2 * DAY);
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_damaged_generation_is_replaced_by_an_empty_one_unless_a_sweep_may_have_read_it() {
    let world = World::due();
    let file = world.files("prune").remove(0);
    damage(&world, &file);
    let error = Writer::new(world.open()).unwrap_err();
    assert!(error.to_string().contains(&file), "{error}");
    let error = world.prune().unwrap_err();
    assert!(error.to_string().contains("snapkeep repair"), "{error}");
    // Another host has read it, and put its marker.
    let swept = world.fork();
    let marker = format!("prune/00000002-{:016x}-swept", 7);
    swept.memory.put(&marker.parse().unwrap(), b"").unwrap();
    let repository = swept.open();
    let plan = plan_repair(&repository, &()).unwrap();
    let repaired = apply_repair(&repository, &plan).unwrap();
    assert_eq!(repaired.prunings, 0, "{repaired:?}");
    assert!(swept.files("prune").contains(&file));
    swept.pass(3 * DAY);
    let repaired = apply_repair(&repository, &plan).unwrap();
    assert_eq!(repaired.prunings, 2, "{repaired:?}");
    swept.prune_all();
    swept.holds().unwrap();
    let plan = plan_repair(&world.open(), &()).unwrap();
    let repaired = apply_repair(&world.open(), &plan).unwrap();
    assert_eq!((repaired.prunings, repaired.left.len()), (1, 0));
    Writer::new(world.open()).unwrap();
    world.holds().unwrap();
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn an_archive_with_a_damaged_record_is_forgotten_only_by_an_act_of_its_own() {
    let mut world = World::with_history();
    let file = format!("snapshots/{}", name("1"));
    damage(&world, &file);
    let error = world.prune().unwrap_err();
    assert!(error.to_string().contains(name("1").as_str()), "{error}");
    let error = world.open().forget(&name("1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("--damaged"), "{error}");
    let whole = world.open().forget_damaged(&name("2"), true, false);
    assert_eq!(whole.unwrap_err().kind(), ErrorKind::Invalid);
    // What is protected needs one more word.
    let protected = world.fork();
    protected
        .open()
        .forget_damaged(&name("1"), true, false)
        .unwrap();
    world
        .open()
        .forget_damaged(&name("1"), true, false)
        .unwrap();
    world
        .open()
        .forget_damaged(&name("1"), false, false)
        .unwrap();
    assert!(!world.open().attributes(&name("1")).unwrap().forgotten);
    world.prune().unwrap_err();
    world
        .open()
        .forget_damaged(&name("1"), true, false)
        .unwrap();
    world.archives.remove(&name("1"));
    world.prune_all();
    assert!(!world.files("snapshots").contains(&file));
    world.pass(2 * DAY);
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_protected_archive_with_a_damaged_record_is_not_forgotten_without_one_more_word() {
    let world = World::with_history();
    world.open().protect(&name("1"), true).unwrap();
    damage(&world, &format!("snapshots/{}", name("1")));
    let refused = world.open().forget_damaged(&name("1"), true, false);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Protected);
    world.open().forget_damaged(&name("1"), true, true).unwrap();
    assert!(world.open().attributes(&name("1")).unwrap().forgotten);
}

#[test]
fn a_list_that_failed_hides_nothing_that_is_condemned() {
    let world = {
        let mut world = World::with_history();
        world.forget("1");
        world
    };
    for number in 0..12 {
        let world = world.fork();
        let faulty = Arc::new(Faulty::new(world.storage(), FaultPoint::Never));
        let repository = world.open_on(Arc::clone(&faulty) as _).unwrap();
        world.prune().unwrap();
        faulty.turn(FaultPoint::Only(faulty.count() + number));
        drop(Writer::new(Arc::clone(&repository)));
        faulty.turn(FaultPoint::Never);
        let made = backup(&repository, &name("5"), None, &disk(1, 7)).unwrap();
        assert!(made.stats.stored > 60_000, "operation {number}: {made:?}");
    }
}

#[test]
fn a_storage_that_fails_is_not_taken_for_one_whose_log_was_pruned() {
    let world = World::due();
    let log = world.open().store_task_log(&[b'l'; 1000]).unwrap();
    // Then it is looked up in tables, which are read.
    world.merge();
    for number in 0.. {
        let world = world.fork();
        let faulty = Arc::new(Faulty::new(world.storage(), FaultPoint::Never));
        let repository = world.open_on(Arc::clone(&faulty) as _).unwrap();
        let begun = faulty.count();
        faulty.turn(FaultPoint::Only(begun + number));
        let change = AttributeChange {
            task_log: Some(log.clone()),
            ..AttributeChange::default()
        };
        let changed = repository.change_attributes(&name("2"), &change);
        if let Err(error) = changed {
            assert_ne!(
                error.kind(),
                ErrorKind::Swept,
                "{number}: {}",
                error.chain()
            );
        }
        if faulty.count() - begun <= number {
            break;
        }
    }
}

#[test]
fn a_copy_under_the_name_of_what_a_pruning_died_removing_waits_until_it_is_gone() {
    let mut source = World::new();
    let bytes = disk(3, 7);
    source.back_up("1", &bytes);
    let mut world = World::due();
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world
            .prune_while(
                &options(),
                |(moment, operation, file)| {
                    (moment, operation) == (Moment::Before, "remove")
                        && file.starts_with("attributes/")
                },
                |_| panic!("dies"),
            )
            .map(drop)
    }));
    died.unwrap_err();
    assert!(
        !world
            .files("snapshots")
            .contains(&format!("snapshots/{}", name("1")))
    );
    let copy = |world: &World| {
        let copier = Copier::new(source.open(), world.open());
        copier.unwrap().copy(&name("1"))
    };
    // What was said of the one that is gone would be taken for the copy's.
    assert_eq!(copy(&world).unwrap_err().kind(), ErrorKind::Swept);
    world.prune_all();
    copy(&world).unwrap();
    world
        .archives
        .insert(name("1"), Content::Disk(bytes.clone()));
    world.pass(2 * DAY);
    world.prune_all();
    world.holds().unwrap();
}
