//! Chunks on their way from the one thread that makes a tree to those that store them.
//!
//! The thread that makes the tree hashes them, for a node names what is below it; compressing
//! takes far longer than that.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::writer::TreeCounts;
use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::writer::{Worker, Writer};
use crate::{Error, ErrorKind, Result, limits};

/// A chunk that nobody else stores.
struct Job {
    class: Class,
    id: ChunkId,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Bytes of the jobs.
    bytes: usize,
    /// Nothing more will come.
    closed: bool,
    error: Option<Error>,
    /// Buffers to use again: no more than there were jobs at once.
    spare: Vec<Vec<u8>>,
}

/// Bounded by count and by bytes.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    failed: AtomicBool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, state: MutexGuard<'q, State>) -> MutexGuard<'q, State> {
        (self.changed.wait(state)).unwrap_or_else(PoisonError::into_inner)
    }

    /// The first failure of a worker, if there was one.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.lock().error.clone().map_or(Ok(()), Err)
    }

    fn fail(&self, error: Error) {
        let mut state = self.lock();
        state.error.get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    /// Ends the workers at once: what waits is not stored.
    pub(crate) fn stop(&self) {
        let what = "the directory tree was given up before its end";
        self.fail(Error::new(ErrorKind::Invalid, what));
    }

    /// Waits until there is room.
    fn push(&self, job: Job) -> Result<()> {
        let length = job.bytes.len();
        let mut state = self.lock();
        loop {
            if let Some(error) = &state.error {
                return Err(error.clone());
            }
            let full = state.jobs.len() >= limits::QUEUE_CHUNKS
                || state.bytes + length > limits::QUEUE_BYTES;
            if !full || state.jobs.is_empty() {
                break;
            }
            state = self.wait(state);
        }
        state.bytes += length;
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The next chunk; `None` once there will be no more.
    fn pop(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.error.is_some() {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                state.bytes -= job.bytes.len();
                drop(state);
                self.changed.notify_all();
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.wait(state);
        }
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut state = self.lock();
        if state.spare.len() < limits::QUEUE_CHUNKS / 8 {
            state.spare.push(bytes);
        }
    }

    /// One worker's thread.
    pub(crate) fn work(&self, worker: &mut Worker<'_>, written: &dyn Fn(u64)) {
        let _guard = Guard(self);
        while let Some(Job { class, id, bytes }) = self.pop() {
            match worker.store_claimed(class, id, &bytes) {
                Ok(()) => {
                    if class == Class::Data {
                        self.give_back(bytes);
                    }
                    written(worker.take_written());
                }
                Err(error) => self.fail(error),
            }
        }
    }

    /// Ends the workers, once they have stored what waits; also when the caller panics.
    pub(crate) fn closer(&self) -> Closer<'_> {
        Closer(self)
    }
}

/// Closes a queue when it is dropped.
pub(crate) struct Closer<'q>(&'q Queue);

impl Drop for Closer<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = "the thread that makes a directory tree panicked";
            self.0.fail(Error::new(ErrorKind::Invalid, what));
        }
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

/// Tells of a worker that panics, for which others would wait.
struct Guard<'q>(&'q Queue);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let what = "a thread that stores a directory tree panicked";
            self.0.fail(Error::new(ErrorKind::Invalid, what));
        }
    }
}

/// Where chunks go.
pub(crate) struct Sink<'w> {
    pub(crate) writer: &'w Writer,
    pub(crate) queue: &'w Queue,
    pub(crate) counts: TreeCounts,
    /// Bytes of nodes that are not finished, as far as they can be cut.
    pub(crate) held: usize,
}

impl Sink<'_> {
    /// Has a chunk stored, unless it is there.
    pub(crate) fn put(&mut self, class: Class, bytes: Vec<u8>) -> Result<ChunkId> {
        let (id, new) = self.writer.claim(class, &bytes)?;
        let counter = match (class, new) {
            (Class::Data, true) => &mut self.counts.new,
            (Class::Data, false) => &mut self.counts.reused,
            (Class::Metadata, true) => &mut self.counts.nodes_new,
            (Class::Metadata, false) => &mut self.counts.nodes_reused,
        };
        *counter += bytes.len() as u64;
        if new {
            self.queue.push(Job { class, id, bytes })?;
        } else if class == Class::Data {
            self.queue.give_back(bytes);
        }
        Ok(id)
    }

    /// An empty buffer for a chunk of data.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.queue.lock().spare.pop().unwrap_or_default()
    }
}
