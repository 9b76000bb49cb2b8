//! Taking back what a backup has changed: the same for its good end, for its failure, for its guard,
//! and for the next backup after both were killed. It can be done again after it failed halfway.

use std::thread::sleep;
use std::time::{Duration, Instant};

use snapkeep_api::{Cancel, Error, ErrorKind, Level, Result, TaskLog};

use super::config::LxcConfig;
use super::journal::{Journal, Step};
use super::life::Life;
use super::limits::Timeouts;
use super::lock::Lock;
use super::lxc::{Lxc, State};
use super::place::Place;

/// A container that is watched is looked at so often.
const LOOK: Duration = Duration::from_millis(200);

/// LXC's word for a container that `lxc-freeze` is at.
const FREEZING: &str = "FREEZING";

/// Who takes back.
pub(super) struct Undo<'a> {
    pub(super) place: &'a Place,
    pub(super) lock: &'a Lock,
    pub(super) log: &'a dyn TaskLog,
    /// Ends the watch of a container that may stop; what is left then, the guard does.
    pub(super) cancel: &'a Cancel,
    /// Whether it was changed by an earlier backup, and neither it nor its guard took it back:
    /// much may have happened since.
    pub(super) is_anothers: bool,
}

impl Undo<'_> {
    /// Takes back all that the journal names, the newest first, and crosses it off. What did not
    /// succeed stays in the journal; the first of it is the error.
    pub(super) fn all(&self, journal: &mut Journal) -> Result<()> {
        let mut first = None;
        for number in (0..journal.steps.len()).rev() {
            match self.step(&journal.steps[number], journal) {
                Ok(()) => {
                    journal.steps.remove(number);
                    journal.store(self.place)?;
                }
                Err(e) => {
                    self.log.log(Level::Warn, &e.chain());
                    first = first.or(Some(e));
                }
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn step(&self, step: &Step, journal: &Journal) -> Result<()> {
        let times = &journal.timeouts;
        match step {
            Step::Freeze { lxc, life } => self.thaw(lxc, life.as_ref(), times),
            Step::Stop { lxc, life } => self.start(lxc, life.as_ref(), journal),
            Step::Snapshot(snapshot) => {
                let deleted = snapshot.delete(self.lock, times, self.log);
                deleted.map_err(|e| {
                    let what = format!("{} is still there", snapshot.what());
                    Error::with_source(e.kind(), what, e)
                })
            }
        }
    }

    /// Lets a container go on that this backup froze.
    ///
    /// LXC's word is not enough to see whether it stands still: `lxc-freeze` and `lxc-unfreeze` tell
    /// the monitor before they tell the kernel, and may have been killed in between. Neither does
    /// anything if it thinks that all is done, so they are run one after the other.
    fn thaw(&self, lxc: &Lxc, life: Option<&Life>, times: &Timeouts) -> Result<()> {
        let deadline = Instant::now() + times.program;
        while let Some(state) = self.state(lxc, times)? {
            if state == State::Stopped {
                return Ok(());
            }
            if life.is_some_and(Life::has_ended) {
                let line = format!(
                    "container {} was started again after the backup froze it: it is let alone",
                    lxc.name
                );
                self.log.log(Level::Warn, &line);
                return Ok(());
            }
            if !matches!(&state, State::Changing(to) if to != FREEZING) {
                if state != State::Frozen {
                    lxc.freeze(self.lock.stdin(), times)?;
                }
                lxc.unfreeze(self.lock.stdin(), times)?;
                let now = self.state(lxc, times)?;
                if matches!(now, None | Some(State::Running | State::Stopped)) {
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                let what = format!(
                    "container {} may still stand still: LXC calls it {state:?}; lxc-freeze and then \
                     lxc-unfreeze let it go on",
                    lxc.name
                );
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// Starts a container that this backup stopped. If it only was asked to stop, it is watched: it
    /// may stop at any time.
    fn start(&self, lxc: &Lxc, life: Option<&Life>, journal: &Journal) -> Result<()> {
        let times = &journal.timeouts;
        let deadline = Instant::now() + times.watch;
        let mut told = false;
        while let Some(state) = self.state(lxc, times)? {
            let ended = life.is_some_and(Life::has_ended);
            // It may have ended since LXC was asked, or before LXC noticed. Only another first
            // process shows that somebody has started it again.
            let restarted = || {
                let now = lxc.life(self.lock.stdin(), times);
                now.is_some_and(|now| Some(&now) != life)
            };
            match &state {
                State::Stopped => {
                    if self.is_anothers && !is_to_run(lxc, journal) {
                        let line = format!(
                            "container {} was stopped by a backup that was killed long ago, or before the \
                             machine was restarted, and by now it may be stopped on purpose: it is not \
                             started, for it has no lxc.start.auto = 1",
                            lxc.name
                        );
                        self.log.log(Level::Warn, &line);
                        return Ok(());
                    }
                    lxc.start(self.lock.stdin(), times)?;
                    let line = format!("container {} is started again", lxc.name);
                    self.log.log(Level::Info, &line);
                    return Ok(());
                }
                State::Running | State::Frozen if ended && restarted() => return Ok(()),
                State::Running | State::Frozen | State::Changing(_) => {}
            }
            if Instant::now() >= deadline {
                if state == State::Running && !ended {
                    let line = format!(
                        "container {} was asked to stop, and runs all the same; it is watched no longer",
                        lxc.name
                    );
                    self.log.log(Level::Warn, &line);
                    return Ok(());
                }
                let what = format!(
                    "container {} neither runs nor stops: LXC calls it {state:?}",
                    lxc.name
                );
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
            self.cancel.check()?;
            if !told {
                told = true;
                let line = format!(
                    "container {} was asked to stop and may still do so: it is watched for {} seconds",
                    lxc.name,
                    times.watch.as_secs()
                );
                self.log.log(Level::Warn, &line);
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// `None` if the container is gone.
    fn state(&self, lxc: &Lxc, times: &Timeouts) -> Result<Option<State>> {
        match lxc.state(self.lock.stdin(), times) {
            Ok(state) => Ok(Some(state)),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let line = format!("container {} is not there any more", lxc.name);
                self.log.log(Level::Warn, &line);
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// Whether a container that a killed backup stopped is still meant to run.
fn is_to_run(lxc: &Lxc, journal: &Journal) -> bool {
    let lately =
        (journal.newest.as_ref()).is_some_and(|newest| newest.is_within(journal.timeouts.restart));
    lately || LxcConfig::read(&lxc.config()).is_ok_and(|config| config.start_auto)
}
