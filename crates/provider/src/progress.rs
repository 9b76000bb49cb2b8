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
    pub(crate) read: AtomicU64,
    pub(crate) new: AtomicU64,
    pub(crate) reused: AtomicU64,
    pub(crate) zero: AtomicU64,
    told: Mutex<Duration>,
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
            told: Mutex::new(clock.monotonic()),
            ..Self::default()
        }
    }

    /// Writes a line if the last is old enough.
    pub(crate) fn tell(&self, clock: &dyn Clock, log: &dyn TaskLog, device: &str) {
        let now = clock.monotonic();
        let since = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let since = now.saturating_sub(*told);
            if since < INTERVAL {
                return;
            }
            *told = now;
            since
        };
        let read = value(&self.read);
        let line = format!(
            "{device}: read {}, new {}, reused {}, zero {} (line every {} s)",
            mib(read),
            mib(value(&self.new)),
            mib(value(&self.reused)),
            mib(value(&self.zero)),
            since.as_secs()
        );
        log.log(Level::Info, &line);
    }

    /// The last line of a backup.
    pub(crate) fn finish(&self, log: &dyn TaskLog, stored: u64, took: Duration) {
        let read = value(&self.read);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let line = format!(
            "read {} in {}.{:03} s ({}/s), new {}, reused {}, zero {}, stored {}",
            mib(read),
            millis / 1000,
            millis % 1000,
            mib(read.saturating_mul(1000) / millis),
            mib(value(&self.new)),
            mib(value(&self.reused)),
            mib(value(&self.zero)),
            mib(stored)
        );
        log.log(Level::Info, &line);
    }
}

/// Mebibytes with one decimal.
fn mib(bytes: u64) -> String {
    let tenths = bytes / 104_858;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
