//! In which disk image a root file system is, and whether a snapshot of it can be made.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::super::{is_roots, mount, real};
use crate::container::command::run;
use crate::container::limits::{MOUNT_TABLE_BYTES_MAX, Timeouts};
use crate::container::lines::{mount_fields, read, shown, shown_path};

/// What a loop device says of its file, in bytes.
const NAME_BYTES_MAX: u64 = 8192;
/// `EXT4_SUPER_MAGIC`, which ext2 and ext3 have too, and `XFS_SUPER_MAGIC` of Linux.
const EXT4: i64 = 0xEF53;
const XFS: i64 = 0x5846_5342;
const BTRFS: i64 = 0x9123_683E;
/// Where the superblock of ext4 has the features that a reader has to know, in the file, and the
/// bit of those that says that there may be encrypted folders.
const EXT4_INCOMPATIBLE_OFFSET: u64 = 1024 + 0x60;
const EXT4_ENCRYPT: u32 = 0x1_0000;

/// The file systems that can be mounted a second time, from a clone.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Format {
    Ext4,
    Xfs,
}

/// Which file something is: device and inode.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Id(u64, u64);

/// Where a root file system is.
#[derive(Debug)]
pub(super) struct Backing {
    /// Without symbolic links.
    pub(super) rootfs: PathBuf,
    pub(super) device: u64,
    pub(super) format: Format,
    pub(super) image: PathBuf,
    pub(super) id: Id,
    /// Of the image.
    pub(super) folder: PathBuf,
    /// The root file system, from the top of the image's file system.
    pub(super) below: PathBuf,
}

/// Finds the image; why there is none of which a snapshot can be made.
pub(super) fn find(
    rootfs: &Path,
    states: &Path,
    stdin: Stdio,
    times: &Timeouts,
) -> Result<Backing, String> {
    let rootfs = real(rootfs).map_err(|e| e.to_string())?;
    let about = rustix::fs::statfs(&rootfs).map_err(|e| e.to_string())?;
    let format = match about.f_type {
        EXT4 => Format::Ext4,
        XFS => Format::Xfs,
        BTRFS => return Err("its file system is Btrfs, which no machine mounts twice".into()),
        _ => return Err("its file system is neither ext4 nor XFS".into()),
    };
    let device = std::fs::metadata(&rootfs).map_err(|e| e.to_string())?.dev();
    let (image, id) = image_of(device, stdin, times)?;
    let states = std::fs::metadata(states).map_err(|e| e.to_string())?;
    if states.dev() == device {
        return Err("the folder of states is on it, and could not be written to".into());
    }
    let below = below(&rootfs)?;
    let file = open(&image, id)?;
    if format == Format::Ext4 && has_encryption(&file)? {
        return Err(
            "it may have encrypted folders, whose keys a second mount does not have".into(),
        );
    }
    let folder = image.parent().unwrap_or(Path::new("/")).to_owned();
    if [&rootfs, &image, &below]
        .iter()
        .any(|path| path.to_str().is_none())
    {
        return Err("its path is not UTF-8".into());
    }
    // What is mounted must be the clone and nothing else.
    let is_safe = |above: &Path| is_roots(above) || (above != folder && is_sticky(above));
    if let Some(open) = folder.ancestors().find(|above| !is_safe(above)) {
        return Err(format!(
            "others than root may write to {}",
            shown_path(open)
        ));
    }
    // Once it is frozen, it must be certain that it can be thawed.
    let mut command = Command::new("fsfreeze");
    let known = run(command.arg("--version"), Stdio::null(), times.program);
    if !known.map_err(|e| e.chain())?.status.success() {
        return Err("fsfreeze does not work".into());
    }
    clones(&folder).map_err(|e| {
        let folder = shown_path(&folder);
        format!("the file system of {folder} makes no clones of files: {e}")
    })?;
    Ok(Backing {
        rootfs,
        device,
        format,
        image,
        id,
        folder,
        below,
    })
}

/// Opens the image, if it is still that file.
pub(super) fn open(image: &Path, id: Id) -> Result<File, String> {
    let cannot = |e: &dyn std::fmt::Display| format!("its disk image {}: {e}", shown_path(image));
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(image);
    let file = opened.map_err(|e| cannot(&e))?;
    let about = file.metadata().map_err(|e| cannot(&e))?;
    if !about.is_file() || Id::of(&about) != id {
        return Err(cannot(&"another file is there"));
    }
    Ok(file)
}

impl Id {
    fn of(about: &Metadata) -> Self {
        Self(about.dev(), about.ino())
    }
}

/// The file of a loop device.
fn image_of(device: u64, stdin: Stdio, times: &Timeouts) -> Result<(PathBuf, Id), String> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let about = real(Path::new(&format!("/sys/dev/block/{major}:{minor}")));
    let about = about.map_err(|_| "its device is not to be seen".to_owned())?;
    let Ok(mut name) = read(&about.join("loop/backing_file"), NAME_BYTES_MAX) else {
        return Err("it is on no loop device, so in no disk image".into());
    };
    // One end of a line is not of the name.
    name.pop_if(|last| *last == b'\n');
    let device = about.file_name().unwrap_or_default();
    let mut command = Command::new("losetup");
    command
        .args([
            "--noheadings",
            "--output",
            "BACK-INO,BACK-MAJ:MIN,OFFSET,SIZELIMIT",
        ])
        .arg(Path::new("/dev").join(device));
    let ended = run(&mut command, stdin, times.program).map_err(|e| e.chain())?;
    if !ended.status.success() {
        return Err(format!("its loop device cannot be asked: {}", ended.why()));
    }
    let text = String::from_utf8_lossy(&ended.output);
    let (id, is_whole) =
        told(&text).ok_or_else(|| format!("its loop device says {:?}", shown(&ended.output)))?;
    if !is_whole {
        return Err("it is only a part of its disk image".into());
    }
    Ok((PathBuf::from(OsStr::from_bytes(&name)), id))
}

/// What `losetup` says of a device: its file, and whether all of that is shown.
fn told(text: &str) -> Option<(Id, bool)> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [inode, device, offset, limit] = fields[..] else {
        return None;
    };
    let (major, minor) = device.split_once(':')?;
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some((
        Id(device, inode.parse().ok()?),
        (offset, limit) == ("0", "0"),
    ))
}

/// Where a folder is in its file system.
fn below(rootfs: &Path) -> Result<PathBuf, String> {
    let id = mount(rootfs).ok_or("the kernel does not say in which mount it is")?;
    let table = read(Path::new("/proc/self/mountinfo"), MOUNT_TABLE_BYTES_MAX);
    let table = table.map_err(|e| e.chain())?;
    let id = id.to_string();
    let mut mounts = table.split(|byte| *byte == b'\n').map(mount_fields);
    let found = mounts.find(|fields| fields.first().is_some_and(|own| own == id.as_bytes()));
    let Some([_, _, _, top, at, options, ..]) = found.as_deref() else {
        return Err("its mount is not to be seen".into());
    };
    if options
        .split(|byte| *byte == b',')
        .any(|option| option == b"idmapped")
    {
        return Err("its mount maps owners, which that of a snapshot would not".into());
    }
    let path = |bytes| Path::new(OsStr::from_bytes(bytes));
    let inside = rootfs
        .strip_prefix(path(at))
        .map_err(|_| "its mount is at another place")?;
    let top = path(top)
        .strip_prefix("/")
        .map_err(|_| "its mount is of no folder")?;
    Ok(top.join(inside))
}

fn has_encryption(image: &File) -> Result<bool, String> {
    let mut features = [0; 4];
    let read = image.read_exact_at(&mut features, EXT4_INCOMPATIBLE_OFFSET);
    read.map_err(|e| format!("its disk image cannot be read: {e}"))?;
    Ok(u32::from_le_bytes(features) & EXT4_ENCRYPT != 0)
}

/// Makes a clone of a small file in a folder; both have no name, and are gone at once.
fn clones(folder: &Path) -> std::io::Result<()> {
    let unnamed = || -> std::io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR)?.into())
    };
    let mut file = unnamed()?;
    file.write_all(&[1; 4096])?;
    Ok(rustix::fs::ioctl_ficlone(unnamed()?, &file)?)
}

/// Whether others may write to a folder, but not move what is root's in it, as in `/tmp`.
fn is_sticky(folder: &Path) -> bool {
    std::fs::metadata(folder).is_ok_and(|about| about.uid() == 0 && about.mode() & 0o1000 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_losetup_says_is_understood() {
        let id = Id(rustix::fs::makedev(253, 7), 131);
        assert_eq!(told("131       253:7 0 0\n"), Some((id, true)));
        assert_eq!(told("131 253:7 512 0\n"), Some((id, false)));
        assert_eq!(told("131 253:7 0 4096\n"), Some((id, false)));
        for bad in [
            "",
            "131 253:7 0",
            "131 253 0 0",
            "a 253:7 0 0",
            "1 2:3 0 0 0",
        ] {
            assert_eq!(told(bad), None, "{bad}");
        }
    }
}
