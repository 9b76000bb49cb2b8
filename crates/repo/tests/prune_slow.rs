//! Pruning on a storage that takes long to remove a file, while others go on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapkeep_repo::{Error, ErrorKind, FileName, PruneOptions, Result, Storage, limits, prune};

use support::between::{Between, Moment, Step};
use support::name;
use support::pruning::{DAY, World, options};

/// What happens while a removal is tried; whether it comes to be done.
type Meanwhile = Box<dyn FnMut() -> bool + Send>;

/// A storage that is slow to remove archives.
struct Slow {
    inner: Arc<dyn Storage>,
    meanwhile: Mutex<Meanwhile>,
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slow").finish_non_exhaustive()
    }
}

impl Storage for Slow {
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

    /// As a bucket does that is tried for ten minutes.
    fn remove(&self, name: &FileName) -> Result<()> {
        if name.as_str().starts_with("snapshots/") {
            while !(self.meanwhile.lock().unwrap())() {}
        }
        self.inner.remove(name)
    }

    fn remove_within(&self, name: &FileName, most: Duration) -> Result<Option<Error>> {
        assert!(most <= Duration::from_secs(limits::LOOK_SECONDS_MAX));
        if name.as_str().starts_with("snapshots/") && !(self.meanwhile.lock().unwrap())() {
            let what = format!("cannot remove {name}: tried for {most:?}");
            return Ok(Some(Error::new(ErrorKind::Io, what)));
        }
        self.inner.remove(name).map(|()| None)
    }
}

/// The file of the archive that goes.
fn record() -> FileName {
    format!("snapshots/{}", name("1")).parse().unwrap()
}

/// A world in which an archive is about to be swept.
fn due() -> World {
    let mut world = World::with_history();
    world.forget("1");
    world.prune().unwrap();
    world.pass(2 * DAY);
    world
}

fn sweep(world: &World, meanwhile: impl FnMut() -> bool + Send + 'static) -> Result<()> {
    let slow = Slow {
        inner: world.storage(),
        meanwhile: Mutex::new(Box::new(meanwhile)),
    };
    let waiting = PruneOptions {
        settle: limits::SETTLE_SECONDS,
        ..options()
    };
    let repository = world.open_on_with_its_clock(Arc::new(slow)).unwrap();
    prune(&repository, &waiting).map(drop)
}

#[test]
fn a_removal_that_takes_long_is_not_tried_again_after_another_pruning_ended_the_sweep() {
    let world = due();
    let other = world.same();
    let mut tries = 0;
    let error = sweep(&world, move || {
        tries += 1;
        if tries == 1 {
            let length = other.memory.length(&record()).unwrap();
            let bytes = (other.memory.read(&record(), 0..length)).unwrap();
            // For four minutes its network is away. Another one sweeps, and the name comes again.
            other.pass(240);
            other.prune().unwrap();
            assert!(other.memory.length(&record()).is_err());
            other.memory.put(&record(), &bytes).unwrap();
        }
        tries > 1
    });
    let error = error.unwrap_err();
    assert!(error.to_string().contains("another pruning"), "{error}");
    assert!(
        world.memory.length(&record()).is_ok(),
        "the copy was deleted"
    );
}

#[test]
fn a_removal_that_takes_long_is_done_after_another_look_or_given_up() {
    let world = due();
    let passes = world.same();
    let mut tries = 0;
    sweep(&world, move || {
        tries += 1;
        passes.pass(30);
        tries > 3
    })
    .unwrap();
    world.holds().unwrap();
    assert!(world.memory.length(&record()).is_err());
    let world = due();
    let tries = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&tries);
    let error = sweep(&world, move || {
        count.fetch_add(1, Ordering::SeqCst);
        false
    });
    assert!(error.unwrap_err().to_string().contains("tried for"));
    let looks = u64::from(limits::REMOVAL_LOOKS);
    assert_eq!(tries.load(Ordering::SeqCst), looks);
    world.prune_all();
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn generations_are_not_removed_by_an_old_list() {
    // While it removes them, another one begins and is about to delete what they name.
    for pause in [0, 600] {
        let mut world = World::with_history();
        world.forget("1");
        world.prune().unwrap();
        world.pass(2 * DAY);
        let (generations, _) = of_prune(&world);
        assert_eq!(generations.len(), 1);
        let other = world.same();
        let ended = Arc::new(AtomicU64::new(0));
        let lists = Arc::clone(&ended);
        let between = Between::new(world.storage(), move |(moment, what, file): Step<'_>| {
            if (moment, what, file) != (Moment::After, "list", "prune") {
                return;
            }
            let gone = other.memory.length(&record()).is_err();
            // The second list of the end, if its archive is gone.
            if gone && lists.fetch_add(1, Ordering::SeqCst) == 1 {
                other.pass(pause);
                dies_after_its_marker(&other);
            }
        });
        let repository = world.open_on_with_its_clock(Arc::new(between)).unwrap();
        drop(prune(&repository, &options()));
        assert!(ended.load(Ordering::SeqCst) >= 2);
        let (left, markers) = of_prune(&world);
        assert!(!markers.is_empty());
        assert_eq!(left == generations, pause > 0, "after {pause} seconds");
    }
}

/// The generations and the markers that are there.
fn of_prune(world: &World) -> (Vec<String>, Vec<String>) {
    let files = world.files("prune").into_iter();
    files.partition(|file| !file.ends_with("-swept"))
}

/// A pruning that is killed once it has put its marker.
fn dies_after_its_marker(world: &World) {
    let between = Between::new(world.storage(), |(moment, what, file): Step<'_>| {
        let marked = (moment, what) == (Moment::After, "put") && file.ends_with("-swept");
        assert!(!marked, "it is killed");
    });
    let repository = world.open_on(Arc::new(between)).unwrap();
    let killed = std::panic::AssertUnwindSafe(|| prune(&repository, &options()));
    assert!(std::panic::catch_unwind(killed).is_err());
}
