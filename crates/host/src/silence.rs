//! A QEMU that falls silent while it has something of a backup, perhaps a guest that stands still,
//! is asked again for minutes: nothing else can take that back.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use snapkeep_api::{Error, ErrorKind, Level, Result, TaskLog};

use crate::limits::{RECONNECT_NOTE, RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN};
use crate::qemu::Qemu;

/// How long it has lasted, and what was done.
pub(crate) struct Silence<'a> {
    log: &'a dyn TaskLog,
    /// When it began.
    since: Option<Duration>,
    /// When the log was told of it.
    told: Option<Duration>,
    pause: Duration,
    garbled: bool,
}

impl<'a> Silence<'a> {
    pub(crate) fn new(log: &'a dyn TaskLog) -> Self {
        Self {
            log,
            since: None,
            told: None,
            pause: RECONNECT_PAUSE_MIN,
            garbled: false,
        }
    }

    /// Connects again after this error: at once for the first time, later after ever longer
    /// pauses. Fails if QEMU has ended, if the time is over, or if it answers but not sensibly.
    pub(crate) fn outlast(&mut self, qemu: &mut Qemu, mut why: Error) -> Result<()> {
        if why.kind() != ErrorKind::Unavailable && std::mem::replace(&mut self.garbled, true) {
            return Err(why);
        }
        loop {
            let now = qemu.clock.monotonic();
            if let Some(since) = self.since {
                if qemu.owner().has_ended() || nobody_listens(&why) {
                    return Err(why);
                }
                let limit = qemu.monitor.timeouts().reconnect;
                let left = (since + limit).saturating_sub(now);
                if left.is_zero() {
                    let what = format!(
                        "the QEMU at {} has not answered for {} seconds",
                        qemu.socket().display(),
                        now.saturating_sub(since).as_secs()
                    );
                    return Err(Error::with_source(ErrorKind::Unavailable, what, why));
                }
                self.tell(qemu, now, left, &why);
                qemu.clock.sleep(self.pause.min(left));
                self.pause = self.pause.saturating_mul(2).min(RECONNECT_PAUSE_MAX);
            }
            self.since.get_or_insert(now);
            match qemu.reconnect() {
                Ok(()) => return Ok(()),
                Err(e) => why = e,
            }
        }
    }

    /// Tells the log now and then.
    fn tell(&mut self, qemu: &Qemu, now: Duration, left: Duration, why: &Error) {
        if self
            .told
            .is_some_and(|told| now.saturating_sub(told) < RECONNECT_NOTE)
        {
            return;
        }
        self.told = Some(now);
        let paused = if qemu.paused {
            "; the guest may stand still until then"
        } else {
            ""
        };
        let line = format!(
            "the QEMU at {} does not answer, and has something of a backup: it is asked again for up to {} \
             seconds{paused}: {}",
            qemu.socket().display(),
            left.as_secs(),
            why.chain()
        );
        self.log.log(Level::Warn, &line);
    }
}

/// A QEMU listens at its monitor's socket as long as it lives.
fn nobody_listens(error: &Error) -> bool {
    let cause = error.source().and_then(|e| e.downcast_ref::<io::Error>());
    cause.is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}
