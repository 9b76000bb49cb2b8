//! Ending a backup or a restore before it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, ErrorKind, Result};

/// A wish to end what is running, seen by everybody who has a clone. Loops that take long ask
/// [`check`](Self::check) between two pieces of work, and clean up as after any other failure.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Nothing is to be ended yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the end. It cannot be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether the end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// An error of kind `Cancelled` if the end was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "it was cancelled"));
        }
        Ok(())
    }

    /// The flag itself, for a signal handler, which may do no more than set it.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_sees_the_wish() {
        let cancel = Cancel::new();
        let clone = cancel.clone();
        assert!(clone.check().is_ok());
        cancel.flag().store(true, Ordering::SeqCst);
        assert_eq!(clone.check().unwrap_err().kind(), ErrorKind::Cancelled);
    }
}
