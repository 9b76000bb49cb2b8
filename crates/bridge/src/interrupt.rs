//! Ending what runs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use snapkeep_api::Cancel;

/// Ends the provider's work, and what waits for somebody else meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    all: Cancel,
    part: Mutex<Part>,
}

/// Of the call that runs.
#[derive(Debug, Default)]
struct Part {
    /// Somebody does not wait for it any more.
    is_over: bool,
    /// What it waits with.
    cancel: Option<Cancel>,
}

impl Interrupt {
    /// Ends everything, for good.
    pub(crate) fn cancel(&self) {
        self.all.cancel();
        self.cancel_part();
    }

    /// Ends the call that runs, if it is one that can be ended alone.
    pub(crate) fn cancel_part(&self) {
        let mut part = self.lock();
        part.is_over = true;
        if let Some(cancel) = &part.cancel {
            cancel.cancel();
        }
    }

    /// Another call begins.
    pub(crate) fn begin(&self) {
        *self.lock() = Part::default();
    }

    /// What ends with everything.
    pub(crate) fn all(&self) -> Cancel {
        self.all.clone()
    }

    /// Something of the running call that can be ended alone, and ends with everything.
    pub(crate) fn part(&self) -> Cancel {
        let cancel = Cancel::new();
        let mut part = self.lock();
        if part.is_over || self.all.is_cancelled() {
            cancel.cancel();
        }
        part.cancel = Some(cancel.clone());
        cancel
    }

    fn lock(&self) -> MutexGuard<'_, Part> {
        // Nothing that runs under the lock leaves it half changed.
        self.part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
