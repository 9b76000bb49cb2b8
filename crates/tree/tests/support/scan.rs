//! A folder, read into memory as a container's tree.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom as From_};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{self as rfs, OFlags, SeekFrom};
use snapkeep_api::tree::{Attributes, DeviceNumber, Entry, EntryKind, Timestamp, TreePath, Xattr};

use super::memory::{MemoryTree, name};

/// Flags that people set, as of `FS_IOC_GETFLAGS`.
const FLAGS: u32 = 0x0000_00ff;

pub(crate) fn scan(folder: &Path) -> MemoryTree {
    let mut tree = MemoryTree::new(attributes(folder));
    let mut seen = HashMap::new();
    fill(&mut tree, 0, folder, &TreePath::root(), &mut seen);
    tree
}

fn fill(
    tree: &mut MemoryTree,
    number: usize,
    folder: &Path,
    at: &TreePath,
    seen: &mut HashMap<u64, TreePath>,
) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    for path in paths {
        let name = name(path.file_name().unwrap().as_bytes());
        let at = at.join(&name);
        let meta = fs::symlink_metadata(&path).unwrap();
        let mut attributes = attributes(&path);
        let device = |number: u64| DeviceNumber {
            major: rfs::major(number),
            minor: rfs::minor(number),
        };
        let kind = meta.file_type();
        let kind = if kind.is_dir() {
            EntryKind::Directory
        } else if let Some(to) = seen.get(&meta.ino()) {
            attributes.xattrs = Vec::new();
            attributes.flags = 0;
            EntryKind::HardLink { to: to.clone() }
        } else if kind.is_symlink() {
            EntryKind::Symlink {
                target: fs::read_link(&path)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec(),
            }
        } else if kind.is_fifo() {
            EntryKind::Fifo
        } else if kind.is_socket() {
            EntryKind::Socket
        } else if kind.is_char_device() {
            EntryKind::CharDevice(device(meta.rdev()))
        } else if kind.is_block_device() {
            EntryKind::BlockDevice(device(meta.rdev()))
        } else {
            EntryKind::File {
                size: meta.len(),
                links: u32::try_from(meta.nlink()).unwrap(),
            }
        };
        if meta.nlink() > 1 && !meta.is_dir() {
            seen.entry(meta.ino()).or_insert_with(|| at.clone());
        }
        let is_file = matches!(kind, EntryKind::File { .. });
        let child = tree.add(number, name, Entry { attributes, kind });
        if meta.is_dir() {
            fill(tree, child, &path, &at, seen);
        } else if is_file {
            let mut file = fs::File::open(&path).unwrap();
            let mut offset = 0;
            while let Ok(start) = rfs::seek(&file, SeekFrom::Data(offset)) {
                let end = rfs::seek(&file, SeekFrom::Hole(start)).unwrap();
                let mut data = vec![0; usize::try_from(end - start).unwrap()];
                file.seek(From_::Start(start)).unwrap();
                file.read_exact(&mut data).unwrap();
                tree.write(child, start, &data);
                offset = end;
            }
        }
    }
}

fn attributes(path: &Path) -> Attributes {
    let meta = fs::symlink_metadata(path).unwrap();
    let mut names = vec![0; 65_536];
    let length = rfs::llistxattr(path, &mut names).unwrap_or(0);
    let mut xattrs: Vec<Xattr> = names[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length = rfs::lgetxattr(path, name, &mut value).unwrap();
            value.truncate(length);
            Xattr {
                name: name.to_vec(),
                value,
            }
        })
        .collect();
    xattrs.sort();
    let flags = if meta.is_file() || meta.is_dir() {
        let file = rfs::open(path, OFlags::RDONLY, rfs::Mode::empty()).unwrap();
        rfs::ioctl_getflags(&file).map_or(0, |flags| flags.bits() & FLAGS)
    } else {
        0
    };
    Attributes {
        permissions: u16::try_from(meta.mode() & 0o7777).unwrap(),
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: Timestamp {
            seconds: meta.mtime(),
            nanos: u32::try_from(meta.mtime_nsec()).unwrap(),
        },
        flags,
        xattrs,
    }
}
