//! Makes a directory tree from entries in the order of a walk.
//!
//! Small files share bundles, so their entries wait, and with them everything that comes behind,
//! until their bundle has an identity.

use std::mem::size_of;
use std::thread::Builder;

use super::file::OpenFile;
use super::levels::{Finished, Item, Levels};
use super::queue::{Queue, Sink};
use super::{
    Attributes, Content, NodeKind, Place, TreeDirectory, TreeFile, TreeNode, TreeRecord, Witness,
    check, cut,
};
use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::format::tree::{Role, entry, witness as format};
use crate::writer::Writer;
use crate::{Error, ErrorKind, Result, limits};

/// What was given to be stored, in bytes before compression.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TreeCounts {
    /// Chunks of files that were not stored before.
    pub new: u64,
    /// Chunks of files that were.
    pub reused: u64,
    /// Nodes that were not stored before.
    pub nodes_new: u64,
    /// Nodes that were.
    pub nodes_reused: u64,
}

/// Runs `work` with a [`TreeWriter`] whose chunks so many threads compress, encrypt and store; the
/// tree's record. `written` is told by those threads what they gave to be written out, and may
/// keep them waiting. After an error nothing can be committed.
pub fn write_tree<E: From<Error>>(
    writer: &Writer,
    workers: usize,
    written: &(dyn Fn(u64) + Sync),
    work: impl FnOnce(&mut TreeWriter<'_>) -> Result<(), E>,
) -> Result<TreeRecord, E> {
    let queue = Queue::default();
    // Dropped once all threads have ended, also when one of them panics.
    let _loss = Loss(writer, &queue);
    let made = std::thread::scope(|scope| {
        let closer = queue.closer();
        for started in 0..workers.clamp(1, limits::TREE_WORKERS_MAX) {
            let work = || queue.work(&mut writer.worker(), written);
            match Builder::new().spawn_scoped(scope, work) {
                Ok(_) => {}
                Err(error) if started == 0 => return Err(no_thread(error).into()),
                // A machine that has no more to give only slows it down.
                Err(_) => break,
            }
        }
        let mut tree = TreeWriter::new(writer, &queue);
        let made = work(&mut tree).and_then(|()| tree.finish().map_err(E::from));
        if made.is_err() {
            queue.stop();
        }
        drop(closer);
        made
    });
    made.and_then(|record| Ok(queue.check().map(|()| record)?))
}

fn no_thread(error: std::io::Error) -> Error {
    let what = "no thread can be started that stores a directory tree";
    Error::with_source(ErrorKind::Io, what, error)
}

/// Gives the writer up if chunks that were claimed are not stored.
struct Loss<'w>(&'w Writer, &'w Queue);

impl Drop for Loss<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.1.check() {
            self.0.give_up(&error);
        }
    }
}

/// A directory that was entered.
struct OpenDirectory {
    name: Vec<u8>,
    attributes: Attributes,
    witness: Option<Witness>,
    nodes: Levels,
}

/// What the caller did, to be done again once the bundle has an identity.
enum Step {
    Enter(Vec<u8>, Attributes, Option<Witness>),
    Leave,
    Add(TreeNode, Option<Witness>),
    /// A file whose content lies in the bundle: its extents' chunk is still to be named.
    AddBundled(TreeNode, Option<Witness>),
}

/// Takes a tree in the order of a walk: [`enter`](Self::enter) the root with the empty name, then
/// each directory's entries in ascending order of their names' bytes, and [`leave`](Self::leave)
/// at last. A call out of order fails with kind `Invalid` and changes nothing.
pub struct TreeWriter<'w> {
    sink: Sink<'w>,
    /// The last name in each directory that was entered and not left.
    names: Vec<Vec<u8>>,
    /// What each of them and those around it hold until they are left.
    open_bytes: Vec<usize>,
    /// Whether the root was left.
    ended: bool,
    file: Option<OpenFile>,
    bundle: Vec<u8>,
    /// Empty if the bundle is.
    waiting: Vec<Step>,
    waiting_bytes: usize,
    /// The directories as far as nothing waits.
    open: Vec<OpenDirectory>,
    root: Option<(ChunkId, Option<ChunkId>)>,
    entries: u64,
    size: u64,
    /// Room to encode an entry and its witness.
    space: (Vec<u8>, Vec<u8>),
}

impl std::fmt::Debug for TreeWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeWriter")
            .field("entries", &self.entries)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Stands in an extent for the identity of the bundle that is being filled.
const THIS_BUNDLE: ChunkId = ChunkId([0; 32]);

impl<'w> TreeWriter<'w> {
    fn new(writer: &'w Writer, queue: &'w Queue) -> Self {
        let counts = TreeCounts::default();
        Self {
            sink: Sink {
                writer,
                queue,
                counts,
                held: 0,
            },
            names: Vec::new(),
            open_bytes: Vec::new(),
            ended: false,
            file: None,
            bundle: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            open: Vec::new(),
            root: None,
            entries: 0,
            size: 0,
            space: Default::default(),
        }
    }

    /// What was given to be stored so far; all of it once the root was left.
    pub fn counts(&self) -> TreeCounts {
        self.sink.counts
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Begins a directory; the first is the root, whose name is empty.
    pub fn enter(
        &mut self,
        name: &[u8],
        attributes: &Attributes,
        witness: Option<Witness>,
    ) -> Result<()> {
        if self.names.is_empty() {
            self.check_idle()?;
            if self.ended || !name.is_empty() {
                return Err(self.invalid(name, "is not the one root of the tree"));
            }
        } else {
            self.check_next(name)?;
        }
        check::check_attributes(attributes).map_err(|why| self.invalid(name, why))?;
        let around = self.open_bytes.last().copied().unwrap_or_default();
        // What stays of its unfinished nodes is counted with it.
        let bytes = around + limits::HELD_EACH + name.len() + weight(attributes);
        if bytes > limits::TREE_OPEN_BYTES_MAX {
            let why = "has, with the directories around it, more than 64 MiB of extended \
                       attributes: remove some of them, or exclude it";
            return Err(self.invalid(name, why));
        }
        self.open_bytes.push(bytes);
        self.named(name);
        self.names.push(Vec::new());
        self.entries += 1;
        self.step(Step::Enter(name.to_owned(), attributes.clone(), witness))
    }

    /// Ends the directory that was entered last.
    pub fn leave(&mut self) -> Result<()> {
        self.check_idle()?;
        if self.names.pop().is_none() {
            return Err(self.invalid(b"", "was left already"));
        }
        self.open_bytes.pop();
        self.ended = self.names.is_empty();
        self.step(Step::Leave)?;
        if self.ended {
            self.end_bundle()
        } else {
            Ok(())
        }
    }

    /// Adds what is neither a directory nor a file.
    pub fn add(&mut self, node: TreeNode, witness: Option<Witness>) -> Result<()> {
        if matches!(node.kind, NodeKind::File(_) | NodeKind::Directory(_)) {
            return Err(self.invalid(&node.name, "has content, which was not given"));
        }
        self.put(node, witness)
    }

    /// Adds a file as a reader of this repository gave it: its content is not read. `NotFound`,
    /// with nothing changed, if a chunk of it is known to be missing;
    /// [`is_present`](super::TreeReader::is_present) tells it of all.
    pub fn reuse(&mut self, node: &TreeNode, witness: Option<Witness>) -> Result<()> {
        let NodeKind::File(file) = &node.kind else {
            return Err(self.invalid(&node.name, "is no file, so it has no content to reuse"));
        };
        let has = |id| self.sink.writer.has(id);
        let present = match &file.content {
            Content::Node(id) => has(id)?,
            Content::Extents(extents) => {
                let mut all = true;
                for extent in extents {
                    all = all && has(&extent.chunk)?;
                }
                all
            }
        };
        if !present {
            let error = self.invalid(&node.name, "has content that is not in the repository");
            return Err(Error::new(ErrorKind::NotFound, error.to_string()));
        }
        let size = file.size;
        self.put(node.clone(), witness)?;
        self.size = self.size.saturating_add(size);
        Ok(())
    }

    /// Begins a file, whose content follows: its data and holes in order.
    pub fn begin_file(&mut self, name: &[u8], attributes: &Attributes, links: u32) -> Result<()> {
        self.check_next(name)?;
        (check::check_attributes(attributes).and_then(|()| check::check_links(links)))
            .map_err(|why| self.invalid(name, why))?;
        let start = self.bundle.len();
        self.file = Some(OpenFile::new(name, attributes, links, start));
        Ok(())
    }

    /// The next bytes of the file.
    pub fn data(&mut self, data: &[u8]) -> Result<()> {
        self.grow(data.len() as u64)?;
        let file = self.file.as_mut().filter(|_| !data.is_empty());
        file.map_or(Ok(()), |file| {
            file.data(&mut self.sink, &mut self.bundle, data)
        })
    }

    /// The next so many bytes of the file are a hole.
    pub fn hole(&mut self, length: u64) -> Result<()> {
        self.grow(length)?;
        if let Some(file) = &mut self.file {
            file.size += length;
        }
        Ok(())
    }

    /// Ends the file: its size is what was given.
    pub fn end_file(&mut self, witness: Option<Witness>) -> Result<()> {
        self.sink.queue.check()?;
        let Some(file) = self.file.take() else {
            return Err(self.invalid(b"", "is no file that was begun"));
        };
        let (start, size) = (file.start, file.size);
        let bundled = file.pieces.len() > 0;
        let content = match file.large {
            Some(large) => large.finish(&mut self.sink)?,
            None => Content::Extents(file.pieces.extents(THIS_BUNDLE).collect()),
        };
        self.named(&file.name);
        self.entries += 1;
        self.size = self.size.saturating_add(size);
        let content = file_node(content, file.links, size);
        let (name, attributes) = (file.name, file.attributes);
        let node = TreeNode {
            name,
            attributes,
            kind: content,
        };
        if !bundled {
            return self.step(Step::Add(node, witness));
        }
        // Extents in the bundle count from its own beginning.
        self.wait(Step::AddBundled(node, witness));
        let data = &self.bundle[start..];
        if cut::ends_bundle(self.bundle.len(), cut::fold(data), data.len()) {
            return self.end_bundle();
        }
        self.end_bundle_if_many()
    }

    /// Forgets the file that was begun, as if it had not been.
    pub fn abandon_file(&mut self) -> Result<()> {
        self.sink.queue.check()?;
        match self.file.take() {
            None => Err(self.invalid(b"", "is no file that was begun")),
            Some(file) => {
                self.bundle.truncate(file.start);
                Ok(())
            }
        }
    }

    fn grow(&mut self, length: u64) -> Result<()> {
        self.sink.queue.check()?;
        let Some(file) = &self.file else {
            return Err(self.invalid(b"", "is no file that was begun"));
        };
        if length > limits::FILE_SIZE_MAX - file.size {
            return Err(self.invalid(&file.name, "is a larger file than there can be"));
        }
        Ok(())
    }

    fn put(&mut self, node: TreeNode, witness: Option<Witness>) -> Result<()> {
        self.check_next(&node.name)?;
        check::check_node(&node).map_err(|why| self.invalid(&node.name, why))?;
        self.named(&node.name);
        self.entries += 1;
        self.step(Step::Add(node, witness))
    }

    fn invalid(&self, name: &[u8], why: &str) -> Error {
        let mut path = String::new();
        // The last name of each directory but the innermost is that of the next one.
        let outer = self.names.split_last().map_or(&[][..], |(_, outer)| outer);
        for name in outer.iter().map(|name| &name[..]).chain([name]) {
            path.push('/');
            path.extend(String::from_utf8_lossy(name).escape_debug());
        }
        Error::new(ErrorKind::Invalid, format!("the entry {path} {why}"))
    }

    fn check_idle(&self) -> Result<()> {
        self.sink.queue.check()?;
        match &self.file {
            None => Ok(()),
            Some(file) => Err(self.invalid(&file.name, "is a file that was not ended")),
        }
    }

    /// Fails unless an entry of this name may come next.
    fn check_next(&self, name: &[u8]) -> Result<()> {
        self.check_idle()?;
        let Some(last) = self.names.last() else {
            return Err(self.invalid(name, "is in no directory"));
        };
        check::check_name(name).map_err(|why| self.invalid(name, why))?;
        if self.names.len() > limits::TREE_DEPTH_MAX {
            return Err(self.invalid(name, "is deeper than is allowed"));
        }
        if name <= &last[..] {
            return Err(self.invalid(name, "is not behind the one before it, by its name"));
        }
        Ok(())
    }

    fn named(&mut self, name: &[u8]) {
        if let Some(last) = self.names.last_mut() {
            last.clear();
            last.extend_from_slice(name);
        }
    }

    fn step(&mut self, step: Step) -> Result<()> {
        if self.bundle.is_empty() {
            return self.apply(step);
        }
        self.wait(step);
        self.end_bundle_if_many()
    }

    fn wait(&mut self, step: Step) {
        self.waiting_bytes += size_of::<Step>();
        self.waiting_bytes += match &step {
            Step::Leave => 0,
            Step::Enter(name, attributes, _) => name.len() + weight(attributes),
            Step::Add(node, _) | Step::AddBundled(node, _) => {
                node.name.len()
                    + weight(&node.attributes)
                    + match &node.kind {
                        NodeKind::File(_) => limits::EXTENTS_INLINE * size_of::<super::Extent>(),
                        NodeKind::Symlink { target: text } | NodeKind::HardLink { path: text } => {
                            text.len()
                        }
                        NodeKind::Directory(_)
                        | NodeKind::Fifo
                        | NodeKind::Socket
                        | NodeKind::CharDevice { .. }
                        | NodeKind::BlockDevice { .. } => 0,
                    }
            }
        };
        self.waiting.push(step);
    }

    fn end_bundle_if_many(&mut self) -> Result<()> {
        let many = self.waiting.len() >= limits::WAITING_ENTRIES
            || self.waiting_bytes >= limits::WAITING_BYTES;
        if many { self.end_bundle() } else { Ok(()) }
    }

    /// Stores the bundle, and does what waited for it.
    fn end_bundle(&mut self) -> Result<()> {
        if self.bundle.is_empty() {
            return Ok(());
        }
        let next = self.sink.buffer();
        let bytes = std::mem::replace(&mut self.bundle, next);
        let id = self.sink.put(Class::Data, bytes)?;
        self.waiting_bytes = 0;
        let mut waiting = std::mem::take(&mut self.waiting);
        for mut step in waiting.drain(..) {
            if let Step::AddBundled(TreeNode { kind, .. }, _) = &mut step
                && let NodeKind::File(TreeFile { content, .. }) = kind
                && let Content::Extents(extents) = content
            {
                for extent in extents {
                    extent.chunk = id;
                }
            }
            self.apply(step)?;
        }
        self.waiting = waiting;
        Ok(())
    }

    fn apply(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Enter(name, attributes, witness) => {
                self.open.push(OpenDirectory {
                    name,
                    attributes,
                    witness,
                    nodes: Levels::new(Role::Directory),
                });
                Ok(())
            }
            Step::Add(node, witness) | Step::AddBundled(node, witness) => {
                self.place(&node, witness, &Place::Nowhere)
            }
            Step::Leave => {
                let Some(directory) = self.open.pop() else {
                    unreachable!("a directory is left once for each time it was entered");
                };
                let (place, below) = finish(directory.nodes, &mut self.sink)?;
                let node = TreeNode {
                    name: directory.name,
                    attributes: directory.attributes,
                    kind: NodeKind::Directory(TreeDirectory::new(place)),
                };
                self.place(&node, directory.witness, &below)
            }
        }
    }

    /// Adds an entry to the innermost directory, or makes the tree's first node of it.
    fn place(&mut self, node: &TreeNode, witness: Option<Witness>, below: &Place) -> Result<()> {
        let (bytes, witnesses) = &mut self.space;
        bytes.clear();
        witnesses.clear();
        entry::encode(node, bytes);
        format::encode(witness.as_ref(), below, witnesses);
        let item = Item {
            bytes,
            key: 1 + node.name.len(),
            number: cut::fold(&node.name),
            witness: (witnesses, witness.is_some() || *below != Place::Nowhere),
        };
        if let Some(directory) = self.open.last_mut() {
            directory.nodes.push(&mut self.sink, &item)?;
            if self.sink.held > limits::HELD_BYTES {
                // Nothing that counts is left, so the next time is as far away.
                let mut open = self.open.iter_mut();
                open.try_for_each(|directory| directory.nodes.cut(&mut self.sink))?;
            }
            return Ok(());
        }
        let mut nodes = Levels::new(Role::Directory);
        nodes.push(&mut self.sink, &item)?;
        if let Finished::Stored(root, witness) = nodes.finish(&mut self.sink, 0)? {
            let witness = match witness {
                Place::Node(id) => Some(id),
                Place::Nowhere | Place::Inline(_) => None,
            };
            self.root = Some((root, witness));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<TreeRecord> {
        self.check_idle()?;
        match self.root {
            Some((root, witness)) => Ok(TreeRecord {
                root,
                witness,
                entries: self.entries,
                size: self.size,
                id_map: None,
                left_out: 0,
            }),
            None => Err(self.invalid(b"", "was not left")),
        }
    }
}

fn file_node(content: Content, links: u32, size: u64) -> NodeKind {
    NodeKind::File(TreeFile {
        size,
        links,
        content,
    })
}

fn weight(attributes: &Attributes) -> usize {
    let each = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len() + 64;
    attributes.xattrs.iter().map(each).sum()
}

/// Where a directory's node and witness node lie. The witnesses lie in the entry where the node
/// does, and are never longer.
fn finish(nodes: Levels, sink: &mut Sink<'_>) -> Result<(Place, Place)> {
    let inline = |body: Vec<u8>| Place::Inline(body.into());
    Ok(match nodes.finish(sink, limits::TREE_INLINE_MAX)? {
        Finished::Nothing => (Place::Nowhere, Place::Nowhere),
        Finished::Small(node, witness) => (inline(node), witness.map_or(Place::Nowhere, inline)),
        Finished::Stored(id, witness) => (Place::Node(id), witness),
    })
}
