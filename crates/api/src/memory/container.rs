//! Containers of the provider in memory: every archive has its whole tree. A file is believed to
//! be unchanged if its size, times and inode are those of the guest's newest archive.

use std::sync::Arc;

use super::tree::{MemoryNode, MemoryTree};
use super::{Configs, Guest, MemoryProvider, Stored};
use crate::tree::{
    Attributes, Content, Entry, EntryKind, Found, FoundKind, Judgement, KnownTree, Name,
    ProblemKind, Step, Told, TreeReader, TreeSource, Witness,
};
use crate::{
    ArchiveName, BackupStats, ContainerBackup, ContainerRestore, ContainerSource, Error, ErrorKind,
    GuestId, Outcome, Result, UnixTime,
};

/// Trees with more bytes of data and entries than this are refused: they are held in memory whole.
const TREE_BYTES_MAX: u64 = 1 << 30;
/// An entry counts for so many bytes, and its attributes.
const ENTRY_BYTES: u64 = 512;
/// Content is read so many bytes at a time.
const READ_SIZE: usize = 256 << 10;

/// A container's backup.
pub(super) struct Running {
    pub(super) provider: MemoryProvider,
    pub(super) guest: GuestId,
    pub(super) name: ArchiveName,
    pub(super) start_time: UnixTime,
}

/// A container's restore.
pub(super) struct Restore(pub(super) MemoryTree);

impl ContainerBackup for Running {
    fn archive_name(&self) -> &ArchiveName {
        &self.name
    }

    fn run(&mut self, container: ContainerSource<'_>) -> Result<BackupStats> {
        let base = {
            let shelf = self.provider.shelf();
            if shelf.archives.contains_key(&self.name) {
                return Err(Error::new(ErrorKind::Protocol, "a backup is run once"));
            }
            let mine = shelf.archives.values().filter(|a| a.guest == self.guest);
            let trees = mine.filter_map(|archive| match &archive.data {
                Guest::Container(tree, id_map) => Some((archive.number, tree, id_map)),
                Guest::Vm(_) => None,
            });
            let newest = trees.max_by_key(|(number, ..)| *number);
            // In another user namespace the same files have other owners.
            let newest = newest.filter(|(.., id_map)| id_map.as_ref() == container.id_map);
            newest.map(|(_, tree, _)| Arc::clone(tree.shared_root()))
        };
        let mut pull = Pull {
            known: Known {
                root: base,
                open: Vec::new(),
                audit: self.provider.audit,
                unchanged: 0,
            },
            open: Vec::new(),
            start: self.start_time,
            held: 0,
            stats: BackupStats::default(),
        };
        let tree = MemoryTree::with_root(Arc::new(pull.tree(container.tree)?));
        let mut stats = pull.stats;
        stats.archive_size = tree.totals().bytes;
        (stats.guest_size, stats.stored) = (stats.archive_size, stats.archive_size);
        stats.new = stats.read;
        let mut shelf = self.provider.shelf();
        let archive = Stored {
            guest: self.guest.clone(),
            configs: Configs::new(container.guest_config, container.firewall_config),
            data: Guest::Container(tree, container.id_map.cloned()),
            number: shelf.archives.len() as u64,
        };
        shelf.archives.insert(self.name.clone(), archive);
        Ok(stats)
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}

/// What is known of a guest's tree.
struct Known {
    root: Option<Arc<MemoryNode>>,
    /// The base's folders on the way to where the walk is, where it has them.
    open: Vec<Option<Arc<MemoryNode>>>,
    audit: Option<u64>,
    unchanged: u64,
}

impl Known {
    fn child(&self, name: &Name) -> Option<&Arc<MemoryNode>> {
        self.open.last()?.as_ref()?.children.get(name)
    }

    /// Follows the walk into a folder.
    fn enter(&mut self, name: Option<&Name>) {
        let folder = match name {
            None => self.root.clone(),
            Some(name) => self.child(name).cloned(),
        };
        self.open.push(folder);
    }
}

impl KnownTree for Known {
    fn judge(&mut self, name: &Name, found: &Found) -> Result<Judgement> {
        let same = self.child(name).is_some_and(|base| {
            let kind = match (&base.entry.kind, found.kind) {
                (EntryKind::File { size, .. }, FoundKind::File { size: now }) => *size == now,
                (EntryKind::Directory, FoundKind::Directory) => true,
                _ => false,
            };
            let mtime = base.entry.attributes.mtime == found.mtime;
            kind && mtime && base.witness == Some(found.witness)
        });
        if !same {
            return Ok(Judgement::Read);
        }
        if found.kind == FoundKind::Directory {
            return Ok(Judgement::Known);
        }
        self.unchanged += 1;
        let audited = (self.audit).is_some_and(|one_in| self.unchanged.is_multiple_of(one_in));
        Ok(if audited {
            Judgement::Audit
        } else {
            Judgement::Known
        })
    }
}

/// A walk that is being followed.
struct Pull {
    known: Known,
    /// The folders on the way to where the walk is; the root has no name.
    open: Vec<(Option<Name>, MemoryNode)>,
    start: UnixTime,
    held: u64,
    stats: BackupStats,
}

impl Pull {
    /// Follows the walk to its end; the root.
    fn tree(&mut self, source: &mut dyn TreeSource) -> Result<MemoryNode> {
        let mut root = None;
        while let Some(step) = source.next(&mut self.known)? {
            match step {
                Step::Enter(told) => {
                    if told.name.is_none() != (self.open.is_empty() && root.is_none()) {
                        return Err(protocol("the root is told first, and once"));
                    }
                    let (name, folder) = self.node(told)?;
                    self.known.enter(name.as_ref());
                    self.open.push((name, folder));
                }
                Step::Leave => {
                    self.known.open.pop();
                    match self.open.pop() {
                        Some((Some(name), folder)) => self.add(name, folder)?,
                        Some((None, folder)) => root = Some(folder),
                        None => return Err(protocol("a folder is left that was not entered")),
                    }
                }
                Step::Entry(told) => self.entry(told, source)?,
                Step::Problem(problem) => {
                    self.stats.left_out += u64::from(problem.kind == ProblemKind::LeftOut);
                }
            }
        }
        root.ok_or_else(|| protocol("the walk ended before its root was left"))
    }

    fn entry(&mut self, told: Told, source: &mut dyn TreeSource) -> Result<()> {
        let read = told.entry.is_some();
        let (name, mut node) = self.node(told)?;
        let name = name.ok_or_else(|| protocol("an entry has no name"))?;
        if read
            && matches!(node.entry.kind, EntryKind::File { .. })
            && !self.content(&mut node, source)?
        {
            self.stats.left_out += 1;
            return Ok(());
        }
        self.add(name, node)
    }

    /// What the archive has of an entry, without its content or what is in it.
    fn node(&mut self, told: Told) -> Result<(Option<Name>, MemoryNode)> {
        let base = told.name.as_ref().and_then(|name| self.known.child(name));
        let node = match (told.entry, base) {
            (Some(entry), _) => {
                let witness = told.witness.filter(|w| settled(&entry, w, self.start));
                MemoryNode::new(entry, witness)
            }
            (None, Some(base)) => {
                let mut node = (**base).clone();
                node.children.clear();
                node
            }
            (None, None) => return Err(protocol("an entry is told as known that is not")),
        };
        self.hold(ENTRY_BYTES + bytes(&node.entry.attributes))?;
        Ok((told.name, node))
    }

    /// Reads a file; whether all of it is there.
    fn content(&mut self, node: &mut MemoryNode, source: &mut dyn TreeSource) -> Result<bool> {
        let mut buffer = vec![0; READ_SIZE];
        let mut offset = 0u64;
        loop {
            match source.read(&mut buffer)? {
                Content::Data(count) => {
                    let data = buffer.get(..count);
                    let data = data.ok_or_else(|| protocol("more data than there is room"))?;
                    self.hold(count as u64)?;
                    self.stats.read += count as u64;
                    node.write(offset, data);
                    offset += count as u64;
                }
                Content::Hole(length) => offset = offset.saturating_add(length),
                Content::End { changed } => {
                    if changed.is_some() || offset != node.size() {
                        node.witness = None;
                    }
                    node.truncate(offset);
                    return Ok(true);
                }
                Content::Lost(_) => return Ok(false),
            }
            if offset > node.size() {
                return Err(protocol("a file is longer than its entry says"));
            }
        }
    }

    fn add(&mut self, name: Name, node: MemoryNode) -> Result<()> {
        let outside = || protocol("an entry is in no folder");
        let (_, folder) = self.open.last_mut().ok_or_else(outside)?;
        if (folder.children.keys().next_back()).is_some_and(|last| *last >= name) {
            return Err(protocol("a folder's entries are not in order"));
        }
        folder.children.insert(name, Arc::new(node));
        Ok(())
    }

    fn hold(&mut self, bytes: u64) -> Result<()> {
        self.held = self.held.saturating_add(bytes);
        if self.held > TREE_BYTES_MAX {
            let what = "the tree has too many bytes to be held in memory";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(())
    }
}

/// Whether nothing about the entry can have changed after it was read without its times showing
/// it: they are older than the backup, by more than any clock of files is coarse.
fn settled(entry: &Entry, witness: &Witness, start: UnixTime) -> bool {
    let newest = entry.attributes.mtime.max(witness.ctime);
    newest.seconds < start.0.saturating_sub(1)
}

fn bytes(attributes: &Attributes) -> u64 {
    let xattrs = attributes.xattrs.iter();
    xattrs.map(|x| (x.name.len() + x.value.len()) as u64).sum()
}

fn protocol(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, what)
}

impl ContainerRestore for Restore {
    fn open_tree(&mut self) -> Result<Box<dyn TreeReader>> {
        Ok(Box::new(self.0.clone()))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
