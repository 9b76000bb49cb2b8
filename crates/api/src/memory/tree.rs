//! A file tree in memory, built by code: what an archive in memory holds, and a double for whatever
//! reads a tree ([`TreeReader`](crate::tree::TreeReader)) or pulls one ([`MemoryTree::source`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::tree::{
    Attributes, DeviceNumber, Entry, EntryKind, Name, Timestamp, TreePath, TreeTotals, Witness,
    Xattr,
};
use crate::{ErrorKind, UnixTime};

pub use super::source::MemorySource;

/// When everything in a new tree was made: 2020-09-13, before each backup of the kit.
const MADE: UnixTime = UnixTime(1_600_000_000);

/// A file tree. Clones share what is not changed in one of them.
///
/// What builds it takes paths as people type them, and panics where no such entry can be: it is
/// for tests.
#[derive(Clone, Debug)]
pub struct MemoryTree {
    root: Arc<MemoryNode>,
    now: Timestamp,
    inodes: u64,
}

/// An entry of a [`MemoryTree`].
#[derive(Clone, Debug)]
pub struct MemoryNode {
    /// The entry.
    pub entry: Entry,
    /// What a walk tells of it, and lets the provider judge it by.
    pub witness: Option<Witness>,
    /// What befalls a walk that comes to it.
    pub mishap: Option<Mishap>,
    pub(super) data: BTreeMap<u64, Vec<u8>>,
    pub(super) children: BTreeMap<Name, Arc<MemoryNode>>,
}

/// What befalls a walk at an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Mishap {
    /// It is gone when the walk comes to it: a problem of the kind `Vanished` is told instead.
    Vanishes,
    /// As [`Vanishes`](Self::Vanishes), and nothing is told.
    VanishesUnseen,
    /// It cannot be read: a problem of the kind `LeftOut` is told instead.
    LeftOut,
    /// It is told, and a problem of the kind `Warning` after it.
    Warning,
    /// The file changes while it is read.
    Changes,
    /// The file changes while it is read, and ends after so many bytes, less than its size.
    Shrinks(u64),
    /// The file's content is lost after so many bytes.
    Lost(u64),
    /// The walk fails when it comes to it, with an error of this kind.
    Fails(ErrorKind),
    /// The file's content fails after so many bytes, with an error of this kind.
    FailsAt(u64, ErrorKind),
}

impl MemoryNode {
    pub(super) fn new(entry: Entry, witness: Option<Witness>) -> Self {
        Self {
            entry,
            witness,
            mishap: None,
            data: BTreeMap::new(),
            children: BTreeMap::new(),
        }
    }

    /// Bytes, if it is a file.
    pub fn size(&self) -> u64 {
        match self.entry.kind {
            EntryKind::File { size, .. } => size,
            EntryKind::Directory
            | EntryKind::Symlink { .. }
            | EntryKind::HardLink { .. }
            | EntryKind::Fifo
            | EntryKind::Socket
            | EntryKind::CharDevice(_)
            | EntryKind::BlockDevice(_) => 0,
        }
    }

    /// The names and entries of a folder.
    pub fn children(&self) -> impl Iterator<Item = (&Name, &Self)> {
        self.children.iter().map(|(name, node)| (name, &**node))
    }

    /// Gives it this extended attribute.
    pub fn xattr(&mut self, name: &str, value: &[u8]) -> &mut Self {
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        let xattrs = &mut self.entry.attributes.xattrs;
        xattrs.retain(|xattr| xattr.name != name);
        xattrs.push(Xattr { name, value });
        xattrs.sort();
        self
    }

    /// Gives a file other content of the same length without anything telling so, as a file system
    /// that lies.
    pub fn forge(&mut self, content: &[u8]) {
        assert_eq!(content.len() as u64, self.size(), "of the same length");
        self.data.clear();
        self.write(0, content);
    }

    /// Appends to a file's data, which grows where it must.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let last = self.data.last_entry();
        match last.filter(|run| run.key() + run.get().len() as u64 == offset) {
            Some(mut run) => run.get_mut().extend_from_slice(bytes),
            None => {
                self.data.insert(offset, bytes.to_vec());
            }
        }
    }

    /// Cuts a file.
    pub(super) fn truncate(&mut self, length: u64) {
        if let EntryKind::File { size, .. } = &mut self.entry.kind {
            *size = length;
        }
        self.data.retain(|offset, _| *offset < length);
        if let Some(mut run) = self.data.last_entry() {
            let kept = super::index(length - run.key());
            run.get_mut().truncate(kept);
        }
    }
}

impl Default for MemoryTree {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTree {
    /// A tree with nothing but its root.
    pub fn new() -> Self {
        let now = Timestamp {
            seconds: MADE.0,
            nanos: 0,
        };
        let mut tree = Self {
            root: Arc::new(MemoryNode::new(
                Entry {
                    attributes: Attributes::default(),
                    kind: EntryKind::Directory,
                },
                None,
            )),
            now,
            inodes: 0,
        };
        let root = tree.made(EntryKind::Directory);
        tree.root = Arc::new(root);
        tree
    }

    pub(super) fn with_root(root: Arc<MemoryNode>) -> Self {
        let tree = Self::new();
        Self { root, ..tree }
    }

    /// Whatever is made or written from now on is of this time.
    pub fn set_time(&mut self, now: UnixTime) {
        self.now = Timestamp {
            seconds: now.0,
            nanos: 500,
        };
    }

    /// A new inode.
    fn made(&mut self, kind: EntryKind) -> MemoryNode {
        self.inodes += 1;
        let permissions = if kind.is_directory() { 0o755 } else { 0o644 };
        let attributes = Attributes {
            permissions,
            mtime: self.now,
            ..Attributes::default()
        };
        let witness = Witness {
            inode: self.inodes,
            ctime: self.now,
        };
        MemoryNode::new(Entry { attributes, kind }, Some(witness))
    }

    /// Puts a new entry there, for whatever was there; folders above it that are not there are made.
    pub fn put(&mut self, path: impl AsRef<[u8]>, kind: EntryKind) -> &mut MemoryNode {
        let path = typed(path.as_ref());
        let mut above = TreePath::root();
        let names: Vec<_> = path.names().map(name).collect();
        let (last, folders) = names.split_last().expect("the root is there already");
        for name in folders {
            above.push(name);
            if self.get(above.as_bytes()).is_none() {
                let folder = self.made(EntryKind::Directory);
                self.insert(&above, name, folder);
            }
        }
        let node = self.made(kind);
        self.insert(&path, last, node);
        self.node(path.as_bytes())
    }

    fn insert(&mut self, path: &TreePath, name: &Name, node: MemoryNode) {
        let mut folder = path.clone();
        folder.pop();
        let folder = self.node(folder.as_bytes());
        assert!(folder.entry.kind.is_directory(), "{path} is in no folder");
        folder.children.insert(name.clone(), Arc::new(node));
    }

    /// A file with this content.
    pub fn file(&mut self, path: impl AsRef<[u8]>, content: &[u8]) -> &mut MemoryNode {
        let size = content.len() as u64;
        self.sparse(path, size, &[(0, content)])
    }

    /// A file of so many bytes with data at these offsets, in ascending order, and holes between.
    pub fn sparse(
        &mut self,
        path: impl AsRef<[u8]>,
        size: u64,
        data: &[(u64, &[u8])],
    ) -> &mut MemoryNode {
        let node = self.put(path, EntryKind::File { size, links: 1 });
        for (offset, bytes) in data.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            node.write(*offset, bytes);
        }
        node
    }

    /// A folder.
    pub fn directory(&mut self, path: impl AsRef<[u8]>) -> &mut MemoryNode {
        self.put(path, EntryKind::Directory)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: impl AsRef<[u8]>, target: &[u8]) -> &mut MemoryNode {
        let target = target.to_vec();
        self.put(path, EntryKind::Symlink { target })
    }

    /// A character device.
    pub fn char_device(
        &mut self,
        path: impl AsRef<[u8]>,
        major: u32,
        minor: u32,
    ) -> &mut MemoryNode {
        self.put(path, EntryKind::CharDevice(DeviceNumber { major, minor }))
    }

    /// Another name of the entry at the path `to`, which comes before it in the tree's order and
    /// has the attributes that it has now.
    pub fn hard_link(&mut self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> &mut MemoryNode {
        let to = typed(to.as_ref());
        let first = self.node(to.as_bytes());
        if let EntryKind::File { links, .. } = &mut first.entry.kind {
            *links += 1;
        }
        let (mut attributes, witness) = (first.entry.attributes.clone(), first.witness);
        attributes.flags = 0;
        attributes.xattrs.clear();
        let node = self.put(path, EntryKind::HardLink { to });
        node.entry.attributes = attributes;
        node.witness = witness;
        node
    }

    /// Gives a file new content, as programs do: its times are the present.
    pub fn write(&mut self, path: impl AsRef<[u8]>, content: &[u8]) -> &mut MemoryNode {
        let now = self.now;
        let node = self.node(path);
        node.data.clear();
        node.write(0, content);
        node.truncate(content.len() as u64);
        node.entry.attributes.mtime = now;
        if let Some(witness) = &mut node.witness {
            witness.ctime = now;
        }
        node
    }

    /// Removes an entry and all below it.
    pub fn remove(&mut self, path: impl AsRef<[u8]>) {
        let path = typed(path.as_ref());
        let last = path.names().next_back().map(name);
        let mut folder = path.clone();
        folder.pop();
        let folder = self.node(folder.as_bytes());
        let removed = last.and_then(|last| folder.children.remove(&last));
        assert!(removed.is_some(), "there is no {path}");
    }

    /// The root.
    pub fn root(&self) -> &MemoryNode {
        &self.root
    }

    pub(super) fn shared_root(&self) -> &Arc<MemoryNode> {
        &self.root
    }

    /// The entry at a path, if it is there.
    pub fn get(&self, path: impl AsRef<[u8]>) -> Option<&MemoryNode> {
        let path = typed(path.as_ref());
        let mut names = path.names();
        names.try_fold(&*self.root, |node, part| {
            node.children.get(&name(part)).map(|child| &**child)
        })
    }

    /// The entry at a path, to be changed.
    pub fn node(&mut self, path: impl AsRef<[u8]>) -> &mut MemoryNode {
        let path = typed(path.as_ref());
        let mut node = Arc::make_mut(&mut self.root);
        for part in path.names() {
            let child = node.children.get_mut(&name(part));
            let child = child.unwrap_or_else(|| panic!("there is no {path}"));
            node = Arc::make_mut(child);
        }
        node
    }

    /// A walk over the tree as it is now.
    pub fn source(&self) -> MemorySource {
        MemorySource::new(Arc::clone(&self.root))
    }

    /// What is in the archive of a backup of this tree, of which nothing was known.
    #[must_use]
    pub fn archived(&self) -> Self {
        let root = archived(&self.root);
        let mut tree = self.clone();
        tree.root = Arc::new(root.unwrap_or_else(|| (*self.root).clone()));
        tree
    }

    pub(super) fn totals(&self) -> TreeTotals {
        let mut totals = TreeTotals::default();
        let mut open = vec![&*self.root];
        while let Some(node) = open.pop() {
            totals.entries += 1;
            totals.bytes = totals.bytes.saturating_add(node.size());
            open.extend(node.children.values().map(|child| &**child));
        }
        totals
    }
}

/// A node as it is in an archive, if it is there.
fn archived(node: &MemoryNode) -> Option<MemoryNode> {
    let mut node = node.clone();
    match node.mishap.take() {
        Some(Mishap::Vanishes | Mishap::VanishesUnseen | Mishap::LeftOut | Mishap::Lost(_)) => {
            return None;
        }
        Some(Mishap::Shrinks(length)) => node.truncate(length),
        Some(Mishap::Warning | Mishap::Changes | Mishap::Fails(_) | Mishap::FailsAt(..)) | None => {
        }
    }
    let children = std::mem::take(&mut node.children).into_iter();
    node.children = children
        .filter_map(|(name, child)| Some((name, Arc::new(archived(&child)?))))
        .collect();
    Some(node)
}

fn typed(path: &[u8]) -> TreePath {
    TreePath::typed(path).expect("a path")
}

fn name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("a part of a path is a name")
}
