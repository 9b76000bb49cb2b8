//! What an entry has besides what `statx` says: extended attributes and inode flags.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{IFlags, fgetxattr, flistxattr, getxattr, ioctl_getflags, listxattr};
use rustix::io::Errno;
use snapkeep_api::tree::Xattr;
use snapkeep_api::tree::limits::{XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_BYTES_MAX, XATTRS_MAX};

use super::stop::Stop;
use crate::limits;

/// How an entry is reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// It is open for reading.
    File(BorrowedFd<'a>),
    /// There is only a handle.
    Handle(BorrowedFd<'a>),
}

/// Room for what the kernel says.
#[derive(Debug)]
pub(super) struct Reader {
    names: Vec<u8>,
    value: Vec<u8>,
}

/// The flags that people set (`chattr`), as opposed to what a file system notes for itself (extents,
/// encryption, verity, inline data and the like).
const BY_PEOPLE: IFlags = IFlags::SECURE_REMOVAL
    .union(IFlags::UNRM)
    .union(IFlags::COMPRESSED)
    .union(IFlags::SYNC)
    .union(IFlags::IMMUTABLE)
    .union(IFlags::APPEND)
    .union(IFlags::NODUMP)
    .union(IFlags::NOATIME)
    .union(IFlags::from_bits_retain(NO_COMPRESSION | DIRECT_ACCESS))
    .union(IFlags::JOURNALING)
    .union(IFlags::NOTAIL)
    .union(IFlags::DIRSYNC)
    .union(IFlags::TOPDIR)
    .union(IFlags::NOCOW)
    .union(IFlags::PROJECT_INHERIT);

/// `FS_NOCOMP_FL`, `FS_DAX_FL` of linux/fs.h.
const NO_COMPRESSION: u32 = 0x400;
const DIRECT_ACCESS: u32 = 0x0200_0000;

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            names: vec![0; limits::XATTR_NAMES_BYTES],
            value: vec![0; XATTR_VALUE_MAX],
        }
    }

    /// All extended attributes that can be read, and what there is to say about the others.
    pub(super) fn xattrs(
        &mut self,
        of: Way<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Xattr>, Stop> {
        let path = of.path();
        let listed = match of {
            Way::File(file) => flistxattr(file, &mut self.names[..]),
            Way::Handle(_) => listxattr(path.as_str(), &mut self.names[..]),
        };
        let length = match listed {
            Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
            Ok(length) => length,
            Err(errno) => {
                Stop::if_not_about_the_entry(errno)?;
                warnings.push(format!("its extended attributes cannot be listed: {errno}"));
                return Ok(Vec::new());
            }
        };
        let mut all = Vec::new();
        let mut bytes = 0;
        for name in self.names[..length].split(|byte| *byte == 0) {
            if name.is_empty() {
                continue;
            }
            let got = match of {
                Way::File(file) => fgetxattr(file, name, &mut self.value[..]),
                Way::Handle(_) => getxattr(path.as_str(), name, &mut self.value[..]),
            };
            let length = match got {
                Ok(length) => length,
                Err(errno) => {
                    Stop::if_not_about_the_entry(errno)?;
                    let name = shown(name);
                    warnings.push(format!("its attribute {name} cannot be read: {errno}"));
                    continue;
                }
            };
            bytes += name.len() + length;
            let fits =
                name.len() <= XATTR_NAME_MAX && bytes <= XATTRS_BYTES_MAX && all.len() < XATTRS_MAX;
            if !fits {
                let name = shown(name);
                warnings.push(format!(
                    "its attribute {name}, and what follows it, is too much"
                ));
                break;
            }
            all.push(Xattr {
                name: name.to_vec(),
                value: self.value[..length].to_vec(),
            });
        }
        all.sort_unstable();
        all.dedup_by(|a, b| a.name == b.name);
        Ok(all)
    }
}

/// The inode flags that people set.
pub(super) fn flags(file: BorrowedFd<'_>, warnings: &mut Vec<String>) -> Result<u32, Stop> {
    match ioctl_getflags(file) {
        Ok(flags) => Ok((flags & BY_PEOPLE).bits()),
        // The file system has none.
        Err(Errno::NOTTY | Errno::NOTSUP | Errno::INVAL | Errno::NOSYS) => Ok(0),
        Err(errno) => {
            Stop::if_not_about_the_entry(errno)?;
            warnings.push(format!("its inode flags cannot be read: {errno}"));
            Ok(0)
        }
    }
}

impl Way<'_> {
    /// The calls for attributes take no handle, but the path through `/proc` leads to what it is of,
    /// also if that is a symbolic link.
    fn path(self) -> String {
        match self {
            Self::File(_) => String::new(),
            Self::Handle(handle) => format!("/proc/self/fd/{}", handle.as_raw_fd()),
        }
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
