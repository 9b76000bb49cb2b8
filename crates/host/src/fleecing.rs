//! The folder of one backup: fleecing images, the NBD server's socket, and the lock that tells
//! whether the backup still runs.

use std::fs::{File, Permissions};
use std::io::{self, BufRead, ErrorKind as IoKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::leftovers;
use crate::limits::{FLEECING_SPACE_MIN, NEW_FOLDERS_MAX, SOCKET_PATH_MAX, SOCKETS_MAX};
use crate::process::Owner;

/// How the folders begin.
pub(crate) const FOLDER: &str = "snapkeep-run-";
/// Locked while its backup runs; names the process of the QEMU that the folder is for.
pub(crate) const LOCK: &str = "lock";
pub(crate) const SOCKET: &str = "nbd.socket";
pub(crate) const IMAGE: &str = "fleece-";

/// Files are made in a folder that is another user's, who may be up to no good.
const NEW: OFlags = OFlags::CREATE
    .union(OFlags::EXCL)
    .union(OFlags::WRONLY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The folder of a running backup; removed when it is dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct Folder {
    at: tempfile::TempDir,
    /// The folder that was made, whatever has its name.
    handle: OwnedFd,
    /// Locked as long as the backup runs.
    _lock: File,
    kept: bool,
}

impl Folder {
    /// Makes a folder in `parent` that this QEMU can use.
    pub(crate) fn make(parent: &Path, qemu: Owner) -> Result<Self> {
        let failed = |e: io::Error| {
            let what = format!(
                "cannot make a folder for fleecing in {}: name another fleecing folder, or mend it",
                parent.display()
            );
            Error::with_source(ErrorKind::Target, what, e)
        };
        // QEMU's own working folder is another one.
        let parent = parent.canonicalize().map_err(failed)?;
        if parent.to_str().is_none() {
            let what = format!(
                "the path of the fleecing folder {} is not UTF-8, which QEMU's monitor needs",
                parent.display()
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let space = rustix::fs::statvfs(&parent).map_err(|e| failed(e.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < FLEECING_SPACE_MIN {
            let what = format!(
                "the fleecing folder {} has {free} bytes free, a backup needs {FLEECING_SPACE_MIN} at least",
                parent.display()
            );
            return Err(Error::new(ErrorKind::Target, what));
        }
        let (folder, handle, lock) = make_locked(&parent, &qemu.line()).map_err(failed)?;
        give(&handle, folder.path(), qemu.user)?;
        let made = Self {
            at: folder,
            handle,
            _lock: lock,
            kept: false,
        };
        let length = made.socket().as_os_str().len();
        if length > SOCKET_PATH_MAX {
            let what = format!(
                "the path of the fleecing folder {} is too long: a socket in it would have {length} bytes of \
                 {SOCKET_PATH_MAX}",
                parent.display()
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(made)
    }

    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }

    /// Where QEMU's NBD server listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join(SOCKET)
    }

    /// Makes a fleecing image of this size, in bytes, without any data.
    pub(crate) fn image(
        &self,
        number: usize,
        size: u64,
        qemu: Option<(u32, u32)>,
    ) -> Result<PathBuf> {
        let name = format!("{IMAGE}{number}");
        let path = self.path().join(&name);
        let made = rustix::fs::openat(&self.handle, &name, NEW, Mode::from_raw_mode(0o600))
            .map_err(io::Error::from)
            .and_then(|file| {
                let file = File::from(file);
                file.set_len(size).map(|()| file)
            });
        let file = made.map_err(|e| {
            let what = format!(
                "cannot make the fleecing image {} of {size} bytes",
                path.display()
            );
            Error::with_source(ErrorKind::Target, what, e)
        })?;
        give(&file, &path, qemu)?;
        Ok(path)
    }

    /// Leaves the folder: QEMU may still use what is in it.
    pub(crate) fn keep(mut self) {
        self.at.disable_cleanup(true);
        self.kept = true;
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            // The lock last, and then what nobody here made. What fails is tried again by whoever
            // sweeps.
            drop(leftovers::remove(self.path()));
        }
    }
}

/// A new folder, and its lock with this content. Until that is locked, whoever sweeps takes the
/// folder for a dead one's.
fn make_locked(parent: &Path, content: &str) -> io::Result<(tempfile::TempDir, OwnedFd, File)> {
    for _ in 0..NEW_FOLDERS_MAX {
        let folder = tempfile::Builder::new()
            .prefix(FOLDER)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let locked = open_folder(folder.path()).and_then(|handle| {
            let lock = rustix::fs::openat(&handle, LOCK, NEW, Mode::from_raw_mode(0o600))?;
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            let is_there = rustix::fs::fstat(&lock)?.st_nlink > 0;
            Ok((handle, File::from(lock), is_there))
        });
        match locked {
            Ok((handle, mut lock, true)) => {
                lock.write_all(content.as_bytes())?;
                return Ok((folder, handle, lock));
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("others removed it each time"))
}

/// A folder itself, not what a link leads to.
pub(crate) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Makes an open file QEMU's, if QEMU runs as somebody else.
fn give(file: impl AsFd, path: &Path, qemu: Option<(u32, u32)>) -> Result<()> {
    let Some((user, group)) = qemu else {
        return Ok(());
    };
    if user == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let ids = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    rustix::fs::fchown(file, ids.0, ids.1).map_err(|e| {
        let what = format!(
            "QEMU runs as user {user}, and {} cannot be made its own: run as root, or as that user",
            path.display()
        );
        Error::with_source(ErrorKind::Target, what, io::Error::from(e))
    })
}

/// Whether QEMU's NBD server listens in this folder: then it was started for its backup.
pub(crate) fn is_served(folder: &Path) -> Result<bool> {
    serves(&folder.join(SOCKET))
}

/// Whether a server listens at a socket.
pub(crate) fn serves(socket: &Path) -> Result<bool> {
    let failed = |e: Errno| {
        let what = format!(
            "cannot tell whether QEMU's NBD server listens at {}, and so it is not stopped",
            socket.display()
        );
        Error::with_source(ErrorKind::Unavailable, what, io::Error::from(e))
    };
    let address = SocketAddrUnix::new(socket).map_err(failed)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let end = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed)?;
    match rustix::net::connect(&end, &address) {
        // Its queue of callers may be full.
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        // Somebody may have removed the folder of a killed backup; its server listens on.
        Err(Errno::NOENT) => Ok(listens(socket)),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(e) => Err(failed(e)),
    }
}

/// Whether a socket that was bound to this path listens, although nothing is at the path any more. The
/// kernel tells in lines of address, count, protocol, flags, type, state, inode, path.
fn listens(socket: &Path) -> bool {
    /// The flag of a socket that takes calls (`__SO_ACCEPTCON`).
    const LISTENS: &str = "00010000";
    let Ok(sockets) = File::open("/proc/net/unix") else {
        return false;
    };
    (io::BufReader::new(sockets).lines())
        .take(SOCKETS_MAX)
        .map_while(io::Result::ok)
        .any(|line| {
            let mut parts = line.split_ascii_whitespace();
            let flags = parts.nth(3);
            flags == Some(LISTENS) && socket.to_str().is_some_and(|path| line.ends_with(path))
        })
}
