//! What the tests need.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::Path;
use std::time::Duration;

use rustix::process::geteuid;
use snapkeep_api::Result;
use snapkeep_api::tree::{
    Content, Entry, EntryKind, Found, Judgement, KnownTree, Name, ProblemKind, Step, TreePath,
    TreeSource,
};
use snapkeep_walk::userns::Command;
use snapkeep_walk::{Options, Pull, Request};

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) entries: BTreeMap<String, (Entry, Vec<u8>)>,
    /// Those that may be recognised next time.
    pub(crate) witnessed: BTreeSet<String>,
    pub(crate) problems: Vec<(String, ProblemKind, String)>,
}

struct Nothing;

impl KnownTree for Nothing {
    fn judge(&mut self, _: &Name, _: &Found) -> Result<Judgement> {
        Ok(Judgement::Read)
    }
}

impl Tree {
    pub(crate) fn entry(&self, path: &str) -> &Entry {
        &self.entries[path].0
    }

    pub(crate) fn problem(&self, path: &str) -> Option<(ProblemKind, &str)> {
        let found = self.problems.iter().find(|(at, ..)| at == path);
        found.map(|(_, kind, why)| (*kind, why.as_str()))
    }

    pub(crate) fn pull(pull: &mut Pull) -> Result<Self> {
        let mut tree = Self::default();
        let mut path = TreePath::root();
        while let Some(step) = pull.next(&mut Nothing)? {
            match step {
                Step::Enter(told) => {
                    if let Some(name) = &told.name {
                        path.push(name);
                    }
                    if told.witness.is_some() {
                        tree.witnessed.insert(path.to_string());
                    }
                    let entry = told.entry.unwrap();
                    tree.entries.insert(path.to_string(), (entry, Vec::new()));
                }
                Step::Leave => path.pop(),
                Step::Entry(told) => {
                    let at = path.join(told.name.as_ref().unwrap());
                    if told.witness.is_some() {
                        tree.witnessed.insert(at.to_string());
                    }
                    let entry = told.entry.unwrap();
                    let has_content = matches!(entry.kind, EntryKind::File { .. });
                    let content = if has_content {
                        content(pull)?
                    } else {
                        Vec::new()
                    };
                    tree.entries.insert(at.to_string(), (entry, content));
                }
                Step::Problem(problem) => {
                    let at = problem.name.map_or(path.clone(), |name| path.join(&name));
                    tree.problems
                        .push((at.to_string(), problem.kind, problem.why));
                }
            }
        }
        Ok(tree)
    }
}

fn content(pull: &mut Pull) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 100_000];
    loop {
        match pull.read(&mut buffer)? {
            Content::Data(length) => all.extend(&buffer[..length]),
            Content::Hole(length) => all.resize(all.len() + usize::try_from(length).unwrap(), 0),
            Content::End { .. } | Content::Lost(_) => return Ok(all),
        }
    }
}

/// Starts this program as a walker in a folder, for a container with the usual map.
pub(crate) fn command(directory: &Path) -> Command {
    Command {
        program: env::current_exe().unwrap(),
        arguments: vec!["walker".into()],
        directory: Some(directory.to_owned()),
        id_map: Some("0:100000:65536".parse().unwrap()),
    }
}

/// All of the folder where the walker was started.
pub(crate) fn request() -> Request {
    Request {
        directory: ".".into(),
        sources: vec![b".".to_vec()],
        exclude: Vec::new(),
        ask: true,
    }
}

pub(crate) fn patient() -> Options {
    Options {
        hang_limit: Duration::from_secs(120),
        ..Options::default()
    }
}

pub(crate) fn walk(command: &Command) -> Tree {
    let walker = command
        .spawn()
        .unwrap_or_else(|error| panic!("{}", error.chain()));
    let mut pull = Pull::of(walker, &request(), patient()).unwrap();
    Tree::pull(&mut pull).unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Whether this may write maps; says so if not.
pub(crate) fn is_root(test: &str) -> bool {
    if geteuid().is_root() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "{test}: needs root");
    eprintln!("SKIP: {test}: needs root");
    false
}
