//! The folders of the target that are being filled.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use snapkeep_api::tree::{Entry, Name, TreePath};

use crate::limits::PATH_PIECE;

/// A folder that is being filled.
#[derive(Debug)]
pub(super) struct Folder {
    /// The folder that it is in, and its name there; none for the target itself.
    pub(super) within: Option<(Arc<Folder>, Name)>,
    /// How many folders are above it.
    pub(super) depth: usize,
    /// What is set once it is filled; nothing, if it stays as it was.
    pub(super) entry: Option<Entry>,
    /// New entries get ACLs or inode flags from it, which they must not have.
    pub(super) inherits: bool,
    /// The visit of what is in it, entries that wait or are being made, folders that are not done.
    unfinished: AtomicUsize,
    open: Mutex<Option<Arc<OwnedFd>>>,
    open_folders: Arc<AtomicUsize>,
}

impl Folder {
    pub(super) fn new(
        within: Option<(Arc<Self>, Name)>,
        fd: OwnedFd,
        entry: Option<Entry>,
        inherits: bool,
        open_folders: &Arc<AtomicUsize>,
    ) -> Arc<Self> {
        open_folders.fetch_add(1, Ordering::Relaxed);
        if let Some((parent, _)) = &within {
            parent.hold();
        }
        Arc::new(Self {
            depth: within.as_ref().map_or(0, |(parent, _)| parent.depth + 1),
            within,
            entry,
            inherits,
            unfinished: AtomicUsize::new(1),
            open: Mutex::new(Some(Arc::new(fd))),
            open_folders: Arc::clone(open_folders),
        })
    }

    /// One more thing has to be done before it is.
    pub(super) fn hold(&self) {
        self.unfinished.fetch_add(1, Ordering::AcqRel);
    }

    /// One thing is done; tells whether it was the last one.
    pub(super) fn let_go(&self) -> bool {
        self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The folder, opened again if it was closed meanwhile.
    pub(super) fn fd(&self) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = &*self.slot() {
            return Ok(Arc::clone(fd));
        }
        let mut names = Vec::new();
        let mut folder = self;
        let from = loop {
            let Some((parent, name)) = &folder.within else {
                // The target itself is never closed.
                return Err(Errno::BADF);
            };
            names.push(name.as_bytes());
            if let Some(fd) = &*parent.slot() {
                break Arc::clone(fd);
            }
            folder = parent;
        };
        names.reverse();
        beneath(&from, names.into_iter()).map(Arc::new)
    }

    /// Keeps it open from now on.
    pub(super) fn keep_open(&self) -> Result<(), Errno> {
        let fd = self.fd()?;
        if self.slot().replace(fd).is_none() {
            self.open_folders.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Closes it; whoever needs it opens it again.
    pub(super) fn close(&self) {
        if self.slot().take().is_some() {
            self.open_folders.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn path(&self) -> TreePath {
        let mut names = Vec::new();
        let mut folder = self;
        while let Some((parent, name)) = &folder.within {
            names.push(name);
            folder = parent;
        }
        let mut path = TreePath::root();
        names.into_iter().rev().for_each(|name| path.push(name));
        path
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.close();
        // Not one in the other: a tree may be deeper than the stack.
        let mut next = self.within.take();
        while let Some((parent, _)) = next {
            next = Arc::into_inner(parent).and_then(|mut parent| parent.within.take());
        }
    }
}

/// Opens the folder at these names beneath a folder, following no link.
pub(super) fn beneath<'n>(
    from: &impl AsFd,
    names: impl Iterator<Item = &'n [u8]>,
) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut piece = b".".to_vec();
    let open = |at: &Option<OwnedFd>, piece: &[u8]| match at {
        Some(fd) => folder_at(fd, piece),
        None => folder_at(from, piece),
    };
    for name in names {
        if piece.len() + 1 + name.len() > PATH_PIECE {
            at = Some(open(&at, &piece)?);
            piece = b".".to_vec();
        }
        piece.push(b'/');
        piece.extend_from_slice(name);
    }
    open(&at, &piece)
}

/// Opens a folder in a folder, following no link.
pub(super) fn folder_at(from: &impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open_at(from, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens something that is there beneath a folder, following no link.
pub(super) fn open_at(from: &impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(from, path, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_on_the_way_is_followed_wherever_it_leads() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(temp.path().join("outside")).unwrap();
        symlink("../outside", root.join("out")).unwrap();
        symlink("a", root.join("within")).unwrap();
        let root = folder_at(&fs::File::open(&root).unwrap(), b".").unwrap();
        let open = |names: &[&[u8]]| beneath(&root, names.iter().copied()).map(drop);
        assert_eq!(open(&[b"a", b"b"]), Ok(()));
        assert_eq!(open(&[]), Ok(()));
        assert_eq!(open(&[b"within", b"b"]), Err(Errno::LOOP));
        assert_eq!(open(&[b"out"]), Err(Errno::NOTDIR));
        assert_eq!(open(&[b"out", b"x"]), Err(Errno::LOOP));
        assert_eq!(open(&[b"a", b"..", b".."]), Err(Errno::XDEV));
    }

    #[test]
    fn a_folder_that_was_closed_is_opened_again() {
        let temp = tempfile::tempdir().unwrap();
        let count = Arc::default();
        let open = |path: &str| {
            fs::create_dir_all(temp.path().join(path)).unwrap();
            fs::File::open(temp.path().join(path)).unwrap().into()
        };
        let mut at = Folder::new(None, open(""), None, false, &count);
        let mut path = String::new();
        for name in ["a", "b", "c"] {
            path = format!("{path}{name}/");
            let within = Some((at, Name::new(name.as_bytes()).unwrap()));
            at = Folder::new(within, open(&path), None, false, &count);
        }
        let (parent, _) = at.within.as_ref().unwrap();
        parent.close();
        at.close();
        assert_eq!(count.load(Ordering::Relaxed), 2);
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let before = rustix::fs::stat(temp.path().join(&path)).unwrap().st_ino;
        assert_eq!(inode(&at.fd().unwrap()), before);
        assert_eq!(at.path().to_string(), "/a/b/c");
        at.keep_open().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 3);
        drop(at);
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }
}
