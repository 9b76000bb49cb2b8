//! A clock for tests: time passes only while somebody waits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Clock, UnixTime};

/// A clock whose time passes only while somebody waits, and then at once.
#[derive(Debug)]
pub struct SteppingClock {
    start: UnixTime,
    waited: Mutex<Duration>,
}

impl SteppingClock {
    /// A clock that shows this time until somebody waits.
    pub fn new(start: UnixTime) -> Self {
        let waited = Mutex::default();
        Self { start, waited }
    }

    fn waited(&self) -> MutexGuard<'_, Duration> {
        self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SteppingClock {
    fn now(&self) -> UnixTime {
        let waited = i64::try_from(self.waited().as_secs()).unwrap_or(i64::MAX);
        UnixTime(self.start.0.saturating_add(waited))
    }

    fn monotonic(&self) -> Duration {
        *self.waited()
    }

    fn sleep(&self, duration: Duration) {
        *self.waited() += duration;
    }
}
