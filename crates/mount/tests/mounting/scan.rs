//! A folder of this machine as a tree in memory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{SeekFrom, lgetxattr, llistxattr, major, minor, seek};
use snapkeep_api::tree::{Attributes, DeviceNumber, Entry, EntryKind, Timestamp, TreePath, Xattr};

use crate::memory::{Item, Runs, State, name};

/// Everything that is in the folder and below.
pub(crate) fn scan(folder: &Path) -> Item {
    scan_below(folder, &TreePath::root(), &mut HashMap::new())
}

fn scan_below(path: &Path, place: &TreePath, met: &mut HashMap<u64, TreePath>) -> Item {
    let metadata = fs::symlink_metadata(path).unwrap();
    let first = met.get(&metadata.ino()).cloned();
    if !metadata.is_dir() && metadata.nlink() > 1 {
        met.insert(metadata.ino(), place.clone());
    }
    let mut runs = Runs::default();
    let mut children = BTreeMap::new();
    let file_type = metadata.file_type();
    let kind = if let Some(to) = first {
        met.insert(metadata.ino(), to.clone());
        EntryKind::HardLink { to }
    } else if file_type.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let name = name(entry.unwrap().file_name().as_bytes());
            let below = path.join(OsStr::from_bytes(name.as_bytes()));
            children.insert(name.clone(), (below, place.join(&name)));
        }
        EntryKind::Directory
    } else if file_type.is_file() {
        runs = data(path, metadata.len());
        EntryKind::File {
            size: metadata.len(),
            links: u32::try_from(metadata.nlink()).unwrap(),
        }
    } else if file_type.is_symlink() {
        let target = fs::read_link(path).unwrap();
        let target = target.as_os_str().as_bytes().to_vec();
        EntryKind::Symlink { target }
    } else if file_type.is_fifo() {
        EntryKind::Fifo
    } else if file_type.is_socket() {
        EntryKind::Socket
    } else {
        let number = DeviceNumber {
            major: major(metadata.rdev()),
            minor: minor(metadata.rdev()),
        };
        if file_type.is_char_device() {
            EntryKind::CharDevice(number)
        } else {
            EntryKind::BlockDevice(number)
        }
    };
    // In the order of names, as a walk meets them: the first of a file's names is told first.
    let children = children
        .into_iter()
        .map(|(name, (path, place))| (name, scan_below(&path, &place, met).into()));
    let mut attributes = attributes(path, &metadata);
    if matches!(kind, EntryKind::HardLink { .. }) {
        // Those are the first name's.
        attributes.xattrs.clear();
    }
    Item {
        children: children.collect(),
        entry: Entry { attributes, kind },
        runs,
        state: State::Whole,
    }
}

fn attributes(path: &Path, metadata: &Metadata) -> Attributes {
    Attributes {
        permissions: u16::try_from(metadata.mode() & 0o7777).unwrap(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: Timestamp {
            seconds: metadata.mtime(),
            nanos: u32::try_from(metadata.mtime_nsec()).unwrap(),
        },
        flags: 0,
        xattrs: xattrs(path),
    }
}

fn xattrs(path: &Path) -> Vec<Xattr> {
    let mut names = vec![0; 65_536];
    let length = llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty());
    let mut xattrs: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length = lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
            value.truncate(length);
            let name = name.to_vec();
            Xattr { name, value }
        })
        .collect();
    xattrs.sort();
    xattrs
}

fn data(path: &Path, size: u64) -> Runs {
    let file = File::open(path).unwrap();
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(begin) = seek(&file, SeekFrom::Data(at)) else {
            break;
        };
        at = seek(&file, SeekFrom::Hole(begin)).unwrap();
        let mut data = vec![0; usize::try_from(at - begin).unwrap()];
        file.read_exact_at(&mut data, begin).unwrap();
        runs.push((begin, data));
    }
    Runs(runs)
}
