//! A storage that keeps files from being removed: prunings go on, nothing is lost by it, and what was
//! kept goes once it may.

mod support;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use snapkeep_repo::{Error, ErrorKind, FileName, PruneReport, Result, Storage, leaving, prune};

use support::name;
use support::pruning::{DAY, World, options};

/// Removes nothing in this folder while it is locked.
#[derive(Debug)]
struct Locking {
    inner: Arc<dyn Storage>,
    folder: &'static str,
    locked: Arc<AtomicBool>,
}

impl Storage for Locking {
    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.inner.put(name, bytes)
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.inner.settle(name)
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.inner.read(name, range)
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.inner.length(name)
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.inner.modified(name)
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        self.inner.list(prefix, each)
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        let kept = name.as_str().starts_with(self.folder) && self.locked.load(Ordering::SeqCst);
        if kept {
            let what = format!("{name} is locked until its retention ends");
            return Err(Error::new(ErrorKind::Locked, what));
        }
        self.inner.remove(name)
    }
}

fn run(world: &World, storage: &Arc<dyn Storage>) -> Result<PruneReport> {
    prune(&world.open_on(Arc::clone(storage))?, &options())
}

#[test]
fn what_a_lock_keeps_is_counted_and_goes_in_a_later_sweep() {
    for folder in ["packs/", "snapshots/", "attributes/"] {
        let mut world = World::with_history();
        world.forget("1");
        world.forget("3t");
        let locked = Arc::new(AtomicBool::new(true));
        let storage: Arc<dyn Storage> = Arc::new(Locking {
            inner: world.storage(),
            folder,
            locked: Arc::clone(&locked),
        });
        let condemned = run(&world, &storage).unwrap().marked.unwrap().condemned;
        assert!(condemned.number > 0);
        for _ in 0..2 {
            world.pass(2 * DAY);
            let report = run(&world, &storage).unwrap();
            let swept = report.swept.unwrap();
            assert!(swept.locked.number > 0, "{folder} {swept:?}");
            assert!(report.waiting.is_some(), "{folder}");
            world.holds().unwrap();
        }
        // Whatever was not removed is not there again by that.
        let undone = world.open().take_back(&name("1"));
        assert!(undone.is_err(), "{folder}");
        world.back_up("5", &support::disk(1, 7));
        world.holds().unwrap();
        locked.store(false, Ordering::SeqCst);
        world.pass(2 * DAY);
        let swept = run(&world, &storage).unwrap().swept.unwrap();
        assert_eq!(swept.locked.number, 0, "{folder}");
        world.prune_all();
        world.holds().unwrap();
        assert_eq!(world.leftovers(), Vec::<String>::new(), "{folder}");
    }
}

#[test]
fn an_index_object_that_a_lock_keeps_holds_up_nothing() {
    let mut world = World::with_history();
    world.forget("1");
    world.forget("3t");
    let locked = Arc::new(AtomicBool::new(true));
    let storage: Arc<dyn Storage> = Arc::new(Locking {
        inner: world.storage(),
        folder: "index/",
        locked: Arc::clone(&locked),
    });
    run(&world, &storage).unwrap();
    world.pass(2 * DAY);
    let report = run(&world, &storage).unwrap();
    let swept = report.swept.unwrap();
    assert!(
        swept.locked.number > 0 && swept.deleted.number > 0,
        "{swept:?}"
    );
    assert!(report.marked.is_some());
    world.holds().unwrap();
    // What it names is not relied on.
    world.back_up("5", &support::disk(1, 7));
    world.holds().unwrap();
    locked.store(false, Ordering::SeqCst);
    world.forget("2");
    world.prune_all();
    world.holds().unwrap();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn what_leaves_is_what_is_condemned_and_what_is_forgotten() {
    let mut world = World::with_history();
    assert!(leaving(&world.open()).unwrap().is_empty());
    world.forget("1");
    let files = leaving(&world.open()).unwrap();
    let record: FileName = format!("snapshots/{}", name("1")).parse().unwrap();
    assert!(files.contains(&record));
    let of_attributes = |file: &&FileName| file.as_str().starts_with("attributes/");
    assert_eq!(files.iter().filter(of_attributes).count(), 1, "{files:?}");
    assert_eq!(files.len(), 2, "{files:?}");
    let condemned = world.prune().unwrap().marked.unwrap().condemned;
    let files = leaving(&world.open()).unwrap();
    assert!(files.contains(&record));
    assert_eq!(files.len() as u64, condemned.number + 2);
}
