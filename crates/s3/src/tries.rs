//! How often a deed is tried, and how long is waited in between.

use std::time::Duration;

use snapkeep_repo::{Error, Random, Result, SystemRandom};

use crate::fault::Verdict;
use crate::limits;

/// The tries of one deed.
#[derive(Debug)]
pub(crate) struct Tries {
    deadline: Duration,
    made: u32,
    wrong: u32,
    few: u32,
    pause: Duration,
}

impl Tries {
    /// For so long.
    pub(crate) fn new(deadline: Duration) -> Self {
        Self {
            deadline,
            made: 0,
            wrong: 0,
            few: 0,
            pause: limits::PAUSE_FIRST,
        }
    }

    /// How many replies were wrong.
    pub(crate) fn wrong(&self) -> u32 {
        self.wrong
    }

    /// How long to wait before the next try, after so long and if the bucket has ever answered or
    /// not; the error, if this was the last.
    pub(crate) fn failed(
        &mut self,
        verdict: Verdict,
        spent: Duration,
        answered: bool,
    ) -> Result<Duration> {
        self.made += 1;
        let mut deadline = self.deadline;
        let (error, pause) = match verdict {
            Verdict::Final(error) => return Err(error),
            Verdict::Few(error) => {
                self.few += 1;
                if self.few >= limits::CREDENTIAL_TRIES {
                    return Err(error);
                }
                (
                    error,
                    limits::CREDENTIAL_PAUSE_FIRST * (1 << (self.few - 1)),
                )
            }
            Verdict::Otherwise(error) => {
                self.wrong += 1;
                if self.wrong >= limits::WRONG_REPLIES_MAX {
                    return Err(error);
                }
                (error, self.next_pause())
            }
            Verdict::Guessed(error) => {
                if !answered {
                    deadline = deadline.min(limits::GUESS_PATIENCE);
                }
                (error, self.next_pause())
            }
            Verdict::Unlikely(error) => {
                if !answered {
                    deadline = deadline.min(limits::UNANSWERED_PATIENCE);
                }
                (error, self.next_pause())
            }
            Verdict::Again(error) => (error, self.next_pause()),
        };
        let wait = jittered(pause)?;
        if spent + wait > deadline {
            let (made, seconds) = (self.made, spent.as_secs());
            let what = format!("{error}; tried {made} times in {seconds} seconds");
            return Err(Error::new(error.kind(), what));
        }
        Ok(wait)
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(limits::PAUSE_MAX);
        pause
    }
}

/// Between half of a pause and all of it, so that hosts that were refused together do not come
/// back together.
fn jittered(pause: Duration) -> Result<Duration> {
    let mut byte = [0];
    SystemRandom.fill(&mut byte)?;
    Ok(pause / 2 + pause / 512 * u32::from(byte[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapkeep_repo::ErrorKind;

    fn error() -> Error {
        Error::new(ErrorKind::Io, "it failed")
    }

    fn tries() -> Tries {
        Tries::new(Duration::from_secs(600))
    }

    #[test]
    fn what_is_tried_a_few_times_has_a_counter_of_its_own_and_pauses_of_seconds() {
        let mut tries = tries();
        let (mut spent, mut few) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..=limits::CREDENTIAL_TRIES {
            spent += tries.failed(Verdict::Again(error()), spent, false).unwrap();
        }
        for _ in 1..limits::CREDENTIAL_TRIES {
            let pause = tries.failed(Verdict::Few(error()), spent, false).unwrap();
            assert!(pause >= Duration::from_secs(1));
            (spent, few) = (spent + pause, few + pause);
        }
        assert!(tries.failed(Verdict::Few(error()), spent, false).is_err());
        assert!(few <= Duration::from_secs(60));
    }

    #[test]
    fn credentials_that_nobody_says_are_there_are_asked_for_a_moment_only() {
        let (soon, late) = (Duration::from_secs(1), limits::GUESS_PATIENCE);
        let mut tries = tries();
        assert!(tries.failed(Verdict::Guessed(error()), soon, false).is_ok());
        assert!(tries.failed(Verdict::Guessed(error()), late, true).is_ok());
        let given_up = tries.failed(Verdict::Guessed(error()), late, false);
        assert!(given_up.is_err());
        assert!(limits::GUESS_PATIENCE + limits::NEIGHBOUR_PATIENCE < Duration::from_secs(10));
    }

    #[test]
    fn what_looks_mistyped_is_given_up_early_while_the_bucket_has_never_answered() {
        let (soon, late) = (Duration::from_secs(30), Duration::from_secs(61));
        let mut tries = tries();
        assert!(
            tries
                .failed(Verdict::Unlikely(error()), soon, false)
                .is_ok()
        );
        assert!(tries.failed(Verdict::Unlikely(error()), late, true).is_ok());
        assert!(tries.failed(Verdict::Again(error()), late, false).is_ok());
        let told = tries
            .failed(Verdict::Unlikely(error()), late, false)
            .unwrap_err();
        assert!(told.to_string().contains("tried 4 times"), "{told}");
    }
}
