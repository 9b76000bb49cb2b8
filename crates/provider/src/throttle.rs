//! A bandwidth limit: a bucket that fills at so many bytes per second and holds a tenth of a
//! second's worth.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use snapkeep_api::Clock;

/// Makes its callers wait so that together they keep the limit.
#[derive(Debug)]
pub(crate) struct Throttle {
    limit: Option<NonZeroU64>,
    /// When everything that was asked for so far may have passed, in monotonic time.
    free_at: Mutex<Duration>,
}

impl Throttle {
    pub(crate) fn new(limit: Option<NonZeroU64>) -> Self {
        Self {
            limit,
            free_at: Mutex::new(Duration::ZERO),
        }
    }

    /// Waits until so many bytes may pass.
    pub(crate) fn take(&self, clock: &dyn Clock, bytes: u64) {
        let Some(limit) = self.limit else { return };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(limit.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = clock.monotonic();
        let wait = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = now.saturating_sub(Duration::from_millis(100));
            *free_at = (*free_at).max(earliest).saturating_add(cost);
            free_at.saturating_sub(now)
        };
        if !wait.is_zero() {
            clock.sleep(wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapkeep_api::UnixTime;

    #[derive(Debug, Default)]
    struct Stepping(Mutex<Duration>);

    impl Clock for Stepping {
        fn now(&self) -> UnixTime {
            UnixTime(0)
        }

        fn monotonic(&self) -> Duration {
            *self
                .0
                .lock()
                .expect("no test panics while it holds the clock")
        }

        fn sleep(&self, duration: Duration) {
            *self
                .0
                .lock()
                .expect("no test panics while it holds the clock") += duration;
        }
    }

    #[test]
    fn a_limit_is_kept_within_five_percent() {
        let clock = Stepping::default();
        let throttle = Throttle::new(NonZeroU64::new(1_000_000));
        for _ in 0..100 {
            throttle.take(&clock, 100_000);
        }
        let seconds = clock.monotonic().as_millis();
        assert!((9_500..=10_500).contains(&seconds), "{seconds}");
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let clock = Stepping::default();
        Throttle::new(None).take(&clock, u64::MAX);
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }
}
