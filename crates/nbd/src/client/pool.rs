//! The connections of a client: each is either idle here or leased to one operation.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::connection::Connection;
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    idle: Vec<Connection>,
    /// Idle ones and leased ones.
    open: usize,
    /// Why the last connection that broke did so.
    last_error: Option<Error>,
}

/// A connection for the time of one operation; goes back to the pool when dropped.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
    error: Option<Error>,
}

impl Pool {
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        let open = connections.len();
        Self {
            state: Mutex::new(State {
                idle: connections,
                open,
                last_error: None,
            }),
            changed: Condvar::new(),
        }
    }

    /// Waits for a free connection. Fails if none is left.
    pub(super) fn take(&self, name: &str) -> Result<Lease<'_>> {
        let mut state = self.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(Lease {
                    pool: self,
                    connection: Some(connection),
                    error: None,
                });
            }
            if state.open == 0 {
                let why = state
                    .last_error
                    .as_ref()
                    .map_or_else(String::new, |error| format!(": {error}"));
                let message = format!("no connection to {name} is left{why}");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for connection in self.lock().idle.drain(..) {
            connection.disconnect();
        }
    }
}

impl Lease<'_> {
    pub(super) fn connection(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("a lease has its connection until it is broken or dropped")
    }

    /// Closes the connection for good, without a word.
    pub(super) fn broken(mut self, error: Error) {
        self.error = Some(error);
        self.connection = None;
    }

    /// Says good-bye and closes the connection for good.
    pub(super) fn leave(mut self, error: Error) {
        self.error = Some(error);
        if let Some(connection) = self.connection.take() {
            connection.disconnect();
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        match self.connection.take() {
            // A panic in the middle of an operation leaves requests in flight.
            Some(connection) if connection.is_idle() => state.idle.push(connection),
            Some(_) | None => {
                state.open -= 1;
                state.last_error = self.error.take().or(state.last_error.take());
            }
        }
        self.pool.changed.notify_all();
    }
}
