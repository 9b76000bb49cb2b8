//! A bandwidth limit: a bucket that fills at so many bytes per second and holds a tenth of a
//! second's worth.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Cancel, Clock};

/// The longest wait without a look at whether the end was asked for.
const STEP: Duration = Duration::from_millis(100);

/// Makes its callers wait so that together they keep the limit.
#[derive(Debug)]
pub struct Throttle {
    limit: Option<NonZeroU64>,
    /// When everything that was asked for so far may have passed, in monotonic time.
    free_at: Mutex<Duration>,
}

impl Throttle {
    /// With a limit in bytes per second, or without one.
    pub fn new(limit: Option<NonZeroU64>) -> Self {
        Self {
            limit,
            free_at: Mutex::new(Duration::ZERO),
        }
    }

    /// Waits until so many bytes may pass, or until the end is asked for.
    pub fn take(&self, clock: &dyn Clock, cancel: &Cancel, bytes: u64) {
        Self::wait(clock, cancel, self.count(clock, bytes));
    }

    /// Counts so many bytes, and tells how long it takes until they may have passed.
    pub fn count(&self, clock: &dyn Clock, bytes: u64) -> Duration {
        let Some(limit) = self.limit else {
            return Duration::ZERO;
        };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(limit.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = clock.monotonic();
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.saturating_sub(Duration::from_millis(100));
        *free_at = (*free_at).max(earliest).saturating_add(cost);
        free_at.saturating_sub(now)
    }

    /// Waits so long, or until the end is asked for.
    pub fn wait(clock: &dyn Clock, cancel: &Cancel, mut wait: Duration) {
        while !wait.is_zero() && !cancel.is_cancelled() {
            let step = wait.min(STEP);
            clock.sleep(step);
            wait -= step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SteppingClock, UnixTime};

    fn clock() -> SteppingClock {
        SteppingClock::new(UnixTime(0))
    }

    #[test]
    fn a_limit_is_kept_within_five_percent() {
        let clock = clock();
        let throttle = Throttle::new(NonZeroU64::new(1_000_000));
        for _ in 0..100 {
            throttle.take(&clock, &Cancel::new(), 100_000);
        }
        let seconds = clock.monotonic().as_millis();
        assert!((9_500..=10_500).contains(&seconds), "{seconds}");
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let clock = clock();
        Throttle::new(None).take(&clock, &Cancel::new(), u64::MAX);
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }

    #[test]
    fn who_is_cancelled_does_not_wait() {
        let clock = clock();
        let cancel = Cancel::new();
        cancel.cancel();
        Throttle::new(NonZeroU64::new(1)).take(&clock, &cancel, 1 << 40);
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }
}
