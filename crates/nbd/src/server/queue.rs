//! The bounded queue between the thread that reads a connection's requests and those that answer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Holds work that is waiting or in progress, up to a bound on its number and on its bytes.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    most: usize,
    most_bytes: u64,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// Pieces of work let in and not yet done, and their bytes.
    entered: usize,
    bytes: u64,
    /// Threads in [`Queue::take`].
    idle: usize,
    closed: bool,
}

impl<T> Queue<T> {
    /// A queue for at most so many pieces of work that hold so many bytes together.
    pub(super) fn new(most: usize, most_bytes: u64) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            entered: 0,
            bytes: 0,
            idle: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            most,
            most_bytes,
        }
    }

    /// Waits until one more piece of work with so many bytes fits, and keeps the room for it; work
    /// too large for the bound has the queue for itself. Returns `false` if the queue is closed.
    pub(super) fn enter(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        while !state.closed
            && state.entered > 0
            && (state.entered >= self.most || state.bytes + bytes > self.most_bytes)
        {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.entered += 1;
        state.bytes += bytes;
        !state.closed
    }

    /// Adds work that has its room. Returns whether one more thread would help.
    pub(super) fn add(&self, work: T) -> bool {
        let mut state = self.lock();
        state.waiting.push_back(work);
        let short = state.waiting.len() > state.idle;
        drop(state);
        self.changed.notify_all();
        short
    }

    /// Waits for work; `None` once the queue is closed and empty. Whoever takes work calls
    /// [`done`](Self::done) after it.
    pub(super) fn take(&self) -> Option<T> {
        let mut state = self.lock();
        state.idle += 1;
        let work = loop {
            if let Some(work) = state.waiting.pop_front() {
                break Some(work);
            }
            if state.closed {
                break None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        state.idle -= 1;
        work
    }

    /// Gives back the room of a piece of work with so many bytes.
    pub(super) fn done(&self, bytes: u64) {
        let mut state = self.lock();
        state.entered -= 1;
        state.bytes -= bytes;
        drop(state);
        self.changed.notify_all();
    }

    /// Takes no more work; what is there may be finished.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Takes no more work and forgets what nobody has begun.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that runs under the lock can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn work_beyond_the_bytes_waits_until_there_is_room() {
        let queue = Queue::new(100, 10);
        assert!(queue.enter(6));
        queue.add(6);
        thread::scope(|scope| {
            let (entered, told) = mpsc::channel();
            let waiting = &queue;
            scope.spawn(move || {
                waiting.enter(5);
                entered.send(()).unwrap();
            });
            let done = queue.take().unwrap();
            assert!(told.try_recv().is_err());
            queue.done(done);
            told.recv().unwrap();
        });
    }

    #[test]
    fn work_larger_than_the_bound_is_let_in_alone() {
        let queue = Queue::<()>::new(100, 10);
        assert!(queue.enter(1000));
        queue.done(1000);
        assert!(queue.enter(1));
    }

    #[test]
    fn a_closed_queue_lets_nobody_wait() {
        let queue = Queue::<()>::new(1, 10);
        assert!(queue.enter(1));
        queue.abandon();
        assert!(!queue.enter(1));
        assert!(queue.take().is_none());
    }
}
