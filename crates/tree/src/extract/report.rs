//! What came of an extraction.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use snapkeep_api::tree::TreePath;
use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits::{PROBLEMS_BYTES_MAX, PROBLEMS_MAX, REMEMBERED_BYTES_MAX};

/// What was extracted, and what was not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExtractReport {
    /// Entries that were made, and folders that were used.
    pub entries: u64,
    /// Bytes of content that were written; holes are not.
    pub bytes: u64,
    /// How many problems there were.
    pub problems: u64,
    /// The first thousand, or fewer if their paths are very long.
    pub named: Vec<Problem>,
    /// The target was made, owners are not mapped, and so it stays closed: it can be entered by
    /// whoever extracts alone, whatever the archive's root is. Else the archive's owners and its
    /// set-user-ID programs would be the host's for all users.
    pub closed_target: bool,
}

/// Something that was not restored as it was.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The entry.
    pub path: TreePath,
    /// What about it.
    pub kind: ProblemKind,
    /// Why, on one line.
    pub why: String,
}

/// What about an entry was not restored.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProblemKind {
    /// It was not made at all; with a folder, nothing that is in it.
    NotMade,
    /// What the target had stayed there in its place.
    Kept,
    /// Its owner; set-user-ID and set-group-ID are then left out, too.
    Owner,
    /// Its permissions.
    Permissions,
    /// An extended attribute.
    Xattr,
    /// Its time.
    Time,
    /// Its inode flags.
    Flags,
}

/// How far an extraction is, for whoever watches it. Each has one of its own.
#[derive(Debug, Default)]
pub struct Progress {
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// Entries that are done.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of content that are written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn made(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Why an entry was not made.
#[derive(Debug)]
pub(super) enum Failure {
    /// It alone is concerned.
    Problem(ProblemKind, String),
    /// All that would follow is.
    Fatal(Error),
}

impl Failure {
    /// A call about an entry of the target failed.
    pub(super) fn of(errno: Errno, doing: &str, path: impl Fn() -> TreePath) -> Self {
        if ends_it(errno) {
            let path = path();
            let what = format!("{path} cannot be restored: {doing} failed: {errno}");
            return Self::Fatal(Error::new(ErrorKind::Target, what));
        }
        Self::Problem(ProblemKind::NotMade, format!("{doing} failed: {errno}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// Whether the same would happen to whatever follows.
pub(super) fn ends_it(errno: Errno) -> bool {
    [
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::ROFS,
        Errno::IO,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
    ]
    .contains(&errno)
}

/// What is told at the end, or needed until then.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) problems: u64,
    pub(super) named: Vec<Problem>,
    named_bytes: usize,
    /// What may be the first name of a hard link, and is not what the archive has.
    not_made: HashSet<TreePath>,
    /// Files with several names, and their inode flags.
    pub(super) flags_at_end: Vec<(TreePath, u32)>,
    remembered: usize,
}

impl Log {
    pub(super) fn problem(&mut self, path: TreePath, kind: ProblemKind, why: String) -> Result<()> {
        self.problems += 1;
        if matches!(kind, ProblemKind::NotMade | ProblemKind::Kept) {
            self.remember(&path)?;
            self.not_made.insert(path.clone());
        }
        let bytes = path.as_bytes().len() + why.len();
        if self.named.len() < PROBLEMS_MAX && self.named_bytes + bytes <= PROBLEMS_BYTES_MAX {
            self.named_bytes += bytes;
            self.named.push(Problem { path, kind, why });
        }
        Ok(())
    }

    pub(super) fn flag_at_end(&mut self, path: TreePath, flags: u32) -> Result<()> {
        self.remember(&path)?;
        self.flags_at_end.push((path, flags));
        Ok(())
    }

    pub(super) fn is_not_made(&self, path: &TreePath) -> bool {
        self.not_made.contains(path)
    }

    fn remember(&mut self, path: &TreePath) -> Result<()> {
        self.remembered += path.as_bytes().len() + 64;
        if self.remembered > REMEMBERED_BYTES_MAX {
            let what = format!(
                "{} entries cannot be restored so far, {path} among them: that is not worth going on",
                self.problems
            );
            return Err(Error::new(ErrorKind::Target, what));
        }
        Ok(())
    }
}
