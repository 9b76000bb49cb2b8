//! Telling what cannot be read, once for each entry and not without end.

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use snapkeep_api::{Error, ErrorKind};

use crate::limits::PROBLEMS_MAX;
use crate::location::Location;

/// Told of an entry, by its path in the mounted file system, and why it cannot be read. Called
/// once for each entry, at most 1001 times (the last call says that there are more), by any thread.
pub type OnProblem = Box<dyn Fn(&str, &Error) + Send + Sync>;

pub(crate) struct Problems {
    on_problem: OnProblem,
    told: Mutex<HashSet<u128>>,
}

impl Problems {
    pub(crate) fn new(on_problem: OnProblem) -> Self {
        Self {
            on_problem,
            told: Mutex::default(),
        }
    }

    pub(crate) fn tell(&self, location: &Location, error: &Error) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() > PROBLEMS_MAX || !told.insert(location.key) {
            return;
        }
        let last = told.len() > PROBLEMS_MAX;
        drop(told);
        // Whoever is told must not be able to end a thread that answers.
        let call = AssertUnwindSafe(|| {
            if last {
                let more = "more entries cannot be read; they are no longer named";
                (self.on_problem)("/", &Error::new(ErrorKind::Corrupt, more));
            } else {
                (self.on_problem)(&location.to_string(), error);
            }
        });
        catch_unwind(call).ok();
    }
}

impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problems").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snapkeep_api::tree::Name;

    use super::*;

    #[test]
    fn each_entry_is_told_once_and_very_many_are_not() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let problems = Problems::new(Box::new(move |path, error| {
            kept.lock()
                .unwrap()
                .push(format!("{path}: {}", error.chain()));
        }));
        let error = Error::new(ErrorKind::Corrupt, "damaged");
        for n in 0..PROBLEMS_MAX + 10 {
            let name = Name::new(n.to_string().into_bytes()).unwrap();
            let location = Location::root().join(&name);
            problems.tell(&location, &error);
            problems.tell(&location, &error);
        }
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), PROBLEMS_MAX + 1);
        assert_eq!(lines[7], "/7: damaged");
        assert!(lines[PROBLEMS_MAX].contains("no longer named"));
    }
}
