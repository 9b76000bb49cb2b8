//! How a repository in a bucket locked its objects when this host last saw it. That is said there by
//! the name of an object that whoever may remove objects can hide.

use anyhow::Result;
use snapkeep_provider::HeadMemory;
use snapkeep_s3::{LockMode, Retention};

use super::Past;

/// What is remembered of a repository of which somebody accepted that it locks nothing.
const NOTHING: &str = "nothing";

/// What is remembered of a repository's locks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Remembered {
    /// Nothing.
    No,
    /// That it is to lock nothing.
    Nothing,
    Locks(Retention),
}

/// A repository that locks less than this host remembers.
#[derive(Debug)]
pub(crate) struct LessLocked {
    /// How it locked its objects.
    pub(crate) remembered: Retention,
    pub(crate) what: String,
}

impl Past {
    fn of_locks(&self) -> String {
        self.at.replacen("archives/", "locks/", 1)
    }

    /// What is remembered of the locks of a repository of this ID.
    pub(crate) fn locks(&self, repository: &str) -> Result<Remembered> {
        let text = self.memory.remembered(&self.of_locks())?;
        let words: Vec<&str> = text.as_deref().unwrap_or_default().split(' ').collect();
        Ok(match words[..] {
            [of, NOTHING] if of == repository => Remembered::Nothing,
            [of, mode, days] if of == repository => {
                let retention = (mode.parse::<LockMode>().ok())
                    .zip(days.parse().ok())
                    .and_then(|(mode, days)| Retention::new(mode, days).ok());
                retention.map_or(Remembered::No, Remembered::Locks)
            }
            // Another repository was here, or a power cut cut this short.
            _ => Remembered::No,
        })
    }

    /// Whether a repository locks less than is remembered.
    pub(crate) fn less_locked(
        &self,
        repository: &str,
        found: Option<Retention>,
    ) -> Result<Option<LessLocked>> {
        let Remembered::Locks(remembered) = self.locks(repository)? else {
            return Ok(None);
        };
        if !is_less(found, remembered) {
            return Ok(None);
        }
        let now = found.map_or("nothing".to_owned(), |found| format!("it for {found}"));
        let what = format!(
            "the repository in {} locked what is put there for {remembered}, and says now that it \
             locks {now}: somebody removed an object from its features/",
            self.shown
        );
        Ok(Some(LessLocked { remembered, what }))
    }

    /// Remembers how a repository locks its objects, unless that is less than is remembered.
    pub(crate) fn saw_locks(&self, repository: &str, found: Option<Retention>) -> Result<()> {
        let Some(found) = found else {
            return Ok(());
        };
        match self.locks(repository)? {
            Remembered::Locks(known) if known == found || is_less(Some(found), known) => Ok(()),
            Remembered::No | Remembered::Nothing | Remembered::Locks(_) => {
                self.accept_locks(repository, Some(found))
            }
        }
    }

    /// Takes the locks of a repository as they are.
    pub(crate) fn accept_locks(&self, repository: &str, found: Option<Retention>) -> Result<()> {
        let text = match found {
            Some(found) => format!("{repository} {} {}", found.mode(), found.days()),
            None => format!("{repository} {NOTHING}"),
        };
        Ok(self.memory.remember(&self.of_locks(), &text)?)
    }
}

/// Whether this is less than what is remembered: shorter, or by a lock that gives way.
pub(crate) fn is_less(found: Option<Retention>, remembered: Retention) -> bool {
    found.is_none_or(|found| {
        let gives_way = |of: Retention| of.mode() == LockMode::Governance;
        found.days() < remembered.days() || (gives_way(found) && !gives_way(remembered))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_less_that_is_shorter_or_gives_way() {
        let of = |mode, days| Retention::new(mode, days).unwrap();
        let (strict, soft) = (LockMode::Compliance, LockMode::Governance);
        for (found, remembered, less) in [
            (None, of(soft, 1), true),
            (Some(of(strict, 29)), of(strict, 30), true),
            (Some(of(soft, 40)), of(strict, 30), true),
            (Some(of(strict, 30)), of(strict, 30), false),
            (Some(of(strict, 30)), of(soft, 30), false),
            (Some(of(soft, 31)), of(soft, 30), false),
        ] {
            assert_eq!(is_less(found, remembered), less, "{found:?} {remembered:?}");
        }
    }
}
