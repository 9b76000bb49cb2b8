//! What was seen of one try of a deed, noted where the replies pass by.

use std::sync::{Arc, Mutex, PoisonError};

use snapkeep_repo::Error;

/// What went wrong.
#[derive(Clone, Debug)]
pub(crate) enum Problem {
    /// The endpoint answered with an error.
    Refused(Refusal),
    /// There was no whole answer. True if trying again cannot help.
    Transport(String, bool),
    /// Whoever hands out credentials did not.
    Credentials(String),
    /// The answer is not one to what was asked.
    Wrong(String),
    /// The request was not sent.
    Unsent(Error),
}

/// An endpoint's error.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The error's name in S3, if it has one.
    pub(crate) code: String,
    pub(crate) words: String,
    /// The bucket's region, if the answer says so.
    pub(crate) region: Option<String>,
}

/// One try.
#[derive(Debug, Default)]
pub(crate) struct Attempt(Mutex<Option<Problem>>);

tokio::task_local! {
    /// The try that this task makes.
    pub(crate) static ATTEMPT: Arc<Attempt>;
}

impl Attempt {
    pub(crate) fn take(&self) -> Option<Problem> {
        (self.0.lock().unwrap_or_else(PoisonError::into_inner)).take()
    }
}

/// Notes what went wrong with the try that is being made.
pub(crate) fn note(problem: Problem) {
    let noted = ATTEMPT.try_with(|attempt| {
        *(attempt.0.lock()).unwrap_or_else(PoisonError::into_inner) = Some(problem);
    });
    debug_assert!(noted.is_ok(), "requests are made by tries alone");
}

/// Whether the range that this try asked for begins past the object's end.
pub(crate) fn is_past_end() -> bool {
    let past = |attempt: &Arc<Attempt>| {
        let noted = attempt.0.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*noted, Some(Problem::Refused(refusal)) if refusal.status == 416)
    };
    ATTEMPT.try_with(past).unwrap_or(false)
}
