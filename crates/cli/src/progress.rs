//! Progress on standard error: a bar on a terminal, otherwise a line every few seconds.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use snapkeep_api::{Clock, Level, TaskLog};

use crate::report::remark;
use crate::units::human;

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(5);
/// Time between two looks of the bar at the clock.
const TICK: Duration = Duration::from_millis(200);

/// How far something is. Shared by threads; the bar goes away when it is dropped.
pub(crate) struct Progress {
    what: String,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    quiet: bool,
    clock: Arc<dyn Clock>,
    told: Mutex<Duration>,
}

impl Progress {
    /// Says what begins, of so many bytes if that is known.
    pub(crate) fn start(
        what: impl Into<String>,
        total: Option<u64>,
        quiet: bool,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let what = what.into();
        let told = Mutex::new(clock.monotonic());
        let bar = (!quiet && io::stderr().is_terminal()).then(|| bar(&what, total));
        if bar.is_none() && !quiet {
            remark(&what);
        }
        Self {
            what,
            total,
            bar,
            quiet,
            clock,
            told,
        }
    }

    /// So many bytes are done; for the bar alone, where the task log has lines about it already.
    pub(crate) fn move_bar(&self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bar.position().max(done));
        }
    }

    /// So many bytes are done.
    pub(crate) fn set(&self, done: u64) {
        if self.bar.is_some() {
            self.move_bar(done);
            return;
        }
        if self.quiet {
            return;
        }
        {
            let now = self.clock.monotonic();
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if now.saturating_sub(*told) < INTERVAL {
                return;
            }
            *told = now;
        }
        remark(&line(&self.what, done, self.total));
    }
}

fn line(what: &str, done: u64, total: Option<u64>) -> String {
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let percent = u128::from(done) * 100 / u128::from(total);
            format!("{what}: {percent}% ({} of {})", human(done), human(total))
        }
        None => format!("{what}: {}", human(done)),
    }
}

fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {msg} {bytes} {bytes_per_sec} {elapsed}",
        ),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The task log's lines go above the bar. Quiet drops what is only told.
impl TaskLog for Progress {
    fn log(&self, level: Level, message: &str) {
        if message.is_empty() || (self.quiet && level == Level::Info) {
            return;
        }
        let line = match level {
            Level::Info => message.to_owned(),
            Level::Warn => format!("warning: {message}"),
            Level::Error => format!("error: {message}"),
        };
        match &self.bar {
            Some(bar) => bar.suspend(|| remark(&line)),
            None => remark(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_share_where_the_total_is_known() {
        assert_eq!(line("x", 512, Some(1024)), "x: 50% (512 bytes of 1.0 KiB)");
        assert_eq!(line("x", 512, Some(0)), "x: 512 bytes");
        assert_eq!(line("x", 1 << 20, None), "x: 1.0 MiB");
    }
}
