//! A walk over a tree in memory, as a walker makes it, with the mishaps that its entries name.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::tree::{MemoryNode, Mishap};
use crate::tree::{
    Content, EntryKind, Found, FoundKind, Judgement, KnownTree, Name, Problem, ProblemKind, Step,
    Told, TreePath, TreeSource,
};
use crate::{Error, ErrorKind, Result};

/// The longest hole that is told at once.
const HOLE: u64 = 1 << 40;
/// The most data that is told at once: a source need not fill the buffer.
const PIECE: usize = 300_001;

/// A walk over a [`MemoryTree`](super::tree::MemoryTree).
#[derive(Debug)]
pub struct MemorySource {
    /// The root, until it is told.
    root: Option<Arc<MemoryNode>>,
    open: Vec<Folder>,
    path: TreePath,
    file: Option<Reading>,
    problem: Option<Problem>,
    ahead: usize,
    read: u64,
    judged: BTreeMap<TreePath, Judgement>,
}

/// A folder that was entered.
#[derive(Debug)]
struct Folder {
    children: Vec<(Name, Arc<MemoryNode>)>,
    /// How many of them were told.
    told: usize,
    /// What was answered about those that come next.
    answers: VecDeque<Judgement>,
}

/// A file that is being read.
#[derive(Debug)]
struct Reading {
    node: Arc<MemoryNode>,
    offset: u64,
}

impl MemorySource {
    pub(super) fn new(root: Arc<MemoryNode>) -> Self {
        Self {
            root: Some(root),
            open: Vec::new(),
            path: TreePath::root(),
            file: None,
            problem: None,
            ahead: 3,
            read: 0,
            judged: BTreeMap::new(),
        }
    }

    /// Asks about this entry and so many more of its folder before it is told; 3 if it is not said.
    #[must_use]
    pub fn ahead(self, ahead: usize) -> Self {
        Self { ahead, ..self }
    }

    /// What was answered about the entry at this path, if it was asked about.
    pub fn judged(&self, path: impl AsRef<[u8]>) -> Option<Judgement> {
        let path = TreePath::typed(path.as_ref()).ok()?;
        self.judged.get(&path).copied()
    }

    /// Bytes of data that were read, without holes.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    fn enter(&mut self, node: &MemoryNode) {
        let children = node.children.iter();
        self.open.push(Folder {
            children: children.map(|(n, c)| (n.clone(), Arc::clone(c))).collect(),
            told: 0,
            answers: VecDeque::new(),
        });
    }

    /// Asks about the next entries, as far ahead as it should.
    fn ask(&mut self, known: &mut dyn KnownTree) -> Result<()> {
        let Some(folder) = self.open.last_mut() else {
            return Ok(());
        };
        let asked = folder.told + folder.answers.len();
        let end = folder.told.saturating_add(self.ahead).saturating_add(1);
        for (name, node) in folder.children.iter().take(end).skip(asked) {
            let judged = match found(node) {
                None => Judgement::Read,
                Some(found) => {
                    let judged = known.judge(name, &found)?;
                    self.judged.insert(self.path.join(name), judged);
                    judged
                }
            };
            folder.answers.push_back(judged);
        }
        Ok(())
    }

    fn tell(&mut self, name: Option<&Name>, node: &Arc<MemoryNode>, judged: Judgement) -> Step {
        let told = Told {
            name: name.cloned(),
            judged,
            entry: (judged != Judgement::Known).then(|| node.entry.clone()),
            witness: node.witness,
        };
        if node.entry.kind.is_directory() {
            if let Some(name) = name {
                self.path.push(name);
            }
            self.enter(node);
            return Step::Enter(told);
        }
        if judged != Judgement::Known && matches!(node.entry.kind, EntryKind::File { .. }) {
            let node = Arc::clone(node);
            self.file = Some(Reading { node, offset: 0 });
        }
        Step::Entry(told)
    }
}

impl TreeSource for MemorySource {
    fn next(&mut self, known: &mut dyn KnownTree) -> Result<Option<Step>> {
        self.file = None;
        if let Some(root) = self.root.take() {
            return Ok(Some(self.tell(None, &root, Judgement::Read)));
        }
        if let Some(problem) = self.problem.take() {
            return Ok(Some(Step::Problem(problem)));
        }
        loop {
            self.ask(known)?;
            let Some(folder) = self.open.last_mut() else {
                return Ok(None);
            };
            let Some((name, node)) = folder.children.get(folder.told).cloned() else {
                self.open.pop();
                self.path.pop();
                return Ok(Some(Step::Leave));
            };
            folder.told += 1;
            let judged = folder.answers.pop_front().unwrap_or(Judgement::Read);
            let problem = |kind, why: &str| Problem {
                name: Some(name.clone()),
                kind,
                why: why.to_owned(),
            };
            match &node.mishap {
                Some(Mishap::VanishesUnseen) => continue,
                Some(Mishap::Vanishes) => {
                    let problem = problem(ProblemKind::Vanished, "it is gone");
                    return Ok(Some(Step::Problem(problem)));
                }
                Some(Mishap::LeftOut) => {
                    let problem = problem(ProblemKind::LeftOut, "permission denied");
                    return Ok(Some(Step::Problem(problem)));
                }
                Some(Mishap::Fails(kind)) => return Err(failed(*kind)),
                Some(Mishap::Warning) => {
                    self.problem = Some(problem(ProblemKind::Warning, "it is odd"));
                }
                Some(
                    Mishap::Changes | Mishap::Shrinks(_) | Mishap::Lost(_) | Mishap::FailsAt(..),
                )
                | None => {}
            }
            return Ok(Some(self.tell(Some(&name), &node, judged)));
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Content> {
        let Some(Reading { node, offset }) = &mut self.file else {
            let what = "content is read of what has none";
            return Err(Error::new(ErrorKind::Protocol, what));
        };
        let changed = || Some("it was changed while it was read".to_owned());
        let (end, last) = match node.mishap {
            Some(Mishap::Changes) => (node.size(), Ok(Content::End { changed: changed() })),
            Some(Mishap::Shrinks(end)) => (end, Ok(Content::End { changed: changed() })),
            Some(Mishap::Lost(end)) => (end, Ok(Content::Lost("an input/output error".to_owned()))),
            Some(Mishap::FailsAt(end, kind)) => (end, Err(failed(kind))),
            Some(
                Mishap::Vanishes
                | Mishap::VanishesUnseen
                | Mishap::LeftOut
                | Mishap::Warning
                | Mishap::Fails(_),
            )
            | None => (node.size(), Ok(Content::End { changed: None })),
        };
        if *offset >= end {
            self.file = None;
            return last;
        }
        let mut runs = node.data.iter();
        let run = runs.find(|(start, run)| **start + run.len() as u64 > *offset);
        let next = run.map_or(end, |(start, _)| *start).min(end);
        if next > *offset {
            let hole = (next - *offset).min(HOLE);
            *offset += hole;
            return Ok(Content::Hole(hole));
        }
        let (start, bytes) = run.expect("what is no hole is data");
        let bytes = &bytes[super::index(*offset - start)..];
        let room = buffer.len().min(super::index(end - *offset)).min(PIECE);
        let count = bytes.len().min(room);
        buffer[..count].copy_from_slice(&bytes[..count]);
        *offset += count as u64;
        self.read += count as u64;
        Ok(Content::Data(count))
    }
}

/// What a provider is asked about it with, if it is.
fn found(node: &MemoryNode) -> Option<Found> {
    let kind = match node.entry.kind {
        EntryKind::File { size, .. } => FoundKind::File { size },
        EntryKind::Directory => FoundKind::Directory,
        EntryKind::Symlink { .. }
        | EntryKind::HardLink { .. }
        | EntryKind::Fifo
        | EntryKind::Socket
        | EntryKind::CharDevice(_)
        | EntryKind::BlockDevice(_) => return None,
    };
    Some(Found {
        kind,
        mtime: node.entry.attributes.mtime,
        witness: node.witness?,
    })
}

fn failed(kind: ErrorKind) -> Error {
    Error::new(kind, "the walk failed, as it was told to")
}
