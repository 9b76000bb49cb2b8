//! How long the client bears with a server.

use std::io;
use std::time::{Duration, Instant};

use crate::error::{ErrorKind, Fault};
use crate::limits;

/// The socket's own time-out ends a silence; this ends a dribble, whose every byte comes just in time.
#[derive(Debug)]
pub(super) struct Patience {
    timeout: Duration,
    /// When the last reply was complete, or the job began.
    since: Instant,
}

impl Patience {
    /// For a stream with this time-out.
    pub(super) fn new(timeout: Duration) -> Self {
        let since = Instant::now();
        Self { timeout, since }
    }

    /// A reply is complete, or a job begins.
    pub(super) fn renew(&mut self) {
        self.since = Instant::now();
    }

    /// Fails once the server has taken too long; called after each system call on the socket.
    pub(super) fn check(&self) -> Result<(), Fault> {
        self.check_at(Instant::now())
    }

    /// What a failed system call on the socket means.
    pub(super) fn fault(&self, error: io::Error, doing: &str) -> Fault {
        let over = self.check().err();
        over.unwrap_or_else(|| Fault::socket(error, doing, self.timeout))
    }

    fn check_at(&self, now: Instant) -> Result<(), Fault> {
        let limit = self.timeout.saturating_mul(limits::REPLY_TIMEOUTS);
        if now.saturating_duration_since(self.since) <= limit {
            return Ok(());
        }
        let message = format!("the peer dribbles: no reply was complete within {limit:?}");
        Err(Fault::new(ErrorKind::Timeout, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dribble_is_borne_for_as_many_time_outs_as_the_limit_says() {
        let timeout = Duration::from_secs(60);
        let patience = Patience::new(timeout);
        let limit = patience.since + timeout * limits::REPLY_TIMEOUTS;
        assert!(patience.check_at(limit).is_ok());
        let fault = patience.check_at(limit + Duration::from_nanos(1));
        assert_eq!(fault.unwrap_err().kind, ErrorKind::Timeout);
    }
}
