//! What a backup has changed of its container, and somebody has to take back.

use std::fs::File;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use snapkeep_api::{Error, ErrorKind, Result};

use super::life::{Life, Moment};
use super::limits::{JOURNAL_BYTES_MAX, STEPS_MAX, Timeouts};
use super::lines::{read, shown_path};
use super::lxc::Lxc;
use super::place::{Place, cannot};
use super::snapshot::Snapshot;

/// The newest layout of a journal.
const VERSION: u32 = 1;

/// A change of a container that has to be taken back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(super) enum Step {
    /// The running container is frozen.
    Freeze { lxc: Lxc, life: Option<Life> },
    /// The running container is stopped.
    Stop { lxc: Lxc, life: Option<Life> },
    /// A snapshot is made.
    Snapshot(Snapshot),
}

impl Step {
    /// Whether the container may stand still until it is taken back.
    pub(super) fn may_stand_still(&self) -> bool {
        match self {
            Self::Freeze { .. } | Self::Stop { .. } => true,
            Self::Snapshot(snapshot) => snapshot.may_stand_still(),
        }
    }
}

/// What one backup has changed, oldest first.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Journal {
    version: u32,
    pub(super) timeouts: Timeouts,
    /// When the newest was added.
    pub(super) newest: Option<Moment>,
    pub(super) steps: Vec<Step>,
}

impl Journal {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self {
            version: VERSION,
            timeouts,
            newest: None,
            steps: Vec::new(),
        }
    }

    /// What an earlier backup wrote; `None` if there is nothing to take back.
    pub(super) fn load(place: &Place) -> Result<Option<Self>> {
        let path = place.journal();
        let text = match read(&path, JOURNAL_BYTES_MAX) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let unusable = |why: String| {
            let what = format!(
                "{} says what a killed backup changed, and cannot be used: {why}; look whether the container \
                 stands still, and remove that file",
                shown_path(&path)
            );
            Error::new(ErrorKind::Invalid, what)
        };
        let found: Self = serde_json::from_slice(&text).map_err(|e| unusable(e.to_string()))?;
        if found.version != VERSION || found.steps.len() > STEPS_MAX {
            return Err(unusable("it is of a newer version of this program".into()));
        }
        Ok(Some(found))
    }

    /// Adds a change that is about to be made: it lasts when this returns. If it cannot be
    /// written, the change must not be made, and is not there to be taken back.
    pub(super) fn add(&mut self, place: &Place, step: Step) -> Result<()> {
        if self.steps.len() >= STEPS_MAX {
            let what = format!(
                "{} names {STEPS_MAX} things that could not be taken back: do it by hand, and remove it",
                shown_path(&place.journal())
            );
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        self.steps.push(step);
        self.newest = Moment::now();
        self.store(place).inspect_err(|_| {
            self.steps.pop();
            // It may be there all the same, only not surely after a power cut.
            self.store(place).ok();
        })
    }

    /// Crosses off the newest change, which was not made after all.
    pub(super) fn forget(&mut self, place: &Place) -> Result<()> {
        self.steps.pop();
        self.store(place)
    }

    /// Writes it, or removes it if there is nothing to take back.
    pub(super) fn store(&self, place: &Place) -> Result<()> {
        let path = place.journal();
        self.write(place).map_err(|e| cannot("write", &path, e))
    }

    fn write(&self, place: &Place) -> io::Result<()> {
        let path = place.journal();
        if self.steps.is_empty() {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        } else {
            let mut file = tempfile::NamedTempFile::new_in(place.folder())?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
        }
        File::open(place.folder())?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_change_that_cannot_be_written_down_is_not_there_to_be_taken_back() {
        let folder = tempfile::TempDir::new().unwrap();
        let place = Place::new(folder.path(), "web", Path::new("/a")).unwrap();
        let lxc = Lxc::new(Path::new("/var/lib/lxc"), "web", None).unwrap();
        let stop = |lxc: &Lxc| Step::Stop {
            lxc: lxc.clone(),
            life: None,
        };
        let mut journal = Journal::new(Timeouts::default());
        // Nothing can be put in the place of a folder.
        std::fs::create_dir(place.journal()).unwrap();
        journal.add(&place, stop(&lxc)).unwrap_err();
        assert_eq!(journal.steps, []);
        std::fs::remove_dir(place.journal()).unwrap();
        journal.add(&place, stop(&lxc)).unwrap();
        journal.forget(&place).unwrap();
        assert!(Journal::load(&place).unwrap().is_none());
    }

    #[test]
    fn a_journal_is_there_as_long_as_it_has_something() {
        let folder = tempfile::TempDir::new().unwrap();
        let place = Place::new(folder.path(), "web", Path::new("/a")).unwrap();
        assert!(Journal::load(&place).unwrap().is_none());
        let mut journal = Journal::new(Timeouts::default());
        let lxc = Lxc::new(Path::new("/var/lib/lxc"), "web", None).unwrap();
        let life = Life::own();
        let step = Step::Freeze { lxc, life };
        journal.add(&place, step.clone()).unwrap();
        assert_eq!(Journal::load(&place).unwrap().unwrap().steps, [step]);
        journal.steps.clear();
        journal.store(&place).unwrap();
        assert!(Journal::load(&place).unwrap().is_none());
        for bad in ["", "{}", "{\"version\": 2}"] {
            std::fs::write(place.journal(), bad).unwrap();
            let error = Journal::load(&place).unwrap_err();
            assert!(error.chain().contains("remove that file"), "{error}");
        }
    }
}
