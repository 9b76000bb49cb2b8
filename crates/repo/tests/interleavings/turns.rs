//! Lets one actor run at a time: each waits before its operations on the storage until it is its
//! turn. So an order of operations is chosen, and can be had again.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use snapkeep_repo::{Clock, Error, ErrorKind, FileName, MemoryStorage, Result, Storage};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Actor {
    /// It runs, or was told to.
    Running,
    Waiting,
    /// It waits for time to pass, in which each other does at least one operation.
    Resting,
    Ended,
}

/// What happens to one operation of an actor, counted from zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// It and all later ones have no effect: the process was killed.
    Killed(u64),
    /// It takes effect and its reply is lost.
    Lost(u64),
}

#[derive(Debug)]
pub(crate) struct Turns {
    actors: Mutex<Vec<Actor>>,
    /// How many turns each had, and how many each had when another began to rest.
    had: Mutex<Vec<u64>>,
    rests: Mutex<Vec<Vec<u64>>>,
    changed: Condvar,
    /// Time passes only while somebody rests.
    seconds: AtomicU64,
}

impl Turns {
    pub(crate) fn new(actors: usize) -> Arc<Self> {
        Arc::new(Self {
            actors: Mutex::new(vec![Actor::Running; actors]),
            had: Mutex::new(vec![0; actors]),
            rests: Mutex::new(vec![Vec::new(); actors]),
            seconds: AtomicU64::new(0),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Actor>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, actor: usize, what: Actor) {
        self.lock()[actor] = what;
        self.changed.notify_all();
    }

    /// An actor waits for its turn.
    fn wait(&self, actor: usize) {
        self.set(actor, Actor::Waiting);
        let actors = self.lock();
        let waiting = |actors: &mut Vec<Actor>| actors[actor] == Actor::Waiting;
        drop(self.changed.wait_while(actors, waiting));
    }

    /// An actor waits for so many seconds: no other's operation takes longer.
    fn rest(&self, actor: usize, seconds: u64) {
        let had = self.had.lock().expect("not poisoned").clone();
        self.rests.lock().expect("not poisoned")[actor] = had;
        self.set(actor, Actor::Resting);
        let actors = self.lock();
        let resting = |actors: &mut Vec<Actor>| actors[actor] == Actor::Resting;
        drop(self.changed.wait_while(actors, resting));
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Whether an actor has rested: all others have done something, or rest or ended too.
    fn has_rested(&self, actors: &[Actor], actor: usize) -> bool {
        let had = self.had.lock().expect("not poisoned");
        let rests = self.rests.lock().expect("not poisoned");
        let stands = |other: usize| {
            other != actor && actors[other] == Actor::Waiting && had[other] == rests[actor][other]
        };
        !(0..actors.len()).any(stands)
    }

    /// The actors that wait, once none runs. None: all have ended.
    pub(crate) fn waiting(&self) -> Vec<usize> {
        let actors = self.lock();
        let running = |actors: &mut Vec<Actor>| actors.contains(&Actor::Running);
        let actors = self.changed.wait_while(actors, running);
        let actors = actors.unwrap_or_else(PoisonError::into_inner);
        let number = |(i, actor): (usize, &Actor)| match actor {
            Actor::Waiting => Some(i),
            Actor::Resting => self.has_rested(&actors, i).then_some(i),
            Actor::Running | Actor::Ended => None,
        };
        actors.iter().enumerate().filter_map(number).collect()
    }

    pub(crate) fn give(&self, actor: usize) {
        self.had.lock().expect("not poisoned")[actor] += 1;
        self.set(actor, Actor::Running);
    }
}

/// The clock of an actor.
#[derive(Debug)]
pub(crate) struct Rests(pub(crate) Arc<Turns>, pub(crate) usize);

impl Clock for Rests {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.seconds.load(Ordering::SeqCst))
    }

    fn time_of_day(&self) -> Duration {
        self.monotonic()
    }

    fn sleep(&self, duration: Duration) {
        self.0.rest(self.1, duration.as_secs());
    }
}

/// An actor ends when this goes, also by a panic.
pub(crate) struct End<'t>(pub(crate) &'t Turns, pub(crate) usize);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.set(self.1, Actor::Ended);
    }
}

/// The storage as one actor has it. Reading what no other actor changes needs no turn.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) inner: Arc<MemoryStorage>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) actor: usize,
    pub(crate) fault: Option<Fault>,
    pub(crate) count: Mutex<u64>,
    /// Whether what does not depend on each other is asked for at once.
    pub(crate) far: bool,
}

impl Gate {
    fn run<T>(&self, name: &FileName, deed: impl FnOnce() -> Result<T>) -> Result<T> {
        let fixed = ["config", "keys", "features"];
        if fixed.iter().any(|folder| name.as_str().starts_with(folder)) {
            return deed();
        }
        // One thread at a time, also of an actor that has several.
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *count;
        *count += 1;
        let fails = |why| Err(Error::new(ErrorKind::Io, format!("{why} at {name}")));
        if matches!(self.fault, Some(Fault::Killed(at)) if number >= at) {
            return fails("killed");
        }
        self.turns.wait(self.actor);
        let done = deed();
        if self.fault == Some(Fault::Lost(number)) {
            return done.and_then(|_| fails("the reply was lost"));
        }
        done
    }
}

impl Storage for Gate {
    fn is_far(&self) -> bool {
        self.far
    }

    fn put(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.run(name, || self.inner.put(name, bytes))
    }

    fn put_new(&self, name: &FileName, bytes: &[u8]) -> Result<()> {
        self.run(name, || self.inner.put_new(name, bytes))
    }

    fn settle(&self, name: &FileName) -> Result<()> {
        self.run(name, || self.inner.settle(name))
    }

    fn read(&self, name: &FileName, range: Range<u64>) -> Result<Vec<u8>> {
        self.run(name, || self.inner.read(name, range))
    }

    fn length(&self, name: &FileName) -> Result<u64> {
        self.run(name, || self.inner.length(name))
    }

    fn modified(&self, name: &FileName) -> Result<i64> {
        self.run(name, || self.inner.modified(name))
    }

    fn list(
        &self,
        prefix: &FileName,
        each: &mut dyn FnMut(&FileName, u64) -> Result<()>,
    ) -> Result<()> {
        // What is done with what was listed is none of the storage's operations.
        let mut listed = Vec::new();
        self.run(prefix, || {
            self.inner.list(prefix, &mut |name, length| {
                listed.push((name.clone(), length));
                Ok(())
            })
        })?;
        listed
            .iter()
            .try_for_each(|(name, length)| each(name, *length))
    }

    fn remove(&self, name: &FileName) -> Result<()> {
        self.run(name, || self.inner.remove(name))
    }
}
