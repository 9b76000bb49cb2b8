//! The entries with several names, and which of those was told first.

use std::collections::HashMap;

use snapkeep_api::tree::TreePath;
use snapkeep_api::tree::limits::LINK_PATH_MAX;

use super::stat::{Id, Stat};
use crate::limits;

/// First names.
#[derive(Debug, Default)]
pub(super) struct Links {
    first: HashMap<Id, First>,
    /// Paths that are kept.
    bytes: usize,
    /// All that were ever kept: as many as the other side has to remember.
    count: usize,
}

#[derive(Debug)]
struct First {
    path: TreePath,
    /// Names that may still come.
    left: u32,
}

impl Links {
    /// The first name of this inode, if one was told.
    pub(super) fn first(&mut self, stat: &Stat) -> Option<TreePath> {
        if !stat.has_other_names() {
            return None;
        }
        let first = self.first.get_mut(&stat.id)?;
        if first.left > 1 {
            first.left -= 1;
            return Some(first.path.clone());
        }
        let first = self.first.remove(&stat.id)?;
        self.bytes -= first.path.as_bytes().len();
        Some(first.path)
    }

    pub(super) fn has(&self, id: Id) -> bool {
        self.first.contains_key(&id)
    }

    /// Whether there is room for one more path of this length.
    pub(super) fn has_room(&self, path: usize) -> bool {
        path <= LINK_PATH_MAX
            && self.count < limits::LINKED_MAX
            && self.bytes + path <= limits::LINKED_BYTES_MAX
    }

    /// Keeps the first name, for which there is room.
    pub(super) fn add(&mut self, stat: &Stat, path: TreePath) {
        self.bytes += path.as_bytes().len();
        self.count += 1;
        let left = stat.links.saturating_sub(1).max(1);
        self.first.insert(stat.id, First { path, left });
    }
}
