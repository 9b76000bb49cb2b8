//! One entry of a file tree: everything about it but its name and a file's content.

use super::limits::{
    FILE_SIZE_MAX, LINK_PATH_MAX, SYMLINK_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_BYTES_MAX,
    XATTRS_MAX,
};
use super::name::TreePath;
use crate::{Error, ErrorKind, Result};

/// A time as files have it: seconds since the epoch, also before it, and nanoseconds after that.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds, less than 1,000,000,000.
    pub nanos: u32,
}

/// An entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// What every kind has.
    pub attributes: Attributes,
    /// What it is.
    pub kind: EntryKind,
}

/// What every kind of entry has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// The low 12 bits of `st_mode`: permissions, set-user-ID, set-group-ID, sticky.
    pub permissions: u16,
    /// The owner, as inside the container.
    pub uid: u32,
    /// The group, as inside the container.
    pub gid: u32,
    /// When its content was modified.
    pub mtime: Timestamp,
    /// The inode flags that people set, as of `FS_IOC_GETFLAGS`: immutable, append-only, no dump
    /// and the like. Set last on a restore.
    pub flags: u32,
    /// Extended attributes, in ascending order of their names, each once. POSIX ACLs
    /// (`system.posix_acl_access`, `system.posix_acl_default`) and file capabilities
    /// (`security.capability`) are among them, with the container's owners inside.
    pub xattrs: Vec<Xattr>,
}

/// An extended attribute.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Xattr {
    /// With its namespace, such as `user.note`; 1 to 255 bytes without a zero.
    pub name: Vec<u8>,
    /// At most 64 KiB.
    pub value: Vec<u8>,
}

/// What an entry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// A regular file, or the first name of one with several.
    File {
        /// Bytes.
        size: u64,
        /// How many names it has (`st_nlink`), also those outside of the tree; 1 or more.
        links: u32,
    },
    /// A folder.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it says, 1 to 4095 bytes without a zero.
        target: Vec<u8>,
    },
    /// Another name of an entry, no folder, that was told before. All attributes are the first
    /// name's; here are only those that `stat` shows, without flags and extended attributes.
    HardLink {
        /// The first name.
        to: TreePath,
    },
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
}

/// A device's number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct DeviceNumber {
    /// The driver's.
    pub major: u32,
    /// The device's.
    pub minor: u32,
}

impl Entry {
    /// Fails, as `Invalid`, if anything about it cannot be or exceeds a limit.
    pub fn check(&self) -> Result<()> {
        let linked = matches!(self.kind, EntryKind::HardLink { .. })
            && (self.attributes.flags != 0 || !self.attributes.xattrs.is_empty());
        let linked = linked.then_some("it is a hard link with what only the first name has");
        let wrong = self.attributes.wrong().or_else(|| self.kind.wrong());
        let wrong = wrong.or(linked);
        wrong.map_or(Ok(()), |why| Err(Error::new(ErrorKind::Invalid, why)))
    }
}

impl Attributes {
    fn wrong(&self) -> Option<&'static str> {
        if self.permissions > 0o7777 {
            return Some("its permissions have more than 12 bits");
        }
        if self.mtime.nanos > 999_999_999 {
            return Some("its time has more nanoseconds than a second");
        }
        if self.xattrs.len() > XATTRS_MAX {
            return Some("it has too many extended attributes");
        }
        let mut bytes = 0;
        for Xattr { name, value } in &self.xattrs {
            if name.is_empty() || name.len() > XATTR_NAME_MAX || name.contains(&0) {
                return Some("an extended attribute has an impossible name");
            }
            if value.len() > XATTR_VALUE_MAX {
                return Some("an extended attribute is longer than 64 KiB");
            }
            bytes += name.len() + value.len();
        }
        if bytes > XATTRS_BYTES_MAX {
            return Some("its extended attributes are longer than 1 MiB together");
        }
        let ascending = self.xattrs.is_sorted_by(|a, b| a.name < b.name);
        (!ascending).then_some("its extended attributes are not in order")
    }
}

impl EntryKind {
    /// Whether it is a folder.
    pub fn is_directory(&self) -> bool {
        *self == Self::Directory
    }

    fn wrong(&self) -> Option<&'static str> {
        match self {
            Self::File { size, .. } if *size > FILE_SIZE_MAX => Some("it is impossibly large"),
            Self::File { links: 0, .. } => Some("it has no name"),
            Self::Symlink { target } if target.is_empty() || target.contains(&0) => {
                Some("its target is empty or has a zero")
            }
            Self::Symlink { target } if target.len() > SYMLINK_MAX => {
                Some("its target is longer than 4095 bytes")
            }
            Self::HardLink { to } if to.is_root() => Some("it is a hard link to the root"),
            Self::HardLink { to } if to.as_bytes().len() > LINK_PATH_MAX => {
                Some("it is a hard link to a path longer than 1 MiB")
            }
            Self::File { .. }
            | Self::Directory
            | Self::Symlink { .. }
            | Self::HardLink { .. }
            | Self::Fifo
            | Self::Socket
            | Self::CharDevice(_)
            | Self::BlockDevice(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind) -> Entry {
        Entry {
            attributes: Attributes::default(),
            kind,
        }
    }

    fn xattr(name: &[u8], length: usize) -> Xattr {
        Xattr {
            name: name.to_vec(),
            value: vec![0; length],
        }
    }

    #[test]
    fn kinds_that_cannot_be_are_refused() {
        let to = TreePath::root();
        for bad in [
            EntryKind::File { size: 1, links: 0 },
            EntryKind::File {
                size: 1 << 63,
                links: 1,
            },
            EntryKind::Symlink { target: vec![] },
            EntryKind::Symlink {
                target: vec![b'x'; 4096],
            },
            EntryKind::Symlink { target: vec![0] },
            EntryKind::HardLink { to },
        ] {
            assert!(entry(bad.clone()).check().is_err(), "{bad:?}");
        }
        let target = vec![b'x'; 4095];
        assert!(entry(EntryKind::Symlink { target }).check().is_ok());
    }

    #[test]
    fn a_hard_link_has_neither_flags_nor_extended_attributes() {
        let to = TreePath::new("a").unwrap();
        let link = entry(EntryKind::HardLink { to });
        assert!(link.check().is_ok());
        let mut bad = link.clone();
        bad.attributes.flags = 0x10;
        assert!(bad.check().is_err());
        let mut bad = link;
        bad.attributes.xattrs = vec![xattr(b"user.a", 0)];
        assert!(bad.check().is_err());
    }

    #[test]
    fn attributes_that_cannot_be_are_refused() {
        let with = |xattrs: Vec<Xattr>| {
            let mut entry = entry(EntryKind::Fifo);
            entry.attributes.xattrs = xattrs;
            entry.check()
        };
        assert!(with(vec![xattr(b"user.a", 65_536), xattr(b"user.b", 0)]).is_ok());
        for bad in [
            vec![xattr(b"", 0)],
            vec![xattr(b"user.\0", 0)],
            vec![xattr(b"user.a", 65_537)],
            vec![xattr(b"user.b", 0), xattr(b"user.a", 0)],
            vec![xattr(b"user.a", 0), xattr(b"user.a", 0)],
            (0..17)
                .map(|n| xattr(format!("user.{n:02}").as_bytes(), 65_536))
                .collect(),
        ] {
            assert!(with(bad).is_err());
        }
        let mut entry = entry(EntryKind::Fifo);
        entry.attributes.permissions = 0o10000;
        assert!(entry.check().is_err());
        entry.attributes.permissions = 0o7777;
        entry.attributes.mtime.nanos = 1_000_000_000;
        assert!(entry.check().is_err());
    }
}
