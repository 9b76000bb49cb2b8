//! Direct restore of a tree, or a part of it, into a folder.
//!
//! Whatever the archive says and whatever lies in the target, nothing outside of the target is
//! touched: each entry is made by its name in a folder that is open, and no symbolic link is
//! followed, be it found or made. Files are written by several threads; a folder gets its own
//! attributes once all that is in it is done. Inode flags come last, those of a file with several
//! names after all of these.

mod attributes;
mod content;
mod folder;
mod made;
mod queue;
mod report;
mod walk;

use std::path::Path;

use snapkeep_api::tree::TreeReader;
use snapkeep_api::{Cancel, Result};

pub use report::{ExtractReport, Problem, ProblemKind, Progress};

use crate::owners::Owners;
use crate::selection::Selection;

/// How a tree is extracted.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// Which part. Folders above it are made as they were; those that are there stay as they are.
    pub selection: Selection,
    /// What is done with what is there.
    pub existing: Existing,
    /// What the container's owners are in the target. One that is not mapped ends the extraction.
    /// If they are mapped, extended attributes `trusted.*` are not set: none can have been given
    /// from within a user namespace.
    pub owners: Owners,
    /// Character and block devices are made also if owners are mapped. They would belong to a
    /// container's users, whom nothing but these devices' absence may keep from the host's disks:
    /// an archive can name any device. Without it each is a problem, but not those with the number
    /// 0:0, which stand for files that were removed and cannot be opened.
    pub allow_devices: bool,
    /// Threads that write files, at least one, at most 32. So many write one large file at a time.
    pub workers: usize,
    /// All is on stable storage before the end. Other file systems that are mounted inside the
    /// target are not waited for.
    pub durable: bool,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            selection: Selection::all(),
            existing: Existing::Refuse,
            owners: Owners::default(),
            allow_devices: false,
            workers: 2,
            durable: true,
        }
    }
}

/// What is done with what the target has already.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Existing {
    /// The target has to be empty, or not to be there.
    #[default]
    Refuse,
    /// Folders are used, and get the archive's attributes; what else has the name of an entry is
    /// removed for it. A folder is never removed.
    Replace,
}

/// Extracts into a folder, which is made if it is not there; if owners are not mapped, one that is
/// made keeps its maker as its owner, and can be entered by nobody else. An entry that cannot be
/// restored, or not in full, is a problem that the report names; what concerns all that would
/// follow, such as a full target or an archive that cannot be, is an error. What is there then
/// stays there.
pub fn extract(
    reader: &dyn TreeReader,
    target: &Path,
    options: &ExtractOptions,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<ExtractReport> {
    walk::run(reader, target, options, progress, cancel)
}
