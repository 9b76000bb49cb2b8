//! What a backup has done so far, told to the task log every few seconds.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use snapkeep_api::{Clock, Level, TaskLog};

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(5);

/// Counters, in bytes, shared by the threads of one backup.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// What the lists of dirty regions have named so far; they are not read to their end first.
    pub(crate) dirty: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) new: AtomicU64,
    pub(crate) reused: AtomicU64,
    pub(crate) zero: AtomicU64,
    ticker: Ticker,
}

/// Says when the next line is due.
#[derive(Debug, Default)]
pub(crate) struct Ticker {
    /// When the last line was written, and how much was read by then.
    told: Mutex<(Duration, u64)>,
}

impl Ticker {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self {
            told: Mutex::new((clock.monotonic(), 0)),
        }
    }

    /// How fast so much was read, if the last line is old enough.
    pub(crate) fn due(&self, clock: &dyn Clock, read: u64) -> Option<String> {
        let now = clock.monotonic();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, last) = *told;
        let since = now.saturating_sub(then);
        if since < INTERVAL {
            return None;
        }
        *told = (now, read);
        Some(rate(read.saturating_sub(last), since))
    }
}

pub(crate) fn add(counter: &AtomicU64, bytes: u64) {
    counter.fetch_add(bytes, Ordering::Relaxed);
}

pub(crate) fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Progress {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self {
            ticker: Ticker::new(clock),
            ..Self::default()
        }
    }

    /// Writes a line if the last is old enough.
    pub(crate) fn tell(&self, clock: &dyn Clock, log: &dyn TaskLog, device: &str) {
        if let Some(rate) = self.ticker.due(clock, value(&self.read)) {
            log.log(Level::Info, &format!("{device}: {}", self.line(&rate)));
        }
    }

    /// All counters, with a rate.
    fn line(&self, rate: &str) -> String {
        format!(
            "read {} of {} dirty ({rate}), new {}, reused {}, zero {}",
            mib(value(&self.read)),
            mib(value(&self.dirty)),
            mib(value(&self.new)),
            mib(value(&self.reused)),
            mib(value(&self.zero))
        )
    }

    /// The last line of a backup.
    pub(crate) fn finish(&self, log: &dyn TaskLog, stored: u64, took: Duration) {
        let line = format!(
            "in {}.{:03} s: {}, stored {}",
            took.as_secs(),
            took.subsec_millis(),
            self.line(&rate(value(&self.read), took)),
            mib(stored)
        );
        log.log(Level::Info, &line);
    }
}

/// So many bytes in so long.
pub(crate) fn rate(bytes: u64, took: Duration) -> String {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    format!("{}/s", mib(bytes.saturating_mul(1000) / millis))
}

/// Mebibytes with one decimal.
pub(crate) fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mebibytes_are_exact_however_many_they_are() {
        assert_eq!(mib(0), "0.0 MiB");
        assert_eq!(mib((1 << 20) - 1), "0.9 MiB");
        assert_eq!(mib(16 << 40), "16777216.0 MiB");
    }
}
