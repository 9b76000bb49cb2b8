//! The walk over a container's tree, step by step into the repository.

use snapkeep_api::tree::{
    Content, Entry, EntryKind, Judgement, Name, ProblemKind, Step, Timestamp, Told, TreePath,
    TreeSource, Witness,
};
use snapkeep_api::{Error, ErrorKind, Result};
use snapkeep_repo::{NodeKind, TreeNode, TreeWriter, Witnessed, limits};

use super::audit::{Audit, Verdict};
use super::base::{Base, is_directory};
use super::convert::{to_attributes, to_kind, to_time, to_witness};
use super::problems::{Problems, shown_path};
use super::progress::TreeProgress;
use crate::error;
use crate::limits::CONTENT_BYTES;
use crate::pace::Pace;
use crate::provider::Shared;

/// A walk that is followed.
pub(crate) struct Pull<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) pace: &'a Pace,
    pub(crate) base: Base<'a>,
    pub(crate) problems: Problems,
    pub(crate) progress: TreeProgress,
    /// The folder that the walk is in, or the entry that it is at.
    pub(crate) path: TreePath,
    /// How many folders were entered and not left.
    depth: usize,
    /// How many of them are deeper than an archive can have them.
    skipped: usize,
    buffer: Vec<u8>,
}

/// An error of the pull; a plain one of the repository is about storing the tree.
pub(crate) struct Failed(pub(crate) Error);

impl From<snapkeep_repo::Error> for Failed {
    fn from(error: snapkeep_repo::Error) -> Self {
        Self(store(error))
    }
}

fn store(error: snapkeep_repo::Error) -> Error {
    error::repository("cannot store the file tree", error)
}

fn protocol(path: &TreePath, why: &str) -> Error {
    let what = format!("the walk breaks its rules at {}: {why}", shown_path(path));
    Error::new(ErrorKind::Protocol, what)
}

impl<'a> Pull<'a> {
    pub(crate) fn new(shared: &'a Shared, pace: &'a Pace, base: Base<'a>) -> Self {
        Self {
            shared,
            pace,
            base,
            problems: Problems::default(),
            progress: TreeProgress::new(&*shared.clock),
            path: TreePath::root(),
            depth: 0,
            skipped: 0,
            buffer: vec![0; CONTENT_BYTES],
        }
    }

    /// The walk is followed once more before the archive is made: what is wrong is told then.
    pub(crate) fn ahead(mut self) -> Self {
        self.problems = Problems::untold();
        self
    }

    /// Follows the walk to its end.
    pub(crate) fn run(
        &mut self,
        source: &mut dyn TreeSource,
        tree: &mut TreeWriter<'_>,
    ) -> Result<()> {
        while let Some(step) = source.next(&mut self.base)? {
            self.shared.cancel.check()?;
            match step {
                Step::Enter(told) => self.enter(told, tree)?,
                Step::Leave => self.leave(tree)?,
                Step::Entry(told) => {
                    let name = told.name.clone();
                    let name = name.ok_or_else(|| protocol(&self.path, "an entry has no name"))?;
                    if self.skipped == 0 {
                        self.path.push(&name);
                        self.entry(&name, told, source, tree)?;
                        self.path.pop();
                    }
                }
                Step::Problem(problem) => {
                    let path = match &problem.name {
                        None => self.path.clone(),
                        Some(name) => self.path.join(name),
                    };
                    let log = &*self.shared.log;
                    self.problems.add(log, problem.kind, &path, &problem.why);
                }
            }
            // Entries without content are written out too.
            self.pace.read(self.shared, 0);
            self.progress.counts = tree.counts();
            self.progress.tell(&*self.shared.clock, &*self.shared.log);
        }
        if self.depth > 0 {
            return Err(protocol(&self.path, "it ends before its root is left"));
        }
        Ok(())
    }

    fn enter(&mut self, told: Told, tree: &mut TreeWriter<'_>) -> Result<()> {
        let name = told.name.as_ref();
        if name.is_none() != (self.depth == 0) {
            return Err(protocol(&self.path, "the root alone has no name"));
        }
        if let Some(name) = name {
            self.path.push(name);
        }
        self.depth += 1;
        if self.skipped > 0 || self.depth - 1 > limits::TREE_DEPTH_MAX {
            if self.skipped == 0 {
                self.left_out(TOO_DEEP);
            }
            self.skipped += 1;
            self.base.enter_nothing();
            return Ok(());
        }
        self.progress.entries += 1;
        let found = match (self.base.enter(name), &told.entry) {
            (Err(error), Some(_)) => {
                self.base.distrust(&error);
                None
            }
            (found, _) => found?,
        };
        let (attributes, witness) = match told.entry {
            Some(Entry {
                kind: EntryKind::Directory,
                attributes,
            }) => {
                let witness = self.settled(attributes.mtime, told.witness);
                (to_attributes(attributes), witness)
            }
            Some(_) => return Err(protocol(&self.path, "what is no folder is entered")),
            None => {
                let found = found.filter(is_directory);
                let found = found.ok_or_else(|| protocol(&self.path, UNKNOWN))?;
                let witness = same_witness(&found, told.witness);
                (found.node.attributes, witness)
            }
        };
        let name = told.name.as_ref().map_or(&b""[..], Name::as_bytes);
        tree.enter(name, &attributes, witness).map_err(store)
    }

    fn leave(&mut self, tree: &mut TreeWriter<'_>) -> Result<()> {
        if self.depth == 0 {
            return Err(protocol(
                &self.path,
                "a folder is left that was not entered",
            ));
        }
        self.depth -= 1;
        self.path.pop();
        self.base.leave();
        if self.skipped > 0 {
            self.skipped -= 1;
            return Ok(());
        }
        tree.leave().map_err(store)
    }

    fn entry(
        &mut self,
        name: &Name,
        told: Told,
        source: &mut dyn TreeSource,
        tree: &mut TreeWriter<'_>,
    ) -> Result<()> {
        if self.depth > limits::TREE_DEPTH_MAX {
            self.left_out(TOO_DEEP);
            return Ok(());
        }
        let Some(entry) = told.entry else {
            let found = self.base.told(name)?;
            let found = found.filter(|found| matches!(found.node.kind, NodeKind::File(_)));
            let found = found.ok_or_else(|| protocol(&self.path, UNKNOWN))?;
            let witness = same_witness(&found, told.witness);
            tree.reuse(&found.node, witness).map_err(store)?;
            self.progress.entries += 1;
            self.progress.files_known += 1;
            return Ok(());
        };
        match &entry.kind {
            EntryKind::Directory => {
                return Err(protocol(&self.path, "a folder is told without entering it"));
            }
            EntryKind::File { size, links } => {
                let file = File {
                    size: *size,
                    links: *links,
                    judged: told.judged,
                    witness: told.witness,
                };
                return self.file(name, &file, entry, source, tree);
            }
            EntryKind::HardLink { to } if is_too_deep(to) => {
                self.left_out("the first of its names is deeper than an archive can have it");
                return Ok(());
            }
            EntryKind::HardLink { .. }
            | EntryKind::Symlink { .. }
            | EntryKind::Fifo
            | EntryKind::Socket
            | EntryKind::CharDevice(_)
            | EntryKind::BlockDevice(_) => {}
        }
        let witness = self.settled(entry.attributes.mtime, told.witness);
        let Some(kind) = to_kind(entry.kind) else {
            return Ok(());
        };
        let node = TreeNode {
            name: name.as_bytes().to_vec(),
            attributes: to_attributes(entry.attributes),
            kind,
        };
        tree.add(node, witness).map_err(store)?;
        self.progress.entries += 1;
        Ok(())
    }

    /// Reads a file.
    fn file(
        &mut self,
        name: &Name,
        file: &File,
        entry: Entry,
        source: &mut dyn TreeSource,
        tree: &mut TreeWriter<'_>,
    ) -> Result<()> {
        let mtime = entry.attributes.mtime;
        let attributes = to_attributes(entry.attributes);
        let mut audit = self.audit(name, file, mtime);
        tree.begin_file(name.as_bytes(), &attributes, file.links)
            .map_err(store)?;
        let mut size = 0u64;
        let changed = loop {
            self.shared.cancel.check()?;
            let told = match source.read(&mut self.buffer)? {
                Content::Data(count) => {
                    let data = (self.buffer.get(..count)).filter(|data| !data.is_empty());
                    let data = data.ok_or_else(|| protocol(&self.path, "a piece has no length"))?;
                    self.pace.read(self.shared, count as u64);
                    tree.data(data).map_err(store)?;
                    if let Some(audit) = &mut audit {
                        audit.data(data);
                    }
                    self.progress.read += count as u64;
                    self.told_bytes(tree);
                    count as u64
                }
                Content::Hole(length) => {
                    tree.hole(length).map_err(store)?;
                    if let Some(audit) = &mut audit {
                        audit.hole(length);
                    }
                    length
                }
                Content::End { changed } => break changed,
                Content::Lost(why) => {
                    tree.abandon_file().map_err(store)?;
                    self.left_out(&why);
                    return Ok(());
                }
            };
            size = size.saturating_add(told);
            if size > file.size {
                return Err(protocol(
                    &self.path,
                    "a file is longer than it was said to be",
                ));
            }
        };
        let changed = changed.or_else(|| {
            (size < file.size).then(|| "it is shorter than it was said to be".to_owned())
        });
        let mut witness = self.settled(mtime, file.witness);
        if let Some(why) = changed {
            witness = None;
            let log = &*self.shared.log;
            (self.problems).add(log, ProblemKind::Warning, &self.path, &why);
        } else if let Some(audit) = audit {
            match audit.end() {
                Verdict::Same => {}
                Verdict::Differs(offset) => {
                    witness = None;
                    let log = &*self.shared.log;
                    self.problems.add_lie(log, &self.path, offset);
                    self.base.disbelieve();
                }
                Verdict::Unreadable(error) => {
                    let what = format!("the content of {} there", shown_path(&self.path));
                    self.base.distrust(&error::repository(what, error));
                }
            }
        }
        tree.end_file(witness).map_err(store)?;
        self.progress.entries += 1;
        self.progress.files_read += 1;
        Ok(())
    }

    /// The comparison with the base, if the file is still what the base has of it.
    fn audit(&mut self, name: &Name, file: &File, mtime: Timestamp) -> Option<Audit> {
        if file.judged != Judgement::Audit {
            return None;
        }
        let found = match self.base.told(name) {
            Ok(found) => found?,
            Err(error) => {
                self.base.distrust(&error);
                return None;
            }
        };
        let witness = file.witness.map(to_witness);
        let same = found.node.attributes.mtime == to_time(mtime)
            && witness.is_some_and(|witness| found.witness == Some(witness));
        let NodeKind::File(base) = found.node.kind else {
            return None;
        };
        let same = same && base.size == file.size;
        same.then(|| self.base.reader())?
            .map(|reader| Audit::new(reader, base))
    }

    /// Tells how many bytes were read.
    fn told_bytes(&mut self, tree: &TreeWriter<'_>) {
        self.progress.counts = tree.counts();
        self.progress.tell(&*self.shared.clock, &*self.shared.log);
        if let Some(observer) = &self.shared.observer {
            observer(self.progress.read);
        }
    }

    fn left_out(&mut self, why: &str) {
        let log = &*self.shared.log;
        (self.problems).add(log, ProblemKind::LeftOut, &self.path, why);
    }

    fn settled(
        &self,
        mtime: Timestamp,
        witness: Option<Witness>,
    ) -> Option<snapkeep_repo::Witness> {
        self.base.settled(mtime, witness).map(to_witness)
    }
}

/// What is told of a file that is read.
struct File {
    size: u64,
    links: u32,
    judged: Judgement,
    witness: Option<Witness>,
}

const UNKNOWN: &str = "something is told as known that is not";

const TOO_DEEP: &str = "it is deeper than an archive can have it";

/// The witness of what is known, unless it is not to be relied on any more.
fn same_witness(found: &Witnessed, told: Option<Witness>) -> Option<snapkeep_repo::Witness> {
    let told = told.map(to_witness);
    found.witness.filter(|witness| told == Some(*witness))
}

/// Whether something of this path is not in an archive.
fn is_too_deep(path: &TreePath) -> bool {
    path.as_bytes().len() > limits::TREE_PATH_MAX || path.names().count() > limits::TREE_DEPTH_MAX
}
