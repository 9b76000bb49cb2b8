//! Does the IO of a handshake, whichever side's.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::error::{ErrorKind, Fault};
use crate::handshake::Machine;
use crate::stream::Stream;

/// Runs a machine to its outcome, all within the time limit. The stream's own time-outs are used up
/// for that: the caller sets those of the next phase.
pub(crate) fn hands<M: Machine>(
    stream: &mut Stream,
    mut machine: M,
    limit: Duration,
) -> Result<M::Outcome, Fault> {
    let failed = |error| Fault::socket(error, "shaking hands", limit);
    let deadline = Instant::now() + limit;
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::new(
                ErrorKind::Timeout,
                format!("the handshake takes longer than {limit:?}"),
            ));
        }
        stream
            .set_timeouts(Some(left), Some(left))
            .map_err(failed)?;
        stream.write_all(&machine.take_output()).map_err(failed)?;
        if let Some(outcome) = machine.take_outcome() {
            return Ok(outcome);
        }
        let most = machine.wants().min(buffer.len());
        let count = stream.read_some(&mut buffer[..most]).map_err(failed)?;
        if count == 0 {
            return Err(Fault::closed("shaking hands"));
        }
        if let Err(fault) = machine.feed(&buffer[..count]) {
            // A good-bye is polite; what counts is the fault that led to it.
            stream.write_all(&machine.take_output()).ok();
            return Err(fault);
        }
    }
}
