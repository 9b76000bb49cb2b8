//! Files that wait for a thread, bounded by number and memory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use snapkeep_api::tree::{EntryKind, Name, TreeNode};
use snapkeep_api::{Error, ErrorKind, Result};

use super::folder::Folder;
use crate::limits::{PIECE_BYTES, QUEUE_BYTES, QUEUE_ENTRIES, WAKE_ENTRIES};
use crate::visit::weight;

/// A file that is to be made.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) folder: Arc<Folder>,
    pub(super) name: Name,
    pub(super) node: TreeNode,
}

impl Job {
    fn is_large(&self) -> bool {
        matches!(self.node.entry.kind, EntryKind::File { size, .. } if size >= PIECE_BYTES as u64)
    }

    fn has_links(&self) -> bool {
        matches!(self.node.entry.kind, EntryKind::File { links: 2.., .. })
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is a job, or there will be none.
    work: Condvar,
    /// A job was taken or done, or one failed.
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// Jobs that wait or run.
    unfinished: usize,
    /// Those of files with several names.
    with_links: usize,
    /// Threads that wait for a job. Waking one costs as much as making a small file, so they are
    /// woken for several.
    idle: usize,
    /// Whether the thread that fills the queue waits.
    awaited: bool,
    closed: bool,
    failed: Option<Error>,
}

impl State {
    /// Whether that thread should look again. Room alone is worth it only if there is much.
    fn is_awaited(&self) -> bool {
        let room = self.jobs.len() <= QUEUE_ENTRIES / 2;
        self.awaited && (room || self.unfinished == 0 || self.with_links == 0)
    }
}

impl Queue {
    /// Adds a job once there is room for it. An error is that of a job that failed.
    pub(super) fn push(&self, job: Job) -> Result<()> {
        let bytes = weight(&job.name, &job.node.entry);
        let is_large = job.is_large();
        let full = |state: &State| {
            state.jobs.len() >= QUEUE_ENTRIES
                || (state.bytes + bytes > QUEUE_BYTES && !state.jobs.is_empty())
        };
        let mut state = self.wait(full)?;
        state.bytes += bytes;
        state.unfinished += 1;
        state.with_links += usize::from(job.has_links());
        state.jobs.push_back(job);
        let wake = state.idle > 0 && (is_large || state.jobs.len() >= WAKE_ENTRIES);
        drop(state);
        if wake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Waits until all jobs are done.
    pub(super) fn drain(&self) -> Result<()> {
        self.wait(|state| state.unfinished > 0).map(drop)
    }

    /// Waits until all files with several names are made.
    pub(super) fn drain_links(&self) -> Result<()> {
        self.wait(|state| state.with_links > 0).map(drop)
    }

    /// There will be no more jobs once this is dropped.
    pub(super) fn closing(&self) -> Closing<'_> {
        Closing(self)
    }

    /// Ends it all; the first error counts. Jobs that wait are dropped.
    pub(super) fn fail(&self, error: Error) {
        let mut state = self.lock();
        state.failed.get_or_insert(error);
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Does jobs until there are no more.
    pub(super) fn work(&self, mut job_is_done: impl FnMut(&mut Job) -> Result<()>) {
        let _panics_are_seen = Seen(self);
        while let Some(mut job) = self.next() {
            let has_links = job.has_links();
            if let Err(error) = job_is_done(&mut job) {
                self.fail(error);
            }
            drop(job);
            let mut state = self.lock();
            state.unfinished -= 1;
            state.with_links -= usize::from(has_links);
            let awaited = state.is_awaited();
            drop(state);
            if awaited {
                self.room.notify_one();
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                state.bytes -= weight(&job.name, &job.node.entry);
                let awaited = state.is_awaited();
                drop(state);
                if awaited {
                    self.room.notify_one();
                }
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = (self.work.wait(state)).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn wait(&self, until_not: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if !until_not(&state) {
                return Ok(state);
            }
            self.work.notify_all();
            state.awaited = true;
            state = (self.room.wait(state)).unwrap_or_else(PoisonError::into_inner);
            state.awaited = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the queue, also when the thread that fills it panics.
pub(super) struct Closing<'a>(&'a Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_all();
    }
}

/// Nobody waits for a thread that panicked.
struct Seen<'a>(&'a Queue);

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(Error::new(
                ErrorKind::Protocol,
                "a thread that writes files panicked",
            ));
        }
    }
}
