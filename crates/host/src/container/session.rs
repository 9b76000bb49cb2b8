//! One backup's right to change a container: lock, journal and guard.

use std::path::Path;

use snapkeep_api::{Cancel, Error, ErrorKind, Level, Result, TaskLog};

use super::guard::{Guard, GuardProgram};
use super::journal::{Journal, Step};
use super::limits::Timeouts;
use super::lock::Lock;
use super::place::Place;
use super::undo::Undo;

/// Where a backup keeps what others must know of it, and who watches it.
#[derive(Clone, Debug)]
pub struct Safety {
    /// A folder for locks and journals, the same for all backups of the machine; only this user
    /// may write there. It is made if it is not there.
    pub state_folder: std::path::PathBuf,
    /// How to start a guard.
    pub guard: GuardProgram,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// A backup that holds the lock of its container.
pub(super) struct Session<'a> {
    place: Place,
    lock: Lock,
    journal: Journal,
    guard: Option<Guard>,
    safety: &'a Safety,
    log: &'a dyn TaskLog,
    cancel: &'a Cancel,
}

impl<'a> Session<'a> {
    /// Takes the lock, and takes back what a killed backup of the same container left.
    ///
    /// `Unavailable` if another backup of it runs, or what is left cannot be taken back.
    pub(super) fn begin(
        safety: &'a Safety,
        label: &str,
        what: &Path,
        log: &'a dyn TaskLog,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let place = Place::new(&safety.state_folder, label, what)?;
        let Some(lock) = Lock::take(&place)? else {
            let holder = Lock::holder(&place).filter(|life| !life.has_ended());
            let by = holder.map_or_else(
                || {
                    "one that was killed is being taken back, or a program of it still runs"
                        .to_owned()
                },
                |life| format!("process {}", life.id()),
            );
            let users = Lock::users(&place);
            let users: Vec<String> = users.iter().map(u32::to_string).collect();
            let programs = if users.is_empty() {
                String::new()
            } else {
                format!("; it runs {}", users.join(", "))
            };
            let what = format!(
                "another backup of {label} is running, or what one changed is being taken back ({by}{programs}): \
                 wait until that is over"
            );
            return Err(Error::new(ErrorKind::Unavailable, what));
        };
        let left = Journal::load(&place)?;
        let mut session = Self {
            place,
            lock,
            journal: Journal::new(safety.timeouts),
            guard: None,
            safety,
            log,
            cancel,
        };
        if let Some(mut journal) = left {
            log.log(
                Level::Warn,
                "a backup of this container was killed: what it left is taken back",
            );
            if let Err(e) = session.undo(true).all(&mut journal) {
                // A snapshot too many costs room; a container that stands still must not be missed.
                if journal.steps.iter().any(Step::may_stand_still) {
                    return Err(e);
                }
            }
            session.journal.steps = journal.steps;
        }
        session.lock.check_named(&session.place)?;
        Ok(session)
    }

    pub(super) fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Where its journal is.
    pub(super) fn folder(&self) -> &Path {
        self.place.folder()
    }

    pub(super) fn cancel(&self) -> &Cancel {
        self.cancel
    }

    /// Says what is about to be changed; from then on it is taken back, whatever happens.
    pub(super) fn record(&mut self, step: Step) -> Result<()> {
        if self.guard.is_none() {
            let times = &self.safety.timeouts;
            self.guard = Some(Guard::start(&self.safety.guard, &self.place, times)?);
        }
        self.journal.add(&self.place, step)
    }

    /// Takes that back before anything was changed.
    pub(super) fn forget(&mut self) -> Result<()> {
        self.journal.forget(&self.place)
    }

    /// Takes back everything. What could not be, is the guard's and the next backup's to do.
    pub(super) fn take_back(&mut self) -> Result<()> {
        let mut journal = std::mem::replace(&mut self.journal, Journal::new(self.safety.timeouts));
        let done = self.undo(false).all(&mut journal);
        self.journal = journal;
        done
    }

    /// Ends the backup.
    pub(super) fn end(self) {
        if !self.journal.steps.is_empty() {
            return;
        }
        if let Some(guard) = self.guard {
            guard.end();
        }
        self.lock.release();
    }

    fn undo(&self, is_anothers: bool) -> Undo<'_> {
        Undo {
            place: &self.place,
            lock: &self.lock,
            log: self.log,
            cancel: self.cancel,
            is_anothers,
        }
    }
}
