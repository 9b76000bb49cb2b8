//! One file, folder or other entry, as the kernel sees it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use snapkeep_api::tree::{
    Attributes, DeviceNumber, EntryKind, Name, Timestamp, TreeNode, TreePath, TreeReader, Xattr,
    find,
};
use snapkeep_api::{Error, ErrorKind, Region, Result};

use crate::holes;
use crate::limits::XATTRS_KEPT;
use crate::location::Location;
use crate::node::{Folder, Node, RandomRead};

/// How many names an entry has whose names nobody has counted: more than one, so that who looks for
/// hard links, such as tar, sees by its number which names are of one entry.
const UNCOUNTED: u32 = 2;

/// What the kernel knows under one number.
pub(crate) struct Inode {
    pub(crate) location: Arc<Location>,
    pub(crate) object: Object,
    /// The key that its number follows from.
    pub(crate) key: u128,
    /// Bytes, and blocks of 512 bytes; of [`Object::Bytes`] not before somebody needs to know.
    extent: OnceLock<(u64, u64)>,
}

/// What is behind it.
pub(crate) enum Object {
    Folder(Arc<dyn Folder>),
    Bytes(Arc<dyn RandomRead>),
    /// An entry of a tree, never a hard link.
    Entry {
        tree: Arc<Tree>,
        node: TreeNode,
        /// Whether its extended attributes were too long to be kept.
        stripped: bool,
    },
    /// An entry that cannot be read: it has a name only.
    Broken,
}

/// A tree and where it is mounted.
pub(crate) struct Tree {
    reader: Arc<dyn TreeReader>,
    top: Arc<Location>,
}

/// What is in a folder.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Node(Node),
    Entry(TreeNode),
}

/// How many blocks of 512 bytes are told for a file, and why it had to be guessed if it was.
type Blocks = (u64, Option<Error>);

impl Inode {
    /// What a node is at a location.
    pub(crate) fn of_node(location: Arc<Location>, node: Node) -> Result<(Self, Option<Error>)> {
        match node {
            Node::Folder(folder) => {
                let inode = Self::new(location, Object::Folder(folder));
                Ok((inode.with_extent(0, 0), None))
            }
            Node::Bytes(bytes) => Ok((Self::new(location, Object::Bytes(bytes)), None)),
            Node::Tree(reader) => {
                let node = reader.root()?;
                if node.entry.kind != EntryKind::Directory {
                    let what = "the tree's root is no folder";
                    return Err(Error::new(ErrorKind::Corrupt, what));
                }
                let top = Arc::clone(&location);
                Self::of_entry(&Arc::new(Tree { reader, top }), location, node)
            }
        }
    }

    /// What a tree's entry is; a hard link is what it leads to, at that location.
    pub(crate) fn of_entry(
        tree: &Arc<Tree>,
        mut location: Arc<Location>,
        mut node: TreeNode,
    ) -> Result<(Self, Option<Error>)> {
        node.entry.check()?;
        if let EntryKind::HardLink { to } = &node.entry.kind {
            location = tree.top.join_path(to)?;
            node = tree.linked(to)?;
            node.entry.check()?;
        }
        let (mut size, mut count, mut wrong) = (0, 0, None);
        match &node.entry.kind {
            EntryKind::File { size: bytes, .. } => {
                size = *bytes;
                (count, wrong) = blocks(size, &|from| tree.reader.next_data(&node, from));
            }
            EntryKind::Symlink { target } => size = target.len() as u64,
            EntryKind::CharDevice(number) | EntryKind::BlockDevice(number) => {
                device(*number)?;
            }
            EntryKind::Directory
            | EntryKind::HardLink { .. }
            | EntryKind::Fifo
            | EntryKind::Socket => {}
        }
        let xattrs = &mut node.entry.attributes.xattrs;
        let length: usize = xattrs.iter().map(|x| x.name.len() + x.value.len()).sum();
        let stripped = length > XATTRS_KEPT;
        if stripped {
            *xattrs = Vec::new();
        }
        let tree = Arc::clone(tree);
        let object = Object::Entry {
            tree,
            node,
            stripped,
        };
        let inode = Self::new(location, object);
        Ok((inode.with_extent(size, count), wrong))
    }

    /// What stands for an entry that cannot be read.
    pub(crate) fn broken(location: Arc<Location>) -> Self {
        let key = location.broken_key();
        let broken = Self::new(location, Object::Broken).with_extent(0, 0);
        Self { key, ..broken }
    }

    fn new(location: Arc<Location>, object: Object) -> Self {
        Self {
            key: location.key,
            location,
            object,
            extent: OnceLock::new(),
        }
    }

    fn with_extent(self, size: u64, blocks: u64) -> Self {
        let extent = (size, blocks).into();
        Self { extent, ..self }
    }

    /// Learns its size, if that is not known; and perhaps why its blocks had to be guessed.
    pub(crate) fn measure(&self) -> Result<Option<Error>> {
        let Object::Bytes(bytes) = &self.object else {
            return Ok(None);
        };
        if self.is_measured() {
            return Ok(None);
        }
        let size = bytes.size()?;
        let (blocks, wrong) = blocks(size, &|from| bytes.next_data(from));
        self.extent.get_or_init(|| (size, blocks));
        Ok(wrong)
    }

    /// Whether its size is known.
    pub(crate) fn is_measured(&self) -> bool {
        self.extent.get().is_some()
    }

    /// What a name in this folder leads to; `None` if there is none, or this is no folder.
    pub(crate) fn lookup(&self, name: &Name) -> Result<Option<Found>> {
        match &self.object {
            Object::Folder(folder) => Ok(folder.lookup(name)?.map(Found::Node)),
            Object::Entry { tree, node, .. } if node.entry.kind.is_directory() => {
                Ok(tree.reader.lookup(node, name)?.map(Found::Entry))
            }
            Object::Entry { .. } | Object::Bytes(_) => Ok(None),
            Object::Broken => Err(unreadable()),
        }
    }

    /// Some of a folder's entries, as [`TreeReader::list`] and [`Folder::list`] do.
    pub(crate) fn list(&self, after: Option<&Name>, max: usize) -> Result<Vec<(Name, Found)>> {
        match &self.object {
            Object::Folder(folder) => {
                let entries = folder.list(after, max)?.into_iter();
                Ok(entries.map(|(name, n)| (name, Found::Node(n))).collect())
            }
            Object::Entry { tree, node, .. } => {
                let entries = tree.reader.list(node, after, max)?.into_iter();
                Ok(entries.map(|(name, n)| (name, Found::Entry(n))).collect())
            }
            Object::Bytes(_) | Object::Broken => Err(unreadable()),
        }
    }

    /// What was found in this folder, at its location.
    pub(crate) fn child(
        &self,
        location: Arc<Location>,
        found: Found,
    ) -> Result<(Self, Option<Error>)> {
        match (&self.object, found) {
            (_, Found::Node(node)) => Self::of_node(location, node),
            (Object::Entry { tree, .. }, Found::Entry(node)) => {
                Self::of_entry(tree, location, node)
            }
            (_, Found::Entry(_)) => Err(unreadable()),
        }
    }

    /// The number and type of what was found in this folder, without more work than it takes.
    pub(crate) fn child_type(&self, name: &Name, found: &Found) -> Result<(u64, FileType)> {
        let location = self.location.join(name);
        let kind = match found {
            Found::Node(Node::Folder(_) | Node::Tree(_)) => FileType::Directory,
            Found::Node(Node::Bytes(_)) => FileType::RegularFile,
            Found::Entry(node) => match (&node.entry.kind, &self.object) {
                (EntryKind::HardLink { to }, Object::Entry { tree, .. }) => {
                    let number = tree.top.join_path(to)?.number();
                    return Ok((number, file_type(&tree.linked(to)?.entry.kind)));
                }
                (kind, _) => file_type(kind),
            },
        };
        Ok((location.number(), kind))
    }

    /// Whether it can be opened as a folder.
    pub(crate) fn is_folder(&self) -> bool {
        self.file_type() == FileType::Directory
    }

    /// Bytes, of a file; 0 if that is not known.
    pub(crate) fn size(&self) -> u64 {
        self.extent.get().map_or(0, |(size, _)| *size)
    }

    /// Fills the buffer, which must lie inside of the file.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.object {
            Object::Bytes(bytes) => bytes.read_at(offset, buffer),
            Object::Entry { tree, node, .. } => tree.reader.read_at(node, offset, buffer),
            Object::Folder(_) | Object::Broken => Err(unreadable()),
        }
    }

    /// The next run of a file's data.
    pub(crate) fn next_data(&self, from: u64) -> Result<Option<Region>> {
        match &self.object {
            Object::Bytes(bytes) => bytes.next_data(from),
            Object::Entry { tree, node, .. } => tree.reader.next_data(node, from),
            Object::Folder(_) | Object::Broken => Err(unreadable()),
        }
    }

    /// A symbolic link's target; `None` of anything else.
    pub(crate) fn symlink(&self) -> Option<&[u8]> {
        match &self.object {
            Object::Entry { node, .. } => match &node.entry.kind {
                EntryKind::Symlink { target } => Some(target),
                EntryKind::File { .. }
                | EntryKind::Directory
                | EntryKind::HardLink { .. }
                | EntryKind::Fifo
                | EntryKind::Socket
                | EntryKind::CharDevice(_)
                | EntryKind::BlockDevice(_) => None,
            },
            Object::Folder(_) | Object::Bytes(_) | Object::Broken => None,
        }
    }

    /// Does something with the extended attributes, which may have to be read again for it.
    pub(crate) fn with_xattrs<T>(&self, f: impl FnOnce(&[Xattr]) -> T) -> Result<T> {
        match &self.object {
            Object::Entry {
                tree,
                stripped: true,
                ..
            } => {
                let path = self.location.below(&tree.top)?;
                let found = find(&*tree.reader, &path)?.ok_or_else(unreadable)?;
                found.entry.check()?;
                Ok(f(&found.entry.attributes.xattrs))
            }
            Object::Entry { node, .. } => Ok(f(&node.entry.attributes.xattrs)),
            Object::Folder(_) | Object::Bytes(_) => Ok(f(&[])),
            Object::Broken => Err(unreadable()),
        }
    }

    /// How many bytes and entries the file system has that it is in; 0 if nobody knows.
    pub(crate) fn totals(&self) -> (u64, u64) {
        match &self.object {
            Object::Entry { tree, .. } => {
                let totals = tree.reader.totals();
                (totals.bytes, totals.entries)
            }
            Object::Bytes(_) => (self.size(), 1),
            Object::Folder(_) | Object::Broken => (0, 0),
        }
    }

    fn file_type(&self) -> FileType {
        match &self.object {
            Object::Folder(_) => FileType::Directory,
            Object::Bytes(_) | Object::Broken => FileType::RegularFile,
            Object::Entry { node, .. } => file_type(&node.entry.kind),
        }
    }

    /// What `stat` shows, but for a size that is not known.
    pub(crate) fn attributes(&self, number: u64) -> Result<FileAttr> {
        let plain = |permissions, mtime| Attributes {
            permissions,
            mtime,
            ..Attributes::default()
        };
        let (mut links, mut rdev) = (1, 0);
        let own;
        let attributes = match &self.object {
            Object::Folder(folder) => {
                own = plain(0o555, folder.modified());
                &own
            }
            Object::Bytes(bytes) => {
                own = plain(0o400, bytes.modified());
                &own
            }
            Object::Broken => {
                own = plain(0, Timestamp::default());
                &own
            }
            Object::Entry { node, .. } => {
                match node.entry.kind {
                    EntryKind::File { links: names, .. } => links = names,
                    EntryKind::CharDevice(number) | EntryKind::BlockDevice(number) => {
                        rdev = device(number)?;
                        links = UNCOUNTED;
                    }
                    EntryKind::Symlink { .. }
                    | EntryKind::HardLink { .. }
                    | EntryKind::Fifo
                    | EntryKind::Socket => links = UNCOUNTED,
                    // A folder with one name is one whose subfolders nobody has counted.
                    EntryKind::Directory => {}
                }
                &node.entry.attributes
            }
        };
        let mtime = system_time(attributes.mtime)?;
        Ok(FileAttr {
            ino: INodeNo(number),
            size: self.size(),
            blocks: self.extent.get().map_or(0, |(_, blocks)| *blocks),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: mtime,
            kind: self.file_type(),
            perm: attributes.permissions,
            nlink: links,
            uid: attributes.uid,
            gid: attributes.gid,
            rdev,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Tree {
    /// What a hard link leads to.
    fn linked(&self, to: &TreePath) -> Result<TreeNode> {
        let wrong = match find(&*self.reader, to)? {
            None => "is not there",
            Some(node) => match node.entry.kind {
                EntryKind::Directory => "is a folder",
                EntryKind::HardLink { .. } => "is a hard link itself",
                EntryKind::File { .. }
                | EntryKind::Symlink { .. }
                | EntryKind::Fifo
                | EntryKind::Socket
                | EntryKind::CharDevice(_)
                | EntryKind::BlockDevice(_) => return Ok(node),
            },
        };
        let what = format!("it is a hard link to {to} of its tree, which {wrong}");
        Err(Error::new(ErrorKind::Corrupt, what))
    }
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Corrupt, "it cannot be read")
}

fn blocks(size: u64, next_data: holes::NextData<'_>) -> Blocks {
    match holes::data_bytes(size, next_data) {
        Ok(bytes) => (bytes.div_ceil(512), None),
        // Never fewer than there are: only then would a hole be seen where there is none.
        Err(error) => (size.div_ceil(512), Some(error)),
    }
}

/// As the kernel packs it for FUSE (`new_encode_dev` in its `kdev_t.h`).
fn device(number: DeviceNumber) -> Result<u32> {
    let DeviceNumber { major, minor } = number;
    if major >= 1 << 12 || minor >= 1 << 20 {
        let what = format!("the device number {major}:{minor} is none of Linux");
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

fn system_time(time: Timestamp) -> Result<SystemTime> {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    let nanos = Duration::from_nanos(time.nanos.into());
    let time = whole.and_then(|whole| whole.checked_add(nanos));
    time.ok_or_else(|| Error::new(ErrorKind::Corrupt, "its time is none of Linux"))
}

fn file_type(kind: &EntryKind) -> FileType {
    match kind {
        EntryKind::File { .. } | EntryKind::HardLink { .. } => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink { .. } => FileType::Symlink,
        EntryKind::Fifo => FileType::NamedPipe,
        EntryKind::Socket => FileType::Socket,
        EntryKind::CharDevice(_) => FileType::CharDevice,
        EntryKind::BlockDevice(_) => FileType::BlockDevice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = |seconds, nanos| system_time(Timestamp { seconds, nanos }).unwrap();
        let before = UNIX_EPOCH - Duration::new(1, 999_999_999);
        assert_eq!(time(-2, 1), before);
        assert_eq!(time(2, 1), UNIX_EPOCH + Duration::new(2, 1));
        time(i64::MIN, 0);
        time(i64::MAX, 999_999_999);
    }

    #[test]
    fn device_numbers_are_packed_as_the_kernel_does() {
        let number = |major, minor| device(DeviceNumber { major, minor });
        assert_eq!(number(8, 1).unwrap(), 0x801);
        assert_eq!(number(259, 0x1_2345).unwrap(), 0x1231_0345);
        assert!(number(4096, 0).is_err() && number(0, 1 << 20).is_err());
    }
}
