//! How long the parts of a message may take: none for long, all of them together not for ever, and
//! none much past the deadline of the deed.

use std::time::{Duration, Instant};

use crate::attempt::left;
use crate::limits;

/// The pace of one reply's body.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Instant,
    got: u64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            got: 0,
        }
    }

    pub(crate) fn got(&mut self, bytes: usize) {
        self.got += bytes as u64;
    }

    /// How long the next part may take.
    pub(crate) fn patience(&self) -> Duration {
        in_time(patience(self.got, self.begun.elapsed()))
    }
}

fn patience(got: u64, spent: Duration) -> Duration {
    let whole = limits::IDLE_PATIENCE + Duration::from_secs(got / limits::SLOWEST);
    limits::IDLE_PATIENCE.min(whole.saturating_sub(spent))
}

/// As much of a patience as the deadline leaves.
pub(crate) fn in_time(patience: Duration) -> Duration {
    within(patience, left())
}

fn within(patience: Duration, left: Duration) -> Duration {
    patience.min(left.max(limits::LATE_PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_dribbles_ends_and_one_that_flows_does_not() {
        let (mut got, mut spent) = (0, Duration::ZERO);
        // A byte each second is never idle for long.
        while !patience(got, spent).is_zero() {
            got += 1;
            spent += Duration::from_secs(1);
            assert!(spent <= limits::IDLE_PATIENCE);
        }
        let hour = Duration::from_secs(3600);
        let flowed = 3600 * limits::SLOWEST;
        assert_eq!(patience(flowed, hour), limits::IDLE_PATIENCE);
        assert_eq!(patience(0, Duration::ZERO), limits::IDLE_PATIENCE);
    }

    #[test]
    fn silence_is_waited_for_until_the_deadline_and_what_begins_late_has_a_little_time() {
        let (idle, late) = (limits::IDLE_PATIENCE, limits::LATE_PATIENCE);
        assert_eq!(within(idle, Duration::MAX), idle);
        assert_eq!(within(idle, 3 * late), 3 * late);
        assert_eq!(within(idle, Duration::ZERO), late);
        assert_eq!(within(Duration::ZERO, Duration::ZERO), Duration::ZERO);
    }
}
