//! What `statx` says about an entry.

use std::os::fd::BorrowedFd;

use rustix::ffi::CStr;
use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;
use snapkeep_api::tree::{Attributes, DeviceNumber, Found, FoundKind, Timestamp, Witness};

/// An inode as it was at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) kind: FileType,
    /// The same only for the same inode.
    pub(super) id: Id,
    pub(super) links: u32,
    pub(super) size: u64,
    /// Bytes that are allocated.
    pub(super) stored: u64,
    pub(super) mtime: Timestamp,
    pub(super) ctime: Timestamp,
    pub(super) uid: u32,
    pub(super) gid: u32,
    permissions: u16,
    pub(super) device: DeviceNumber,
    /// Whether it is the root of what is mounted.
    pub(super) mount_root: bool,
}

/// Which inode it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Id {
    file_system: (u32, u32),
    inode: u64,
}

impl Id {
    /// The number of the device.
    pub(super) fn file_system(self) -> (u32, u32) {
        self.file_system
    }
}

impl Stat {
    /// What is open.
    pub(super) fn of(handle: BorrowedFd<'_>) -> Result<Self, Errno> {
        Self::ask(handle, c"", AtFlags::EMPTY_PATH)
    }

    /// What has this name in a folder.
    pub(super) fn at(folder: BorrowedFd<'_>, name: &CStr) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Self::ask(folder, name, flags)
    }

    fn ask(folder: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Self, Errno> {
        let stat = statx(folder, name, flags, StatxFlags::BASIC_STATS)?;
        Ok(Self {
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            id: Id {
                file_system: (stat.stx_dev_major, stat.stx_dev_minor),
                inode: stat.stx_ino,
            },
            links: stat.stx_nlink,
            size: stat.stx_size,
            stored: stat.stx_blocks.saturating_mul(512),
            mtime: timestamp(stat.stx_mtime),
            ctime: timestamp(stat.stx_ctime),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            permissions: stat.stx_mode & 0o7777,
            device: DeviceNumber {
                major: stat.stx_rdev_major,
                minor: stat.stx_rdev_minor,
            },
            mount_root: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether other names may lead to it.
    pub(super) fn has_other_names(&self) -> bool {
        self.links > 1 && !self.is_directory()
    }

    pub(super) fn witness(&self) -> Witness {
        Witness {
            inode: self.id.inode,
            ctime: self.ctime,
        }
    }

    /// What a question about it says, if it is of a kind that is asked about.
    pub(super) fn found(&self) -> Option<Found> {
        let kind = match self.kind {
            FileType::RegularFile => FoundKind::File { size: self.size },
            FileType::Directory => FoundKind::Directory,
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return None,
        };
        Some(Found {
            kind,
            mtime: self.mtime,
            witness: self.witness(),
        })
    }

    /// The attributes that it knows.
    pub(super) fn attributes(&self) -> Attributes {
        Attributes {
            permissions: self.permissions,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            flags: 0,
            xattrs: Vec::new(),
        }
    }

    /// What is different now in a file's content, as far as that shows.
    pub(super) fn changed(&self, now: &Self) -> Option<&'static str> {
        if now.size != self.size {
            Some("its size changed while it was read")
        } else if now.mtime != self.mtime {
            Some("it was written while it was read")
        } else if now.ctime != self.ctime {
            Some("it was changed while it was read")
        } else {
            None
        }
    }
}

/// A file system may say more nanoseconds than there are, if it is damaged.
fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp {
        seconds: time.tv_sec,
        nanos: time.tv_nsec.min(999_999_999),
    }
}
