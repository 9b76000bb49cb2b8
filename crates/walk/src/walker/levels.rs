//! The folders from the root to where the walk is. Only the last ones are open: a tree may be deeper
//! than a process may have descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::names::Names;
use super::open::Opener;
use super::open::{above, handle};
use super::sources::Part;
use super::stat::{Id, Stat};
use crate::limits;

/// The folders.
#[derive(Debug, Default)]
pub(super) struct Levels {
    all: Vec<Level>,
    /// Bytes of all names.
    names: usize,
}

/// A folder.
#[derive(Debug)]
pub(super) struct Level {
    /// Open for reading, unless it is far above or cannot be found again.
    pub(super) folder: Option<OwnedFd>,
    pub(super) id: Id,
    pub(super) names: Names,
    /// The first name that was not looked at.
    pub(super) next: usize,
    pub(super) part: Part,
    /// Whether witnesses are to be relied on.
    pub(super) trusted: bool,
    /// Whether it is the top of what is mounted, or of a source.
    pub(super) top: bool,
}

impl Levels {
    pub(super) fn depth(&self) -> usize {
        self.all.len()
    }

    /// Room for names, in bytes.
    pub(super) fn room(&self) -> usize {
        limits::NAMES_BYTES_MAX.min(limits::NAMES_BYTES_ALL_MAX.saturating_sub(self.names))
    }

    pub(super) fn last(&self) -> Option<&Level> {
        self.all.last()
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Level> {
        self.all.last_mut()
    }

    pub(super) fn push(&mut self, level: Level) {
        self.names += level.names.size();
        self.all.push(level);
        // The root stays open: from there each folder can be found again.
        if let Some(far) = self.all.len().checked_sub(limits::OPEN_FOLDERS + 1)
            && far > 0
        {
            self.all[far].folder = None;
        }
    }

    /// Leaves the last folder, of which this is the path. `false` if the one above it is not where it
    /// was, so that what is still to be read of it cannot be found.
    pub(super) fn pop(&mut self, opener: &Opener, path: &[u8]) -> bool {
        let Some(left) = self.all.pop() else {
            return true;
        };
        self.names -= left.names.size();
        let Some(last) = self.all.last() else {
            return true;
        };
        if last.folder.is_some() {
            return true;
        }
        let id = last.id;
        let found = left
            .folder
            .as_ref()
            .and_then(|left| same(above(left.as_fd()).ok()?, id));
        let found = found.or_else(|| self.down(opener, path, id));
        if let Some(last) = self.all.last_mut() {
            last.folder = found;
            return last.folder.is_some();
        }
        true
    }

    /// Goes down the path again to the last folder.
    fn down(&self, opener: &Opener, path: &[u8], id: Id) -> Option<OwnedFd> {
        let root = self.all.first()?.folder.as_ref()?;
        let mut folder: Option<OwnedFd> = None;
        let names = path.split(|byte| *byte == b'/');
        for name in names.take(self.all.len() - 1) {
            let name = std::ffi::CString::new(name).ok()?;
            let from: BorrowedFd<'_> = folder.as_ref().map_or(root.as_fd(), |f| f.as_fd());
            folder = Some(handle(from, &name, true).ok()?);
        }
        let opened = opener.open_folder(folder?.as_fd()).ok()?;
        same(opened.file, id)
    }
}

fn same(folder: OwnedFd, id: Id) -> Option<OwnedFd> {
    let stat = Stat::of(folder.as_fd()).ok()?;
    (stat.id == id).then_some(folder)
}
