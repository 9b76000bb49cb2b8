//! Ending what runs.

use std::sync::{Mutex, PoisonError};

use snapkeep_api::Cancel;

/// Ends the provider's work, and what waits for somebody else meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    all: Cancel,
    /// What the call that runs waits with.
    part: Mutex<Option<Cancel>>,
}

impl Interrupt {
    /// Ends everything, for good.
    pub(crate) fn cancel(&self) {
        self.all.cancel();
        let part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = &*part {
            part.cancel();
        }
    }

    /// What ends with everything.
    pub(crate) fn all(&self) -> Cancel {
        self.all.clone()
    }

    /// Something of the running call that can be ended alone, and ends with everything.
    pub(crate) fn part(&self) -> Cancel {
        let cancel = Cancel::new();
        let mut part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        if self.all.is_cancelled() {
            cancel.cancel();
        }
        *part = Some(cancel.clone());
        cancel
    }
}
