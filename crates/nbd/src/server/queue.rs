//! The bounded queue between the thread that reads a connection's requests and those that answer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Holds work that is waiting or in progress, up to a bound.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    most: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// Taken and not yet done.
    working: usize,
    /// Threads in [`Queue::take`].
    idle: usize,
    closed: bool,
}

impl<T> Queue<T> {
    /// A queue for at most so many pieces of work.
    pub(super) fn new(most: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            working: 0,
            idle: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            most,
        }
    }

    /// Waits for room and adds work. Returns whether one more thread would help, or `None` if the
    /// queue is closed.
    pub(super) fn add(&self, work: T) -> Option<bool> {
        let mut state = self.lock();
        while state.waiting.len() + state.working >= self.most && !state.closed {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return None;
        }
        state.waiting.push_back(work);
        let short = state.waiting.len() > state.idle;
        drop(state);
        self.changed.notify_all();
        Some(short)
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
        state.working += usize::from(work.is_some());
        work
    }

    /// Makes room again.
    pub(super) fn done(&self) {
        self.lock().working -= 1;
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
