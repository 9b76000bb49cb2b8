//! What the backup of a file tree has done so far, told to the task log every few seconds.

use std::time::Duration;

use snapkeep_api::{Clock, Level, TaskLog};
use snapkeep_repo::TreeCounts;

use super::problems::Problems;
use crate::progress::{Ticker, mib, rate};

/// Counters of one backup.
#[derive(Debug)]
pub(crate) struct TreeProgress {
    /// Entries that were told, of all kinds.
    pub(crate) entries: u64,
    /// Files that were read.
    pub(crate) files_read: u64,
    /// Files that were believed to be unchanged.
    pub(crate) files_known: u64,
    /// Bytes that were read.
    pub(crate) read: u64,
    /// What was given to be stored.
    pub(crate) counts: TreeCounts,
    ticker: Ticker,
}

impl TreeProgress {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self {
            entries: 0,
            files_read: 0,
            files_known: 0,
            read: 0,
            counts: TreeCounts::default(),
            ticker: Ticker::new(clock),
        }
    }

    /// Writes a line if the last is old enough.
    pub(crate) fn tell(&self, clock: &dyn Clock, log: &dyn TaskLog) {
        if let Some(rate) = self.ticker.due(clock, self.read) {
            log.log(Level::Info, &format!("files: {}", self.line(&rate)));
        }
    }

    /// All counters, with a rate.
    fn line(&self, rate: &str) -> String {
        format!(
            "{} entries, {} files unchanged, {} read: {} ({rate}), new {}, reused {}",
            self.entries,
            self.files_known,
            self.files_read,
            mib(self.read),
            mib(self.counts.new),
            mib(self.counts.reused)
        )
    }

    /// The last line of a backup.
    pub(crate) fn finish(
        &self,
        log: &dyn TaskLog,
        problems: &Problems,
        stored: u64,
        took: Duration,
    ) {
        let line = format!(
            "in {}.{:03} s: {}, stored {}{}",
            took.as_secs(),
            took.subsec_millis(),
            self.line(&rate(self.read, took)),
            mib(stored),
            problems.line()
        );
        log.log(Level::Info, &line);
    }
}
