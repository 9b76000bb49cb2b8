//! The entries with several names, and which of those was told first.

use std::collections::HashMap;

use rustix::fs::FileType;
use snapkeep_api::tree::limits::LINK_PATH_MAX;
use snapkeep_api::tree::{DeviceNumber, Timestamp, TreePath};

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
    shown: Shown,
    /// Whether all of it could be told.
    whole: bool,
    /// Names that may still come.
    left: u32,
}

/// What each name of an inode shows, unless it was written meanwhile, or its number was given to
/// another one. Its ctime moves with each name that comes or goes.
#[derive(Debug, Eq, PartialEq)]
struct Shown {
    kind: FileType,
    size: u64,
    mtime: Timestamp,
    device: DeviceNumber,
}

/// What an inode's number stands for that a name was told of.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Met {
    /// What the first name was told as, and whether that is all of it.
    Same { path: TreePath, whole: bool },
    /// Something else than what was told.
    Other,
}

impl Links {
    /// The first name of this inode, if one was told. What is another one by now is forgotten.
    pub(super) fn first(&mut self, stat: &Stat) -> Option<Met> {
        if !stat.has_other_names() {
            return None;
        }
        let first = self.first.get_mut(&stat.id)?;
        let same = first.shown == Shown::of(stat);
        let whole = first.whole;
        if same && first.left > 1 {
            first.left -= 1;
            let path = first.path.clone();
            return Some(Met::Same { path, whole });
        }
        let path = self.first.remove(&stat.id)?.path;
        self.bytes -= path.as_bytes().len();
        Some(if same {
            Met::Same { path, whole }
        } else {
            Met::Other
        })
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
    pub(super) fn add(&mut self, stat: &Stat, path: TreePath, whole: bool) {
        self.bytes += path.as_bytes().len();
        self.count += 1;
        let left = stat.links.saturating_sub(1).max(1);
        let first = First {
            path,
            shown: Shown::of(stat),
            whole,
            left,
        };
        self.first.insert(stat.id, first);
    }
}

impl Shown {
    fn of(stat: &Stat) -> Self {
        Self {
            kind: stat.kind,
            size: stat.size,
            mtime: stat.mtime,
            device: stat.device,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_inode_number_that_came_again_is_no_link_to_what_had_it_before() {
        let folder = tempfile::tempdir().unwrap();
        let stat = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            fs::hard_link(&path, path.with_extension("2")).unwrap();
            Stat::of(File::open(path).unwrap().as_fd()).unwrap()
        };
        let old = stat("old", "old mail");
        let mut new = stat("new", "quite another content");
        new.id = old.id;
        let path = TreePath::new("old").unwrap();
        let mut links = Links::default();
        links.add(&old, path.clone(), true);
        assert_eq!(links.first(&new), Some(Met::Other));
        assert!(!links.has(old.id));
        assert_eq!(links.bytes, 0);
        links.add(&old, path.clone(), false);
        let whole = false;
        assert_eq!(links.first(&old), Some(Met::Same { path, whole }));
        assert_eq!(links.first(&old), None);
    }
}
