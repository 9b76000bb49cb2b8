//! Opening what is in a folder, and nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::ffi::CStr;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::out::Out;
use super::stop::Stop;

/// Turns handles into descriptors that can be read.
#[derive(Debug)]
pub(super) struct Opener {
    /// `/proc/self/fd`.
    handles: OwnedFd,
}

/// An open file or folder.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: OwnedFd,
    /// The kernel refused not to note the access: the owner is one that the container lacks.
    pub(super) foreign: bool,
}

impl Opener {
    pub(super) fn new() -> Result<Self, Stop> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, c"/proc/self/fd", flags, Mode::empty()) {
            Ok(handles) => Ok(Self { handles }),
            Err(errno) => Err(Stop::Failed(format!(
                "/proc/self/fd cannot be opened: {errno}"
            ))),
        }
    }

    /// Opens for reading what a handle shows to be a folder.
    pub(super) fn open_folder(&self, handle: BorrowedFd<'_>) -> Result<Opened, Errno> {
        self.open(handle, OFlags::NONBLOCK | OFlags::DIRECTORY)
    }

    /// Opens for reading what a handle shows to be a regular file. If somebody has a lease on it, as
    /// servers of files take it, and may be frozen, it is waited until the kernel takes that away
    /// (45 seconds, unless told otherwise), after `leased` was called.
    pub(super) fn open_file(
        &self,
        handle: BorrowedFd<'_>,
        out: &mut Out,
        leased: impl FnOnce(),
    ) -> Result<Result<Opened, Errno>, Stop> {
        match self.open(handle, OFlags::NONBLOCK) {
            Err(Errno::AGAIN) => {
                leased();
                out.while_alive(|| self.open(handle, OFlags::empty()))
            }
            other => Ok(other),
        }
    }

    /// The path through `/proc` leads to what the handle is of, whatever its name leads to by now.
    fn open(&self, handle: BorrowedFd<'_>, flags: OFlags) -> Result<Opened, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | flags;
        let open = |flags| openat(&self.handles, DecInt::from_fd(handle), flags, Mode::empty());
        match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => Ok(Opened {
                file: open(flags)?,
                foreign: true,
            }),
            other => Ok(Opened {
                file: other?,
                foreign: false,
            }),
        }
    }
}

/// A handle of what has a name in a folder; `XDEV` if something is mounted there, unless that is
/// what is wanted.
pub(super) fn handle(folder: BorrowedFd<'_>, name: &CStr, mounted: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    if !mounted {
        resolve |= ResolveFlags::NO_XDEV;
    }
    retried(|| openat2(folder, name, flags, Mode::empty(), resolve))
}

/// The folder above one that is open, for reading.
pub(super) fn above(folder: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(folder, c"..", flags, Mode::empty())
}

/// The kernel gives up on a path beneath a folder while others rename and mount, and says so.
fn retried(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    for _ in 0..crate::limits::OPEN_TRIES {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    open()
}

/// Where the tree begins, and a source in it.
pub(super) fn root(directory: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::empty())
}

/// A folder somewhere below, without following links.
pub(super) fn below(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    let path = if path.is_empty() { b"." } else { path };
    retried(|| openat2(root.as_fd(), path, flags, Mode::empty(), resolve))
}
