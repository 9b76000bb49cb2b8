//! What is kept of a container's backup while it runs: a lock, and a journal of what it has changed.
//!
//! Programs that a backup runs get the lock as their standard input: it is held until the last of
//! them has ended, also when the backup was killed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use snapkeep_api::{Error, ErrorKind, Result};

use super::life::{Life, Moment};
use super::limits::{JOURNAL_BYTES_MAX, STEPS_MAX, Timeouts};
use super::lines::{read, shown, shown_path};
use super::lxc::Lxc;
use super::snapshot::Snapshot;

/// The newest layout of a journal.
const VERSION: u32 = 1;
/// A lock names its holder in so many bytes at most.
const HOLDER_BYTES_MAX: u64 = 512;

/// Where the lock and the journal of one container are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    folder: PathBuf,
    stem: String,
}

impl Place {
    /// Of what is backed up, in a folder of states, which is made if it is not there.
    pub(super) fn new(folder: &Path, label: &str, path: &Path) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| cannot("make", folder, e))?;
        check_safe(folder)?;
        check_above(folder)?;
        let label: String = (label.chars())
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            .take(64)
            .collect();
        let stem = format!("{label}-{:016x}", hash(path.as_os_str().as_bytes()));
        let folder = std::path::absolute(folder).map_err(|e| cannot("use", folder, e))?;
        Ok(Self { folder, stem })
    }

    /// One that another process of ours named; its folder is there.
    pub(super) fn named(folder: &Path, stem: &str) -> Result<Self> {
        check_safe(folder)?;
        if !(stem.bytes()).all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
            let what = format!("{:?} is no container's state", shown(stem.as_bytes()));
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self {
            folder: folder.to_owned(),
            stem: stem.to_owned(),
        })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn stem(&self) -> &str {
        &self.stem
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.folder.join(format!("{}.journal", self.stem))
    }

    /// What a guard wrote down that had nobody to tell it.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.stem))
    }

    fn lock(&self) -> PathBuf {
        self.folder.join(format!("{}.lock", self.stem))
    }
}

/// The lock of one container. It is free when this, its clones and the programs that got it are gone.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// Why it does not name its holder.
    unnamed: Option<io::Error>,
}

impl Lock {
    /// Takes it; `None` if somebody has it.
    ///
    /// One that cannot be written to, such as on a full disk, is taken all the same: see
    /// [`check_named`](Self::check_named).
    pub(super) fn take(place: &Place) -> Result<Option<Self>> {
        let path = place.lock();
        let failed = |e| cannot("lock", &path, e);
        let open = |writing: bool| {
            let mut options = OpenOptions::new();
            options.read(true).append(writing).create(writing);
            options.mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
            options.open(&path)
        };
        let (file, unwritable) = match open(true) {
            Ok(file) => (file, None),
            Err(e) => match open(false) {
                Ok(file) => (file, Some(e)),
                Err(_) => return Err(failed(e)),
            },
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(failed(e.into())),
        }
        let holder = Life::own().and_then(|life| serde_json::to_vec(&life).ok());
        let named = (file.set_len(0)).and_then(|()| (&file).write_all(&holder.unwrap_or_default()));
        // That it could not be opened for writing says more than that it then cannot be written to.
        let unnamed = named.err().map(|e| unwritable.unwrap_or(e));
        Ok(Some(Self { file, unnamed }))
    }

    /// Fails if others could not see who has it. Whoever only takes back what was changed need not
    /// mind; whoever is about to change something must.
    pub(super) fn check_named(&self, place: &Place) -> Result<()> {
        let copy = |e: &io::Error| {
            e.raw_os_error()
                .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
        };
        (self.unnamed.as_ref()).map_or(Ok(()), |e| Err(cannot("lock", &place.lock(), copy(e))))
    }

    /// Who took it last.
    pub(super) fn holder(place: &Place) -> Option<Life> {
        let file = File::open(place.lock()).ok()?;
        let mut text = Vec::new();
        file.take(HOLDER_BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// For a program that is run under the lock: it reads nothing from it.
    pub(super) fn stdin(&self) -> Stdio {
        // Without it the program runs all the same, but a later backup does not see it.
        self.file
            .try_clone()
            .map_or_else(|_| Stdio::null(), Stdio::from)
    }

    /// Frees it, whoever still has it: at the end of a backup of which no program runs any more. A
    /// process that is just being started has copies of everything for a moment.
    pub(super) fn release(self) {
        // Dropping it frees it, too, only later.
        rustix::fs::flock(&self.file, FlockOperation::Unlock).ok();
    }

    /// The processes that have it as their standard input, apart from this one.
    pub(super) fn users(place: &Place) -> Vec<u32> {
        let Ok(lock) = std::fs::metadata(place.lock()) else {
            return Vec::new();
        };
        let same = |id: &u32| {
            let about = std::fs::metadata(format!("/proc/{id}/fd/0"));
            about.is_ok_and(|about| about.dev() == lock.dev() && about.ino() == lock.ino())
        };
        std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .take(super::limits::PROCESSES_MAX)
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|id| *id != std::process::id())
            .filter(same)
            .collect()
    }
}

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
            let mut file = tempfile::NamedTempFile::new_in(&place.folder)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
        }
        File::open(&place.folder)?.sync_all()
    }
}

/// The programs that a journal names are run: nobody else may write here.
fn check_safe(folder: &Path) -> Result<()> {
    let about = std::fs::metadata(folder).map_err(|e| cannot("use", folder, e))?;
    let own = rustix::process::geteuid().as_raw();
    if about.uid() != own || about.mode() & 0o022 != 0 {
        let what = format!(
            "the folder {} keeps what a later backup does as this user: it must be this user's, and nobody \
             else may write there",
            shown_path(folder)
        );
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(())
}

/// Nor may anybody else put another folder in its place.
fn check_above(folder: &Path) -> Result<()> {
    let folder = folder
        .canonicalize()
        .map_err(|e| cannot("use", folder, e))?;
    let Some(above) = folder.parent() else {
        return Ok(());
    };
    let about = std::fs::metadata(above).map_err(|e| cannot("use", above, e))?;
    let own = rustix::process::geteuid().as_raw();
    let is_open = about.mode() & 0o022 != 0 && about.mode() & 0o1000 == 0;
    if is_open || ![0, own].contains(&about.uid()) {
        let what = format!(
            "the folder {} holds {}, which nobody else may replace: it must be this user's or root's, and \
             nobody else may write there",
            shown_path(above),
            shown_path(&folder)
        );
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(())
}

fn cannot(doing: &str, path: &Path, e: io::Error) -> Error {
    let what = format!("cannot {doing} {}", shown_path(path));
    Error::with_source(ErrorKind::Target, what, e)
}

/// FNV-1a, which is the same in every version of this program.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_lock_is_held_until_the_last_program_that_got_it_has_ended() {
        let folder = tempfile::TempDir::new().unwrap();
        let place = Place::new(folder.path(), "web", Path::new("/a")).unwrap();
        let lock = Lock::take(&place).unwrap().unwrap();
        assert!(Lock::take(&place).unwrap().is_none());
        assert_eq!(Lock::holder(&place), Life::own());
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(lock.stdin())
            .spawn()
            .unwrap();
        drop(lock);
        assert!(Lock::take(&place).unwrap().is_none());
        assert_eq!(Lock::users(&place), [child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        // Other tests start processes, which have copies of it until they are what they shall be.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while Lock::take(&place).unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "it is held");
            std::thread::yield_now();
        }
        let other = Place::new(folder.path(), "web", Path::new("/b")).unwrap();
        assert_ne!(other.stem(), place.stem());
    }

    #[test]
    fn a_lock_that_cannot_name_its_holder_is_taken_and_says_so() {
        let folder = tempfile::TempDir::new().unwrap();
        let place = Place::new(folder.path(), "web", Path::new("/a")).unwrap();
        // A file of whatever kind that can be locked and not written to.
        std::fs::create_dir(place.lock()).unwrap();
        let lock = Lock::take(&place).unwrap().unwrap();
        assert!(Lock::take(&place).unwrap().is_none());
        let said = lock.check_named(&place).unwrap_err().chain();
        assert!(said.contains(".lock: Is a directory"), "{said}");
        std::fs::remove_dir(place.lock()).unwrap();
        let lock = Lock::take(&place).unwrap().unwrap();
        lock.check_named(&place).unwrap();
    }

    #[test]
    fn a_folder_that_another_process_names_is_not_made() {
        let folder = tempfile::TempDir::new().unwrap();
        let absent = folder.path().join("absent");
        Place::named(&absent, "web-1").unwrap_err();
        assert!(!absent.exists());
    }

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

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let kept = |folder: &Path| Place::new(folder, "web", Path::new("/a")).map(drop);
        assert!(kept(folder.path()).is_err());
        // Nor may they put another in its place.
        let inside = folder.path().join("inside");
        let said = kept(&inside).unwrap_err().chain();
        assert!(said.contains("nobody else may replace"), "{said}");
        let sticky = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(folder.path(), sticky).unwrap();
        kept(&inside).unwrap();
    }
}
