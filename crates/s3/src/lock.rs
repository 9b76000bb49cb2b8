//! Object Lock: what is put is kept by the storage until a time, whoever wants it gone. Whether a
//! repository's objects are locked, how and for how long is the name of a feature in it.

mod bucket;
mod extend;
mod put;

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use snapkeep_repo::{Error, ErrorKind, FileName, Result};

use crate::clock;
use crate::limits;
use crate::signed::Answer;

pub use extend::Extended;

/// How the feature's file is called, before mode and days.
const FEATURE: &str = "features/compatible-object-lock-1-";
/// The folders whose files are locked: what a restore reads, and what is said of archives. All else
/// is made anew, or is replaced all the time.
const FOLDERS: [&str; 6] = [
    "packs",
    "snapshots",
    "index",
    "attributes",
    "keys",
    "features",
];
/// The one file that is in no folder.
const CONFIG: &str = "config";

/// Whom a lock binds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LockMode {
    /// All but those who have a permission of its own to pass over it.
    Governance,
    /// Everybody, the owner of the account too.
    Compliance,
}

impl LockMode {
    fn word(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        }
    }

    /// As S3 writes it.
    fn header(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }

    fn of_header(text: &str) -> Option<Self> {
        [Self::Governance, Self::Compliance]
            .into_iter()
            .find(|mode| mode.header() == text)
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for LockMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Governance, Self::Compliance]
            .into_iter()
            .find(|mode| mode.word() == text)
            .ok_or_else(|| {
                let what = format!("{text:?} is no mode: it is compliance or governance");
                Error::new(ErrorKind::Invalid, what)
            })
    }
}

/// How a repository's objects are locked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retention {
    mode: LockMode,
    days: u32,
}

impl Retention {
    /// For so many days from when an object is put, or its lock is renewed.
    pub fn new(mode: LockMode, days: u32) -> Result<Self> {
        if !(limits::LOCK_DAYS_MIN..=limits::LOCK_DAYS_MAX).contains(&days) {
            let what = format!(
                "objects cannot be locked for {days} days: it must be {} to {}",
                limits::LOCK_DAYS_MIN,
                limits::LOCK_DAYS_MAX
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self { mode, days })
    }

    /// Whom it binds.
    pub fn mode(&self) -> LockMode {
        self.mode
    }

    /// For how many days.
    pub fn days(&self) -> u32 {
        self.days
    }

    /// The same in seconds.
    pub(crate) fn seconds(self) -> i64 {
        i64::from(self.days) * 86_400
    }

    /// The file that says so.
    pub(crate) fn file(self) -> Result<FileName> {
        format!("{FEATURE}{}-{}", self.mode.word(), self.days).parse()
    }

    /// Whether this file says so.
    pub fn is_said_by(&self, file: &FileName) -> bool {
        Self::of_file(file) == Some(*self)
    }

    /// What a file says, if it is one of these.
    pub(crate) fn of_file(file: &FileName) -> Option<Self> {
        let (mode, days) = file.as_str().strip_prefix(FEATURE)?.split_once('-')?;
        Self::new(mode.parse().ok()?, days.parse().ok()?).ok()
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.days == 1 { "day" } else { "days" };
        write!(f, "{} {word}, {}", self.days, self.mode)
    }
}

/// What a storage knows of locks.
#[derive(Debug, Default)]
pub(crate) struct Locking {
    /// How objects are locked, once that is known.
    retention: Mutex<Option<Retention>>,
    /// Whether an object that was put was seen to be locked,
    saw_lock: AtomicBool,
    /// and one whose lock was renewed.
    saw_renewal: AtomicBool,
}

/// Whether files of this name are locked in a repository that has locks.
pub(crate) fn is_to_be_locked(name: &FileName) -> bool {
    let first = name.as_str().split('/').next().unwrap_or_default();
    FOLDERS.contains(&first) || name.as_str() == CONFIG
}

/// An object's lock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ObjectLock {
    pub(crate) mode: LockMode,
    /// In seconds since 1970, by the storage's clock.
    pub(crate) until: i64,
}

impl ObjectLock {
    /// What an answer about an object says of its lock; also whoever may not see it is told of none.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let mode = answer.header(MODE)?;
        Some(Self {
            mode: LockMode::of_header(mode)?,
            until: clock::read(answer.header(UNTIL)?)?,
        })
    }
}

/// The headers of a lock.
const MODE: &str = "x-amz-object-lock-mode";
const UNTIL: &str = "x-amz-object-lock-retain-until-date";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_the_name_of_a_feature() {
        let retention = Retention::new(LockMode::Compliance, 30).unwrap();
        let file = retention.file().unwrap();
        assert_eq!(
            file.as_str(),
            "features/compatible-object-lock-1-compliance-30"
        );
        assert_eq!(Retention::of_file(&file), Some(retention));
        for other in [
            "features/compatible-object-lock-1-compliance",
            "features/compatible-object-lock-1-whatever-30",
            "features/compatible-object-lock-1-governance-0",
            "features/compatible-object-lock-1-governance-99999",
            "features/compatible-writer-slot-1",
        ] {
            assert_eq!(Retention::of_file(&other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn what_a_restore_needs_is_locked_and_what_comes_and_goes_is_not() {
        for (name, locked) in [
            ("config", true),
            ("packs/ab/abcd", true),
            ("snapshots/main/vm/100/1", true),
            ("keys/0", true),
            ("prune/00000001-ab", false),
            ("heads/main/vm/100/local/1", false),
            ("tables/1-a/x", false),
            ("probes/1", false),
            ("configs", false),
        ] {
            assert_eq!(is_to_be_locked(&name.parse().unwrap()), locked, "{name}");
        }
    }
}
