//! Owners, permissions, extended attributes, times and inode flags of what was made.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Gid, IFlags, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmod, chownat,
    fchmod, fchown, fgetxattr, flistxattr, fremovexattr, fsetxattr, fstat, futimens,
    ioctl_getflags, ioctl_setflags, setxattr, statat, utimensat,
};
use rustix::io::Errno;
use snapkeep_api::tree::limits::XATTRS_BYTES_MAX;
use snapkeep_api::tree::{Attributes, EntryKind, Timestamp, TreePath, Xattr};
use snapkeep_api::{Error, ErrorKind, Result};

use super::report::ProblemKind;
use crate::acl::{self, Acl};
use crate::capability::{self, Unfit};
use crate::owners::Owners;

/// The inode flags that people set (`FS_IOC_SETFLAGS`), on any file system: secure deletion and
/// undeletion, compression, sync, immutable, append-only, no dump, no access time, no compression,
/// journaling, no tail merging, synchronous folder, top of a hierarchy, no copy on write, project
/// inheritance, names without case.
pub(super) const FLAGS: u32 = 0x6083_c4ff;
/// Of these, those that a file must have before its content: (no) compression, no copy on write.
pub(super) const FLAGS_FIRST: u32 = 0x0080_0404;

/// The value that is no mode's: set-user-ID and set-group-ID.
const SET_ID: u16 = 0o6000;

/// What was made, as it can be reached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Made<'a> {
    /// A file or a folder.
    Open(BorrowedFd<'a>),
    /// Anything else, opened only as a place (`O_PATH`), and the path of that in `/proc`.
    Place(BorrowedFd<'a>, &'a str),
}

/// What is set, in the target's owners. What cannot be set is told.
pub(super) fn mapped(
    entry: &Attributes,
    owners: &Owners,
    path: &impl Fn() -> TreePath,
    mut problem: impl FnMut(ProblemKind, String) -> Result<()>,
) -> Result<Attributes> {
    let unmapped = |whose: &str, what: &str| {
        let path = path();
        let what = format!(
            "{whose} of {path} is {what}, which is not mapped: add it to the ID map, or give an ID \
             for those that are not in it"
        );
        Error::new(ErrorKind::Invalid, what)
    };
    let Attributes { uid, gid, .. } = *entry;
    let mut mapped = Attributes {
        uid: (owners.user(uid)).ok_or_else(|| unmapped("the owner", &format!("user {uid}")))?,
        gid: (owners.group(gid)).ok_or_else(|| unmapped("the group", &format!("group {gid}")))?,
        xattrs: Vec::with_capacity(entry.xattrs.len()),
        ..*entry
    };
    for Xattr { name, value } in &entry.xattrs {
        if owners.is_mapped() && name.starts_with(b"trusted.") {
            let name = name.escape_ascii();
            let why = format!("{name} cannot have been given in a container with an ID map");
            problem(ProblemKind::Xattr, why)?;
            continue;
        }
        let value = match name.as_slice() {
            acl::ACCESS | acl::DEFAULT => {
                let Some(acl) = Acl::decode(value) else {
                    problem(
                        ProblemKind::Xattr,
                        "its ACL is of an unknown form".to_owned(),
                    )?;
                    continue;
                };
                let (acl, some_were_foreign) = acl.of_known();
                if some_were_foreign {
                    let why = "its ACL names users or groups that the container does not have: they are dropped";
                    problem(ProblemKind::Xattr, why.to_owned())?;
                }
                let outside = acl.outside(owners);
                outside
                    .ok_or_else(|| unmapped("the ACL", &acl.text()))?
                    .encode()
            }
            capability::NAME => match capability::outside(value, owners) {
                Ok(value) => value,
                Err(Unfit::Unmapped) => {
                    return Err(unmapped(
                        "the root user of the file capabilities",
                        "another",
                    ));
                }
                Err(Unfit::Unknown) => {
                    let why = "its file capabilities are of an unknown revision";
                    problem(ProblemKind::Xattr, why.to_owned())?;
                    continue;
                }
            },
            _ => value.clone(),
        };
        mapped.xattrs.push(Xattr {
            name: name.clone(),
            value,
        });
    }
    Ok(mapped)
}

/// Sets everything but inode flags. What cannot be set is told, by kind and with a reason.
pub(super) fn set(
    made: Made<'_>,
    kind: &EntryKind,
    wanted: &Attributes,
    mut problem: impl FnMut(ProblemKind, String) -> Result<()>,
) -> Result<()> {
    let mut permissions = wanted.permissions;
    if let Err(errno) = made.chown(wanted.uid, wanted.gid) {
        let mut why = format!(
            "it cannot be given to {}:{}: {errno}",
            wanted.uid, wanted.gid
        );
        if permissions & SET_ID != 0 && kind.is_file() {
            permissions &= !SET_ID;
            why.push_str("; it is not set-user-ID or set-group-ID for another owner");
        }
        problem(ProblemKind::Owner, why)?;
    }
    if !matches!(kind, EntryKind::Symlink { .. })
        && let Err(errno) = made.chmod(permissions)
    {
        problem(
            ProblemKind::Permissions,
            format!("{permissions:04o} cannot be set: {errno}"),
        )?;
    }
    for Xattr { name, value } in &wanted.xattrs {
        if let Err(errno) = made.set_xattr(name, value) {
            let name = String::from_utf8_lossy(name);
            let name = name.escape_default();
            problem(ProblemKind::Xattr, format!("{name} cannot be set: {errno}"))?;
        }
    }
    if let Err(why) = made.set_time(wanted.mtime) {
        problem(ProblemKind::Time, why)?;
    }
    Ok(())
}

trait IsFile {
    fn is_file(&self) -> bool;
}

impl IsFile for EntryKind {
    fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

impl Made<'_> {
    fn chown(self, uid: u32, gid: u32) -> Result<(), Errno> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            Self::Place(fd, _) => chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn chmod(self, permissions: u16) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(permissions.into());
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            Self::Place(_, path) => chmod(path, mode),
        }
    }

    fn set_xattr(self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Place(_, path) => setxattr(path, name, value, XattrFlags::empty()),
        }
    }

    fn set_time(self, mtime: Timestamp) -> Result<(), String> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: mtime.seconds,
                tv_nsec: mtime.nanos.into(),
            },
        };
        let set = match self {
            Self::Open(fd) => futimens(fd, &times),
            Self::Place(fd, _) => utimensat(fd, "", &times, AtFlags::EMPTY_PATH),
        };
        set.map_err(|errno| format!("its time cannot be set: {errno}"))?;
        // What is too early or too late for a file system, it cuts without a word.
        if i32::try_from(mtime.seconds).is_ok() {
            return Ok(());
        }
        let stat = match self {
            Self::Open(fd) => fstat(fd),
            Self::Place(fd, _) => statat(fd, "", AtFlags::EMPTY_PATH),
        };
        match stat {
            Ok(stat) if stat.st_mtime == mtime.seconds => Ok(()),
            Ok(stat) => {
                let (wanted, kept) = (mtime.seconds, stat.st_mtime);
                Err(format!(
                    "its time is {wanted} seconds after 1970, the file system keeps {kept}"
                ))
            }
            Err(errno) => Err(format!("its time cannot be read: {errno}")),
        }
    }
}

/// Sets the inode flags that people set, and takes back those they do not.
pub(super) fn set_flags(fd: impl AsFd, flags: u32) -> Result<(), String> {
    if flags & !FLAGS != 0 {
        return Err(format!(
            "the inode flags {flags:#x} are not such as can be set"
        ));
    }
    let failed = |errno| format!("the inode flags {flags:#x} cannot be set: {errno}");
    let has = ioctl_getflags(fd.as_fd()).map_err(failed)?.bits();
    let wanted = has & !FLAGS | flags;
    if wanted == has {
        return Ok(());
    }
    ioctl_setflags(fd, IFlags::from_bits_retain(wanted)).map_err(failed)
}

/// Whether what is made in a folder gets ACLs or inode flags from it.
pub(super) fn is_inherited(folder: impl AsFd) -> bool {
    let flags = ioctl_getflags(folder.as_fd()).map_or(0, |flags| flags.bits() & FLAGS);
    flags != 0 || fgetxattr(folder, acl::DEFAULT, &mut [0; 0]).is_ok_and(|length| length > 0)
}

/// Takes away the ACLs and inode flags that something has from its folder. A file system that has
/// none to take away says so by an error.
pub(super) fn forget_inherited(fd: impl AsFd) {
    for name in [acl::DEFAULT, acl::ACCESS] {
        fremovexattr(fd.as_fd(), name).ok();
    }
    set_flags(fd, 0).ok();
}

/// Takes away extended attributes that a folder has and is not to have. What the system itself
/// keeps there, such as a label, stays.
pub(super) fn remove_others(fd: impl AsFd, wanted: &[Xattr]) -> Result<(), Errno> {
    let mut names = vec![0; XATTRS_BYTES_MAX];
    let length = match flistxattr(fd.as_fd(), &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    for name in names[..length].split(|byte| *byte == 0) {
        let ours = name.starts_with(b"user.")
            || name.starts_with(b"trusted.")
            || [acl::ACCESS, acl::DEFAULT].contains(&name);
        if ours && !wanted.iter().any(|xattr| xattr.name == name) {
            fremovexattr(fd.as_fd(), name)?;
        }
    }
    Ok(())
}
