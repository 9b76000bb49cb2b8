//! The bandwidth limit of one backup, kept in both directions: for what is read from the guest and,
//! by itself, for what is written out. Small dirty regions make whole chunks, so that more may be
//! written than is read.

use std::num::NonZeroU64;

use snapkeep_api::Throttle;

use crate::provider::Shared;

/// One limit, two buckets.
#[derive(Debug)]
pub(crate) struct Pace {
    reading: Throttle,
    writing: Throttle,
}

impl Pace {
    pub(crate) fn new(limit: Option<NonZeroU64>) -> Self {
        Self {
            reading: Throttle::new(limit),
            writing: Throttle::new(limit),
        }
    }

    /// Waits until so many bytes may be read, and what was written is paid for: one wait for both,
    /// since both go on at once.
    pub(crate) fn read(&self, shared: &Shared, bytes: u64) {
        let clock = &*shared.clock;
        let wait = self.reading.count(clock, bytes);
        let wait = wait.max(self.writing.count(clock, 0));
        Throttle::wait(clock, &shared.cancel, wait);
    }

    /// Counts what was given to the writer, compressed.
    pub(crate) fn wrote(&self, shared: &Shared, bytes: u64) {
        self.writing.count(&*shared.clock, bytes);
    }
}
