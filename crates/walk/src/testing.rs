//! What tests of both ends need: a tree pulled from a walker that runs in a thread.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use snapkeep_api::Result;
use snapkeep_api::tree::{
    Content, EntryKind, Found, Judgement, KnownTree, Name, ProblemKind, Step, Told, TreePath,
    TreeSource,
};

use crate::walker::testing::{Moment, walk_as_a_test};
use crate::{Options, Pull, Request};

/// All that was told of a tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) all: BTreeMap<String, Node>,
    /// In the order of telling.
    pub(crate) order: Vec<String>,
    /// The entry, what follows and why.
    pub(crate) problems: Vec<(String, ProblemKind, String)>,
}

/// An entry and its content.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) told: Told,
    pub(crate) content: Vec<u8>,
    /// Bytes of holes in it.
    pub(crate) holes: u64,
    /// As `End` or `Lost` said.
    pub(crate) changed: Option<String>,
    pub(crate) lost: Option<String>,
}

/// Nothing is known.
pub(crate) struct Nothing;

impl KnownTree for Nothing {
    fn judge(&mut self, _: &Name, _: &Found) -> Result<Judgement> {
        Ok(Judgement::Read)
    }
}

/// A path, readable.
pub(crate) fn shown(path: &TreePath) -> String {
    path.to_string()
}

impl Tree {
    pub(crate) fn node(&self, path: &str) -> &Node {
        self.all
            .get(path)
            .unwrap_or_else(|| panic!("{path} is not in {:?}", self.order))
    }

    pub(crate) fn kind(&self, path: &str) -> &EntryKind {
        &self.node(path).told.entry.as_ref().unwrap().kind
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.all.contains_key(path)
    }

    /// The problem at a path.
    pub(crate) fn problem(&self, path: &str) -> (ProblemKind, &str) {
        let found = self.problems.iter().find(|(at, ..)| at == path);
        let (_, kind, why) = found.unwrap_or_else(|| panic!("{path}: {:?}", self.problems));
        (*kind, why)
    }

    /// Takes steps until the end.
    pub(crate) fn pull(pull: &mut Pull, known: &mut dyn KnownTree) -> Result<Self> {
        let mut tree = Self::default();
        let mut path = TreePath::root();
        let mut depth = 0;
        while let Some(step) = pull.next(known)? {
            match step {
                Step::Enter(told) => {
                    if let Some(name) = &told.name {
                        path.push(name);
                    }
                    depth += 1;
                    tree.add(&path, told);
                }
                Step::Leave => {
                    depth -= 1;
                    path.pop();
                }
                Step::Entry(told) => {
                    let at = path.join(told.name.as_ref().unwrap());
                    let has_content = matches!(
                        told.entry.as_ref().map(|entry| &entry.kind),
                        Some(EntryKind::File { .. })
                    );
                    tree.add(&at, told);
                    if has_content {
                        let node = tree.all.get_mut(&shown(&at)).unwrap();
                        node.pull(pull)?;
                    }
                }
                Step::Problem(problem) => {
                    let at = problem.name.map_or(path.clone(), |name| path.join(&name));
                    tree.problems.push((shown(&at), problem.kind, problem.why));
                }
            }
        }
        assert_eq!(depth, 0);
        Ok(tree)
    }

    fn add(&mut self, path: &TreePath, told: Told) {
        let node = Node {
            told,
            content: Vec::new(),
            holes: 0,
            changed: None,
            lost: None,
        };
        self.order.push(shown(path));
        assert!(self.all.insert(shown(path), node).is_none(), "{path} twice");
    }
}

impl Node {
    fn pull(&mut self, pull: &mut Pull) -> Result<()> {
        let mut buffer = vec![0; 100_000];
        loop {
            match pull.read(&mut buffer)? {
                Content::Data(length) => self.content.extend(&buffer[..length]),
                Content::Hole(length) => {
                    self.holes += length;
                    let length = usize::try_from(length).unwrap();
                    self.content.resize(self.content.len() + length, 0);
                }
                Content::End { changed } => {
                    self.changed = changed;
                    return Ok(());
                }
                Content::Lost(why) => {
                    self.lost = Some(why);
                    return Ok(());
                }
            }
        }
    }
}

/// Says what a test lacks, which the continuous integration must not.
pub(crate) fn skip(test: &str, needs: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test}: needs {needs}");
    eprintln!("SKIP: {test}: needs {needs}");
}

/// A request for all of a folder's file system.
pub(crate) fn request(directory: &Path) -> Request {
    Request {
        directory: directory.to_owned(),
        sources: vec![b"./".to_vec()],
        exclude: Vec::new(),
        ask: true,
    }
}

/// Walks and pulls; the closure is called at each moment of the walk.
pub(crate) fn walk_with(
    request: &Request,
    known: &mut dyn KnownTree,
    before: impl FnMut(Moment, &[u8]) + Send,
) -> Result<Tree> {
    let (ours, theirs) = sockets();
    thread::scope(|scope| {
        scope.spawn(move || walk_as_a_test(theirs, before));
        let mut pull = Pull::new(ours, request, patient())?;
        Tree::pull(&mut pull, known)
    })
}

pub(crate) fn walk(request: &Request) -> Tree {
    walk_with(request, &mut Nothing, |_, _| {}).unwrap()
}

pub(crate) fn sockets() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours.into(), theirs.into())
}

/// Long enough for a busy machine, and an end to a test that hangs.
pub(crate) fn patient() -> Options {
    Options {
        hang_limit: Duration::from_secs(120),
        ..Options::default()
    }
}
