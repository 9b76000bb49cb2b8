//! A tree in memory, as a reader.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use snapkeep_api::tree::{
    Attributes, Entry, EntryKind, Name, Place, TreeNode, TreePath, TreeReader, TreeTotals,
};
use snapkeep_api::{Error, ErrorKind, Region, Result};

/// Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tree: entries in a row, so that a deep one is dropped without depth.
pub(crate) struct MemoryTree {
    nodes: Vec<Node>,
    /// How often a file's content was read.
    pub(crate) reads: AtomicU64,
    /// Each read waits until so many threads have read something.
    pub(crate) together: usize,
    readers: Mutex<HashSet<ThreadId>>,
    came: Condvar,
    /// How often a folder was listed.
    pub(crate) lists: AtomicU64,
    /// Reading at or after this offset of any file fails.
    pub(crate) broken_from: Option<u64>,
    /// Listing this folder fails.
    pub(crate) broken_folder: Option<usize>,
    /// Nodes have identities.
    pub(crate) identities: bool,
}

struct Node {
    entry: Entry,
    /// Data by its offset; between are holes.
    data: BTreeMap<u64, Vec<u8>>,
    children: BTreeMap<Name, usize>,
    /// Told as it stands, whatever order that is.
    listed: Option<Vec<(Name, usize)>>,
}

pub(crate) fn path(text: impl AsRef<[u8]>) -> TreePath {
    TreePath::new(text.as_ref()).unwrap()
}

pub(crate) fn name(text: impl AsRef<[u8]>) -> Name {
    Name::new(text.as_ref()).unwrap()
}

pub(crate) fn attributes(permissions: u16) -> Attributes {
    Attributes {
        permissions,
        ..Attributes::default()
    }
}

impl MemoryTree {
    pub(crate) fn new(root: Attributes) -> Self {
        let entry = Entry {
            attributes: root,
            kind: EntryKind::Directory,
        };
        Self {
            nodes: vec![Node {
                entry,
                data: BTreeMap::new(),
                children: BTreeMap::new(),
                listed: None,
            }],
            reads: AtomicU64::new(0),
            together: 1,
            readers: Mutex::default(),
            came: Condvar::new(),
            lists: AtomicU64::new(0),
            broken_from: None,
            broken_folder: None,
            identities: false,
        }
    }

    /// Adds an entry to the folder with this number; tells the entry's number.
    pub(crate) fn add(&mut self, folder: usize, name: Name, entry: Entry) -> usize {
        let number = self.nodes.len();
        self.nodes.push(Node {
            entry,
            data: BTreeMap::new(),
            children: BTreeMap::new(),
            listed: None,
        });
        self.nodes[folder].children.insert(name, number);
        number
    }

    /// Adds an entry at a path whose folder is there.
    pub(crate) fn put(&mut self, at: &str, attributes: Attributes, kind: EntryKind) -> usize {
        let at = path(at);
        let last = name(at.names().next_back().unwrap());
        let mut folder = at;
        folder.pop();
        let folder = self.number(&folder);
        self.add(folder, last, Entry { attributes, kind })
    }

    pub(crate) fn directory(&mut self, at: &str) -> usize {
        self.put(at, attributes(0o755), EntryKind::Directory)
    }

    pub(crate) fn file(&mut self, at: &str, content: &[u8]) -> usize {
        let size = content.len() as u64;
        let number = self.put(at, attributes(0o644), EntryKind::File { size, links: 1 });
        self.write(number, 0, content);
        number
    }

    pub(crate) fn link(&mut self, at: &str, to: &str) -> usize {
        self.put(at, attributes(0o644), EntryKind::HardLink { to: path(to) })
    }

    /// Makes these bytes data of a file.
    pub(crate) fn write(&mut self, number: usize, offset: u64, content: &[u8]) {
        if !content.is_empty() {
            self.nodes[number].data.insert(offset, content.to_vec());
        }
    }

    pub(crate) fn entry(&mut self, number: usize) -> &mut Entry {
        &mut self.nodes[number].entry
    }

    /// Lists a folder so, true or not.
    pub(crate) fn lie(&mut self, folder: usize, listed: Vec<(Name, usize)>) {
        self.nodes[folder].listed = Some(listed);
    }

    pub(crate) fn number(&self, at: &TreePath) -> usize {
        at.names()
            .fold(0, |folder, part| self.nodes[folder].children[&name(part)])
    }

    fn node(&self, number: usize) -> TreeNode {
        let identity = self.identities.then(|| self.identity(number));
        let entry = self.nodes[number].entry.clone();
        TreeNode {
            entry,
            identity,
            place: Place::new(number),
        }
    }

    /// Not a good hash, but good for tests.
    fn identity(&self, number: usize) -> [u8; 32] {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hash = DefaultHasher::new();
        let mut todo = vec![number];
        while let Some(next) = todo.pop() {
            let node = &self.nodes[next];
            let own = if next == number {
                String::new()
            } else {
                format!("{:?}", node.entry)
            };
            (own, &node.data).hash(&mut hash);
            for (name, child) in &node.children {
                name.hash(&mut hash);
                todo.push(*child);
            }
        }
        let mut identity = [0; 32];
        identity[..8].copy_from_slice(&hash.finish().to_le_bytes());
        identity
    }

    fn of(&self, node: &TreeNode) -> Result<&Node> {
        let number = node.place.get::<usize>();
        number
            .map(|number| &self.nodes[*number])
            .ok_or_else(|| protocol("another reader's node"))
    }
}

impl TreeReader for MemoryTree {
    fn root(&self) -> Result<TreeNode> {
        Ok(self.node(0))
    }

    fn totals(&self) -> TreeTotals {
        TreeTotals {
            entries: self.nodes.len() as u64,
            bytes: 0,
        }
    }

    fn list(
        &self,
        directory: &TreeNode,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, TreeNode)>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        let node = self.of(directory)?;
        if directory.place.get() == self.broken_folder.as_ref() {
            return Err(Error::new(ErrorKind::Corrupt, "a node is damaged"));
        }
        if let Some(listed) = &node.listed {
            let from = after.map_or(0, |a| listed.iter().rposition(|(n, _)| n == a).unwrap() + 1);
            let told = listed[from..].iter().take(max);
            return Ok(told
                .map(|(name, number)| (name.clone(), self.node(*number)))
                .collect());
        }
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let told = node.children.range((from, Bound::Unbounded)).take(max);
        Ok(told
            .map(|(name, number)| (name.clone(), self.node(*number)))
            .collect())
    }

    fn lookup(&self, directory: &TreeNode, name: &Name) -> Result<Option<TreeNode>> {
        if directory.place.get() == self.broken_folder.as_ref() {
            return Err(Error::new(ErrorKind::Corrupt, "a node is damaged"));
        }
        Ok(self
            .of(directory)?
            .children
            .get(name)
            .map(|number| self.node(*number)))
    }

    fn read_at(&self, file: &TreeNode, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut readers = self.readers.lock().unwrap();
        readers.insert(thread::current().id());
        self.came.notify_all();
        let few = |readers: &mut HashSet<_>| readers.len() < self.together;
        let (readers, _) = (self.came.wait_timeout_while(readers, PATIENCE, few)).unwrap();
        assert!(readers.len() >= self.together, "too few threads read");
        drop(readers);
        let end = offset + buffer.len() as u64;
        if self.broken_from.is_some_and(|broken| end > broken) {
            return Err(Error::new(ErrorKind::Corrupt, "a chunk is damaged"));
        }
        let node = self.of(file)?;
        let EntryKind::File { size, .. } = node.entry.kind else {
            return Err(protocol("no file"));
        };
        if end > size {
            return Err(protocol("a range past the end"));
        }
        buffer.fill(0);
        for (start, data) in &node.data {
            let (from, to) = (offset.max(*start), end.min(start + data.len() as u64));
            if from < to {
                let index = |at: u64| usize::try_from(at).unwrap();
                buffer[index(from - offset)..index(to - offset)]
                    .copy_from_slice(&data[index(from - start)..index(to - start)]);
            }
        }
        Ok(())
    }

    fn next_data(&self, file: &TreeNode, offset: u64) -> Result<Option<Region>> {
        let node = self.of(file)?;
        let runs = node
            .data
            .iter()
            .map(|(start, data)| (*start, start + data.len() as u64));
        let next = runs.filter(|(_, end)| *end > offset).min();
        next.map(|(start, end)| Region::new(start.max(offset), end - start.max(offset)))
            .transpose()
    }
}

fn protocol(why: &str) -> Error {
    Error::new(ErrorKind::Protocol, why)
}
