//! Does the IO of a handshake, whichever side's.

use std::io;
use std::time::{Duration, Instant};

use crate::error::Fault;
use crate::handshake::Machine;
use crate::stream::Stream;

/// Runs a machine to its outcome, all within the time limit, however the peer dribbles. The
/// stream's own time-outs are used up for that: the caller sets those of the next phase.
pub(crate) fn hands<M: Machine>(
    stream: &mut Stream,
    mut machine: M,
    limit: Duration,
) -> Result<M::Outcome, Fault> {
    let failed = |error| Fault::socket(error, "shaking hands", limit);
    let deadline = Instant::now() + limit;
    let mut buffer = [0; 4096];
    loop {
        stream
            .write_both(&machine.take_output(), &[], |stream| {
                hurry(stream, deadline)
            })
            .map_err(failed)?;
        if let Some(outcome) = machine.take_outcome() {
            return Ok(outcome);
        }
        let most = machine.wants().min(buffer.len());
        hurry(stream, deadline).map_err(failed)?;
        let count = stream.read_some(&mut buffer[..most]).map_err(failed)?;
        if count == 0 {
            return Err(Fault::closed("shaking hands"));
        }
        if let Err(fault) = machine.feed(&buffer[..count]) {
            // A good-bye is polite; what counts is the fault that led to it.
            stream
                .write_both(&machine.take_output(), &[], |stream| {
                    hurry(stream, deadline)
                })
                .ok();
            return Err(fault);
        }
    }
}

/// Limits the next read or write to the time that is left.
fn hurry(stream: &Stream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_timeouts(Some(left), Some(left))
}
