//! Does the IO of a handshake, whichever side's.

use std::io::{self, Write as _};
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
        send(stream, &machine.take_output(), deadline).map_err(failed)?;
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
            send(stream, &machine.take_output(), deadline).ok();
            return Err(fault);
        }
    }
}

/// Like `write_all`, but the deadline is for all of it.
fn send(stream: &mut Stream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        hurry(stream, deadline)?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Limits the next read or write to the time that is left.
fn hurry(stream: &Stream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_timeouts(Some(left), Some(left))
}
