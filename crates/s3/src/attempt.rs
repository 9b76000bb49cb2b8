//! What was seen of one try of a deed, noted where the replies pass by.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use snapkeep_repo::Error;

/// What went wrong.
#[derive(Clone, Debug)]
pub(crate) enum Problem {
    /// The endpoint answered with an error.
    Refused(Refusal),
    /// There was no whole answer.
    Transport(String, Broken),
    /// Whoever hands out credentials did not.
    Credentials(String, Giver),
    /// The answer is not one to what was asked.
    Wrong(String),
    /// The request was not sent.
    Unsent(Error),
}

/// Who did not hand out credentials.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Giver {
    /// One who said no.
    Refused,
    /// One of whom there was no whole answer, or one that said that it failed: that may pass.
    Failed,
    /// Nobody says that there is one: it was asked because there was no other.
    Guessed,
}

/// What broke.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Broken {
    Connection,
    /// The host's name is not known.
    Name,
    /// The endpoint is not who it should be.
    Certificate,
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
#[derive(Debug)]
pub(crate) struct Attempt {
    problem: Mutex<Option<Problem>>,
    /// When all tries of the deed should have ended.
    until: Option<Instant>,
}

tokio::task_local! {
    /// The try that this task makes.
    pub(crate) static ATTEMPT: Arc<Attempt>;
}

impl Attempt {
    pub(crate) fn new(until: Option<Instant>) -> Self {
        Self {
            problem: Mutex::default(),
            until,
        }
    }

    pub(crate) fn take(&self) -> Option<Problem> {
        (self.problem.lock().unwrap_or_else(PoisonError::into_inner)).take()
    }
}

/// How much time is left until the deadline of the deed that is being tried.
pub(crate) fn left() -> Duration {
    let left = |attempt: &Arc<Attempt>| {
        let until = attempt.until?;
        Some(until.saturating_duration_since(Instant::now()))
    };
    ATTEMPT
        .try_with(left)
        .ok()
        .flatten()
        .unwrap_or(Duration::MAX)
}

/// Notes what went wrong with the try that is being made.
pub(crate) fn note(problem: Problem) {
    let noted = ATTEMPT.try_with(|attempt| {
        *(attempt.problem.lock()).unwrap_or_else(PoisonError::into_inner) = Some(problem);
    });
    debug_assert!(noted.is_ok(), "requests are made by tries alone");
}

/// What was noted last of the try that is being made.
pub(crate) fn noted() -> Option<Problem> {
    let noted = |attempt: &Arc<Attempt>| {
        (attempt
            .problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
        .clone()
    };
    ATTEMPT.try_with(noted).ok().flatten()
}

/// Whether the range that this try asked for begins past the object's end.
pub(crate) fn is_past_end() -> bool {
    matches!(noted(), Some(Problem::Refused(refusal)) if refusal.status == 416)
}
