//! How long the parts of a reply may take: none for long, and all of them together not for ever.

use std::time::{Duration, Instant};

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
        patience(self.got, self.begun.elapsed())
    }
}

fn patience(got: u64, spent: Duration) -> Duration {
    let whole = limits::IDLE_PATIENCE + Duration::from_secs(got / limits::SLOWEST);
    limits::IDLE_PATIENCE.min(whole.saturating_sub(spent))
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
}
