//! Ending what waits for a source that does not answer.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;

use snapkeep_api::{BlockSource, Cancel};

use crate::limits;

/// Does something with a source, which is interrupted as soon as the end is asked for.
pub(crate) fn interruptible<T>(
    cancel: &Cancel,
    source: &dyn BlockSource,
    work: impl FnOnce() -> T,
) -> T {
    thread::scope(|scope| {
        let (running, ended) = channel::<()>();
        let watch = move || {
            while ended.recv_timeout(limits::CANCEL_SEEN) == Err(RecvTimeoutError::Timeout) {
                if cancel.is_cancelled() {
                    source.interrupt();
                    return;
                }
            }
        };
        // Without it a source that hangs is given up later.
        thread::Builder::new().spawn_scoped(scope, watch).ok();
        let result = work();
        drop(running);
        result
    })
}
