//! How long something took: what was read long ago is not relied on.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells how much time passes, and waits.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since an arbitrary fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// The time of day, since 1970. It may be wrong, and be set; but it goes on while the machine
    /// sleeps, and the other does not.
    fn time_of_day(&self) -> Duration;
    /// Waits for so long.
    fn sleep(&self, duration: Duration);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock(Instant);

impl MachineClock {
    /// Its monotonic time begins now.
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for MachineClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MachineClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn time_of_day(&self) -> Duration {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A moment from which on it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    monotonic: Duration,
    time_of_day: Duration,
}

impl Moment {
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self {
            monotonic: clock.monotonic(),
            time_of_day: clock.time_of_day(),
        }
    }

    /// Whether more seconds have passed, by whichever clock says more.
    pub(crate) fn is_before(&self, clock: &dyn Clock, seconds: u64) -> bool {
        self.passed(clock) > Duration::from_secs(seconds)
    }

    /// How much of so many seconds is left; none if there is nothing.
    pub(crate) fn left(&self, clock: &dyn Clock, seconds: u64) -> Option<Duration> {
        let left = Duration::from_secs(seconds).checked_sub(self.passed(clock));
        left.filter(|left| !left.is_zero())
    }

    fn passed(&self, clock: &dyn Clock) -> Duration {
        let now = Self::now(clock);
        (now.monotonic.saturating_sub(self.monotonic))
            .max(now.time_of_day.saturating_sub(self.time_of_day))
    }
}
