//! Pruning, one host at a time: what goes, what stays, and when it stops and asks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use snapkeep_repo::{AttributeChange, ErrorKind, PruneOptions, Storage, prune};

use support::pruning::{DAY, World, changed, options, tree};
use support::{backup, disk, name};

#[test]
fn what_only_forgotten_archives_need_is_deleted_after_the_grace_and_not_before() {
    let mut world = World::with_history();
    let before = world.files("packs").len();
    world.forget("1");
    world.forget("3t");
    let report = world.prune().unwrap();
    let marked = report.marked.unwrap();
    assert_eq!(marked.archives, 2);
    assert!(
        marked.condemned.number > 0 && report.swept.is_none(),
        "{report:?}"
    );
    let until = report.waiting.unwrap().until;
    assert_eq!(until, 1004 * DAY);
    world.holds().unwrap();
    world.pass(DAY - 1);
    let report = world.prune().unwrap();
    assert_eq!((report.swept, report.marked), (None, None));
    assert_eq!(report.waiting.unwrap().until, until);
    assert!(world.files("packs").len() >= before);
    world.pass(1);
    let report = world.prune().unwrap();
    let swept = report.swept.unwrap();
    assert_eq!(swept.archives, 2);
    assert_eq!((swept.deleted, swept.rescued.number), (marked.condemned, 0));
    world.holds().unwrap();
    assert_eq!(world.files("snapshots").len(), 2);
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn without_anything_to_prune_nothing_is_written_but_a_probe_that_is_gone() {
    let world = World::with_history();
    let before: Vec<_> = ["packs", "index", "snapshots"]
        .map(|f| world.files(f))
        .into();
    let report = world.prune().unwrap();
    assert_eq!(report.marked.unwrap().condemned.number, 0);
    assert_eq!(report.waiting, None);
    assert_eq!(world.files("prune"), Vec::<String>::new());
    assert_eq!(
        before,
        ["packs", "index", "snapshots"].map(|f| world.files(f))
    );
}

#[test]
fn what_was_put_a_short_time_ago_is_let_alone() {
    let mut world = World::new();
    world.back_up("1", &disk(1, 7));
    world.pass(3 * DAY);
    world.back_up("2", &disk(2, 7));
    world.forget("2");
    let marked = world.prune().unwrap().marked.unwrap();
    assert_eq!((marked.condemned.number, marked.archives), (0, 1));
    assert!(marked.young.number > 0);
    // Only the archive goes; its packs go with the next generation.
    world.pass(DAY);
    let report = world.prune().unwrap();
    assert_eq!(report.swept.unwrap().archives, 1);
    assert!(report.marked.unwrap().condemned.number > 0);
    world.pass(DAY);
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_dry_run_changes_nothing_and_tells_the_same() {
    let mut world = World::with_history();
    world.forget("1");
    let dry = PruneOptions {
        dry_run: true,
        ..options()
    };
    let everything = |world: &World| {
        [
            "packs",
            "index",
            "snapshots",
            "attributes",
            "prune",
            "features",
        ]
        .map(|f| world.files(f))
    };
    let before = everything(&world);
    let told = prune(&world.open(), &dry).unwrap();
    assert_eq!(everything(&world), before);
    let done = world.prune().unwrap();
    assert_eq!(
        told.marked.unwrap().condemned,
        done.marked.unwrap().condemned
    );
    assert_eq!(told.marked.unwrap().repacked, done.marked.unwrap().repacked);
    world.pass(DAY);
    let before = everything(&world);
    let told = prune(&world.open(), &dry).unwrap();
    assert_eq!(everything(&world), before);
    let done = world.prune().unwrap();
    assert_eq!(told.swept, done.swept);
}

#[test]
fn packs_that_are_needed_in_part_are_repacked_within_the_budget() {
    let mut world = World::new();
    world.back_up("1", &disk(1, 7));
    world.back_up("2", &changed(disk(1, 7), 9));
    world.pass(3 * DAY);
    world.forget("1");
    let bytes = |world: &World| -> u64 {
        let length = |file: &String| world.memory.length(&file.parse().unwrap()).unwrap();
        world.files("packs").iter().map(length).sum()
    };
    let before = bytes(&world);
    let none = PruneOptions {
        max_repack: 0,
        ..options()
    };
    let marked = prune(&world.fork().open(), &none).unwrap().marked.unwrap();
    // What only the forgotten one's map has goes without a copy.
    assert_eq!((marked.repacked.number, marked.condemned.number), (0, 1));
    assert!(marked.unused > 60_000, "{marked:?}");
    let much = PruneOptions {
        max_unused: 990,
        ..options()
    };
    let marked = prune(&world.fork().open(), &much).unwrap().marked.unwrap();
    assert_eq!(marked.repacked.number, 0);
    let marked = world.prune().unwrap().marked.unwrap();
    assert!(marked.repacked.number > 0 && marked.condemned.number > 0);
    assert_eq!(marked.unused, 0);
    world.pass(DAY);
    world.prune_all();
    world.holds().unwrap();
    assert!(
        bytes(&world) + 60_000 < before,
        "{before} {}",
        bytes(&world)
    );
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn a_chunk_that_lies_in_several_packs_keeps_one_and_the_others_become_free() {
    let mut world = World::new();
    let (one, two) = (world.open(), world.open());
    // Neither sees what the other stores.
    let bytes = disk(1, 7);
    backup(&one, &name("1"), None, &bytes).unwrap();
    backup(&two, &name("2"), None, &bytes).unwrap();
    for text in ["1", "2"] {
        let content = support::pruning::Content::Disk(bytes.clone());
        world.archives.insert(name(text), content);
    }
    world.pass(3 * DAY);
    let packs = world.files("packs").len();
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.files("packs").len(), packs / 2);
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn configurations_and_logs_are_needed_too() {
    let mut world = World::new();
    world.back_up("1", &disk(1, 3));
    let repository = world.open();
    let log = repository.store_task_log(&vec![b'l'; 70_000]).unwrap();
    let change = AttributeChange {
        task_log: Some(log),
        ..AttributeChange::default()
    };
    repository.change_attributes(&name("1"), &change).unwrap();
    world.back_up("0", &disk(5, 3));
    world.pass(3 * DAY);
    world.forget("0");
    world.prune_all();
    let repository = world.open();
    let log = repository.attributes(&name("1")).unwrap().task_log.unwrap();
    assert!(repository.read_task_log(&log).unwrap() == vec![b'l'; 70_000]);
    world.holds().unwrap();
}

#[test]
fn a_protected_archive_and_one_that_was_taken_back_stay_whole() {
    let mut world = World::with_history();
    let kept = (name("1"), world.archives[&name("1")].clone());
    world.forget("1");
    world.forget("3t");
    world.prune().unwrap();
    world.open().take_back(&name("1")).unwrap();
    world.archives.insert(kept.0, kept.1);
    world.pass(DAY);
    let swept = world.prune().unwrap().swept.unwrap();
    assert_eq!(swept.archives, 1);
    assert!(swept.rescued.number > 0, "{swept:?}");
    world.holds().unwrap();
    world.pass(2 * DAY);
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

/// The error of a pruning that must stop, after which nothing is condemned.
fn stops(world: &World, options: &PruneOptions) -> snapkeep_repo::Error {
    let before = ["packs", "prune", "snapshots"].map(|folder| world.files(folder));
    let error = prune(&world.open(), options).unwrap_err();
    let after = ["packs", "prune", "snapshots"].map(|folder| world.files(folder));
    assert_eq!(before, after, "{error}");
    error
}

fn asking() -> PruneOptions {
    PruneOptions {
        confirmed: false,
        ..options()
    }
}

#[test]
fn what_cannot_be_read_stops_it_with_nothing_condemned() {
    let mut world = World::with_history();
    world.forget("1");
    let damaged = |file: &str| {
        let damaged = world.fork();
        damaged.memory.damage(&file.parse().unwrap(), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        stops(&damaged, &options()).chain()
    };
    let error = damaged(&world.files("snapshots")[1]);
    assert!(error.contains(name("2").as_str()), "{error}");
    let error = damaged(&world.files("attributes")[0]);
    assert!(error.contains("protected cannot be told"), "{error}");
    let last = world.files("packs");
    // A pack that lost its end is absent, and with it what it holds.
    for pack in last {
        let damaged = world.fork();
        let file = pack.parse().unwrap();
        damaged.memory.damage(&file, |bytes| bytes.truncate(200));
        let repository = damaged.open();
        let is_lost = |name| support::pruning::content_of(&repository, name).is_err();
        if damaged.archives.keys().any(is_lost) {
            let error = stops(&damaged, &options()).chain();
            assert!(error.contains("is in no pack"), "{error}");
        }
    }
    // Read errors, one after the other.
    let count = {
        let faulty = std::sync::Arc::new(snapkeep_repo::Faulty::new(
            world.fork().storage(),
            snapkeep_repo::FaultPoint::Never,
        ));
        let repository = world.open_on(faulty.clone()).unwrap();
        prune(&repository, &options()).unwrap();
        faulty.count()
    };
    for number in 0..count {
        let fork = world.fork();
        let point = snapkeep_repo::FaultPoint::Only(number);
        let faulty = snapkeep_repo::Faulty::new(fork.storage(), point);
        let pruned = fork
            .open_on(std::sync::Arc::new(faulty))
            .and_then(|repository| prune(&repository, &options()));
        if pruned.is_ok() {
            // The error was in what is made good otherwise.
            fork.pass(DAY);
        }
        fork.holds()
            .unwrap_or_else(|e| panic!("operation {number}: {e}"));
        fork.prune_all();
        fork.holds()
            .unwrap_or_else(|e| panic!("operation {number}: {e}"));
    }
}

#[test]
fn an_index_object_that_is_missing_makes_it_ask_once() {
    let mut world = World::with_history();
    world.forget("3t");
    let writer = world.open().any_snapshot(&name("2")).unwrap().writer;
    let object = format!("index/{writer}/00000000");
    world.memory.remove(&object.parse().unwrap()).unwrap();
    let error = stops(&world, &asking());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains(&object), "{error}");
    world.prune_all();
    world.holds().unwrap();
    // What was confirmed is no question any more.
    world.forget("1");
    world.pass(2 * DAY);
    prune(&world.open(), &asking()).unwrap();
    world.holds().unwrap();
}

#[test]
fn more_than_half_of_all_packs_makes_it_ask() {
    let mut world = World::new();
    world.back_up("1", &disk(1, 4));
    world.back_up("2", &disk(2, 4));
    world.back_up("3", &disk(3, 4));
    world.pass(3 * DAY);
    world.forget("1");
    let fork = world.fork();
    assert!(prune(&fork.open(), &asking()).is_ok());
    world.forget("2");
    let error = stops(&world, &asking());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("4 of 6 packs"), "{error}");
    world.prune_all();
    world.holds().unwrap();
}

#[test]
fn an_archive_that_vanished_without_being_forgotten_makes_it_ask() {
    let mut world = World::with_history();
    world.back_up("5", &disk(5, 9));
    world.back_up("6", &disk(6, 9));
    world.pass(3 * DAY);
    world.forget("1");
    world.prune_all();
    assert_eq!(world.files("prune").len(), 1);
    let empty = world.fork();
    world
        .memory
        .remove(&"snapshots/main/vm/100/2".parse().unwrap())
        .unwrap();
    world.archives.remove(&name("2"));
    let error = stops(&world, &asking());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("of 5 archives"), "{error}");
    assert!(error.to_string().contains(" 1 are not listed"), "{error}");
    world.prune_all();
    world.holds().unwrap();
    for file in empty.files("snapshots") {
        empty.memory.remove(&file.parse().unwrap()).unwrap();
    }
    let error = stops(&empty, &asking());
    assert!(
        error.to_string().contains("no archive is listed at all"),
        "{error}"
    );
}

#[test]
fn a_file_with_a_packs_name_that_is_none_is_never_condemned() {
    let mut world = World::with_history();
    let text = blake3::hash(b"foreign").to_string();
    let foreign = format!("packs/{}/{text}", &text[..2]);
    world
        .memory
        .put(&foreign.parse().unwrap(), b"foreign")
        .unwrap();
    world.pass(3 * DAY);
    world.forget("1");
    world.prune_all();
    assert!(world.files("packs").contains(&foreign));
    world.memory.remove(&foreign.parse().unwrap()).unwrap();
    world.holds().unwrap();
}

#[test]
fn what_a_killed_backup_left_goes() {
    let world = World::with_history();
    let faulty = snapkeep_repo::Faulty::new(
        std::sync::Arc::new(StopsAtSnapshots(world.storage())),
        snapkeep_repo::FaultPoint::Never,
    );
    let repository = world.open_on(std::sync::Arc::new(faulty)).unwrap();
    backup(&repository, &name("9"), None, &disk(9, 9)).unwrap_err();
    let packs = world.files("packs").len();
    world.prune_all();
    assert_eq!(world.files("packs").len(), packs, "it may be at work");
    world.pass(DAY);
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

/// Fails to put snapshots.
#[derive(Debug)]
struct StopsAtSnapshots(std::sync::Arc<dyn Storage>);

impl Storage for StopsAtSnapshots {
    fn put(&self, name: &snapkeep_repo::FileName, bytes: &[u8]) -> snapkeep_repo::Result<()> {
        if name.as_str().starts_with("snapshots/") {
            return Err(snapkeep_repo::Error::new(ErrorKind::Io, "killed"));
        }
        self.0.put(name, bytes)
    }

    fn settle(&self, name: &snapkeep_repo::FileName) -> snapkeep_repo::Result<()> {
        self.0.settle(name)
    }

    fn read(
        &self,
        name: &snapkeep_repo::FileName,
        range: std::ops::Range<u64>,
    ) -> snapkeep_repo::Result<Vec<u8>> {
        self.0.read(name, range)
    }

    fn length(&self, name: &snapkeep_repo::FileName) -> snapkeep_repo::Result<u64> {
        self.0.length(name)
    }

    fn modified(&self, name: &snapkeep_repo::FileName) -> snapkeep_repo::Result<i64> {
        self.0.modified(name)
    }

    fn list(
        &self,
        prefix: &snapkeep_repo::FileName,
        each: &mut dyn FnMut(&snapkeep_repo::FileName, u64) -> snapkeep_repo::Result<()>,
    ) -> snapkeep_repo::Result<()> {
        self.0.list(prefix, each)
    }

    fn remove(&self, name: &snapkeep_repo::FileName) -> snapkeep_repo::Result<()> {
        self.0.remove(name)
    }
}

#[test]
fn trees_with_what_the_next_backup_compares_with_are_kept() {
    let mut world = World::new();
    world.back_up_tree("1t", &tree(1));
    world.back_up_tree("2t", &tree(2));
    world.pass(3 * DAY);
    world.forget("1t");
    world.prune_all();
    world.holds().unwrap();
    // The witnesses are proven by the verification in it, which reads them.
    assert_eq!(world.leftovers(), Vec::<String>::new());
}
