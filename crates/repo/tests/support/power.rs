//! Files of a machine that can lose its power: what was not synced may be there afterwards, or
//! not, or in part. An entry of a folder lasts once the folder is synced, bytes once their file is.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use snapkeep_repo::{Entry, Files};

/// What becomes of the calls that change or sync something, numbered from zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    /// All succeed.
    Never,
    /// This one and whatever comes later has no effect.
    At(u64),
    /// Only this one fails. If it was to sync bytes, they are never durable: a kernel that could
    /// not write a page forgets that it is unwritten.
    Failing(u64),
}

/// As if the program did without a step that it must not do without.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Without {
    Nothing,
    /// No folder is ever synced.
    FolderSyncs,
    /// No file is ever synced.
    FileSyncs,
    /// A folder that is there already is taken for durable.
    SyncsOfOthersFolders,
    /// A pack that is there already is taken for durable.
    SyncsOfOthersPacks,
}

#[derive(Clone, Debug)]
enum Change {
    Add(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

impl Change {
    fn apply(&self, entries: &mut BTreeMap<String, usize>) {
        match self {
            Self::Add(name, node) => drop(entries.insert(name.clone(), *node)),
            Self::Remove(name) => drop(entries.remove(name)),
            Self::Rename(from, to, node) => {
                entries.remove(from);
                entries.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Node {
    Folder {
        live: BTreeMap<String, usize>,
        durable: BTreeMap<String, usize>,
        /// What was done to `durable` to make it `live`.
        changes: Vec<Change>,
    },
    File {
        live: Vec<u8>,
        durable: Vec<u8>,
        forgotten: bool,
        /// By the machine's clock.
        modified: i64,
    },
}

const EMPTY_FOLDER: Node = Node::Folder {
    live: BTreeMap::new(),
    durable: BTreeMap::new(),
    changes: Vec::new(),
};

#[derive(Clone, Debug)]
struct Machine {
    /// The first is the folder at the path `/`.
    nodes: Vec<Node>,
    steps: u64,
    stop: Stop,
    without: Without,
    /// Seconds since 1970; it stands still.
    clock: i64,
    /// The folder whose next sync the flawed program would not have asked for.
    unasked: Option<PathBuf>,
}

/// A machine, as one process after another uses it.
#[derive(Debug)]
pub(crate) struct Power(Mutex<Machine>);

impl Power {
    pub(crate) fn new(stop: Stop, without: Without) -> Self {
        Self(Mutex::new(Machine {
            nodes: vec![EMPTY_FOLDER],
            steps: 0,
            stop,
            without,
            clock: 0,
            unasked: None,
        }))
    }

    /// Lets so many seconds pass.
    pub(crate) fn pass(&self, seconds: i64) {
        self.machine().clock += seconds;
    }

    /// How many calls there were that change or sync something.
    pub(crate) fn steps(&self) -> u64 {
        self.machine().steps
    }

    /// The machine goes on without the process that used it: nothing is lost, or made durable.
    pub(crate) fn after_a_kill_until(&self, stop: Stop) -> Self {
        let mut machine = self.machine().clone();
        machine.steps = 0;
        machine.stop = stop;
        machine.unasked = None;
        Self(Mutex::new(machine))
    }

    /// Every different machine that may come up again after a power cut now; if there are more
    /// than `most` ways, nothing survives in the first, everything in the last, and those between
    /// are a spread.
    pub(crate) fn after_power_cuts(&self, most: u64) -> Vec<Self> {
        let machine = self.machine();
        let mut choices = 1u64;
        for node in &machine.nodes {
            let ways = match node {
                Node::Folder { changes, .. } => 1 << changes.len().min(32),
                Node::File { live, durable, .. } if live != durable => 4,
                Node::File { .. } => 1,
            };
            choices = choices.saturating_mul(ways);
        }
        let mut found = BTreeMap::new();
        for number in 0..choices.min(most) {
            let choice = if choices <= most {
                Choice::Digits(number)
            } else if number == 0 || number == most - 1 {
                Choice::All(number != 0)
            } else {
                Choice::Spread(number, 0)
            };
            let survivor = machine.survivor(choice);
            found.entry(survivor.tree()).or_insert(survivor);
        }
        let machines = found.into_values();
        machines.map(|machine| Self(Mutex::new(machine))).collect()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().expect("no test panics with the lock")
    }
}

/// Which of the unsynced survive.
#[derive(Clone, Copy)]
enum Choice {
    Digits(u64),
    All(bool),
    Spread(u64, u64),
}

impl Choice {
    /// One of so many ways: the first is that nothing survived, the last that everything did.
    fn next(&mut self, ways: u64) -> u64 {
        match self {
            Self::Digits(rest) => {
                let way = *rest % ways;
                *rest /= ways;
                way
            }
            Self::All(all) => u64::from(*all) * (ways - 1),
            Self::Spread(number, turn) => {
                *turn += 1;
                let text = [number.to_le_bytes(), turn.to_le_bytes()].concat();
                u64::from(blake3::hash(&text).as_bytes()[0]) % ways
            }
        }
    }
}

impl Machine {
    fn survivor(&self, mut choice: Choice) -> Self {
        let nodes = self.nodes.iter().map(|node| match node {
            Node::Folder {
                durable, changes, ..
            } => {
                let mut entries = durable.clone();
                for change in changes {
                    if choice.next(2) == 1 {
                        change.apply(&mut entries);
                    }
                }
                Node::Folder {
                    live: entries.clone(),
                    durable: entries,
                    changes: Vec::new(),
                }
            }
            Node::File {
                live,
                durable,
                modified,
                ..
            } => {
                let way = if live == durable { 0 } else { choice.next(4) };
                let bytes = match way {
                    0 => durable.clone(),
                    1 => live[..live.len() / 2].to_vec(),
                    2 => vec![0; live.len()],
                    _ => live.clone(),
                };
                Node::File {
                    live: bytes.clone(),
                    durable: bytes,
                    forgotten: false,
                    modified: *modified,
                }
            }
        });
        Self {
            nodes: nodes.collect(),
            steps: 0,
            stop: Stop::Never,
            without: self.without,
            clock: self.clock,
            unasked: None,
        }
    }

    /// Everything that has a path: folders, and files with a hash of what they hold.
    fn tree(&self) -> Vec<(PathBuf, Option<[u8; 32]>)> {
        let mut tree = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), 0)];
        while let Some((path, node)) = todo.pop() {
            match &self.nodes[node] {
                Node::Folder { live, .. } => {
                    todo.extend(live.iter().map(|(name, node)| (path.join(name), *node)));
                    tree.push((path, None));
                }
                Node::File { live, .. } => tree.push((path, Some(*blake3::hash(live).as_bytes()))),
            }
        }
        tree
    }

    /// A call that changes or syncs something; false if it is the one that fails.
    fn step(&mut self) -> io::Result<bool> {
        self.awake()?;
        let number = self.steps;
        self.steps += 1;
        self.awake()?;
        Ok(self.stop != Stop::Failing(number))
    }

    fn awake(&self) -> io::Result<()> {
        match self.stop {
            Stop::At(stop) if self.steps > stop => Err(io::Error::other("the machine stopped")),
            Stop::Never | Stop::At(_) | Stop::Failing(_) => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut found = 0;
        for part in path.iter().skip(1) {
            let Node::Folder { live, .. } = &self.nodes[found] else {
                return Err(ErrorKind::NotADirectory.into());
            };
            let next = part.to_str().and_then(|name| live.get(name));
            found = *next.ok_or(ErrorKind::NotFound)?;
        }
        Ok(found)
    }

    /// Applies a change to the folder above a path.
    fn change(&mut self, path: &Path, change: Change) -> io::Result<()> {
        let folder = self.find(path.parent().expect("no test changes the top"))?;
        let Node::Folder { live, changes, .. } = &mut self.nodes[folder] else {
            return Err(ErrorKind::NotADirectory.into());
        };
        change.apply(live);
        changes.push(change);
        Ok(())
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        match self.find(path) {
            Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        self.change(path, Change::Add(last(path), self.nodes.len()))?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn sync_bytes(&mut self, node: usize, succeeds: bool) -> io::Result<()> {
        let without = self.without == Without::FileSyncs;
        let Node::File {
            live,
            durable,
            forgotten,
            ..
        } = &mut self.nodes[node]
        else {
            return Err(ErrorKind::IsADirectory.into());
        };
        *forgotten |= !succeeds;
        if !*forgotten && !without {
            durable.clone_from(live);
        }
        failed_unless(succeeds)
    }
}

fn failed_unless(succeeds: bool) -> io::Result<()> {
    let failure = || io::Error::other("the disk failed");
    succeeds.then_some(()).ok_or_else(failure)
}

fn last(path: &Path) -> String {
    let name = path.file_name().and_then(OsStr::to_str);
    name.expect("a test's paths are text").to_owned()
}

impl Files for Power {
    fn identity(&self, folder: &Path) -> io::Result<(u64, u64)> {
        let machine = self.machine();
        machine.awake()?;
        Ok((0, machine.find(folder)? as u64))
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        let there = machine.find(folder).is_ok();
        if there && machine.without == Without::SyncsOfOthersFolders {
            machine.unasked = folder.parent().map(Path::to_owned);
        }
        if !there {
            failed_unless(machine.step()?)?;
        }
        machine.add(folder, EMPTY_FOLDER).map(drop)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        failed_unless(machine.step()?)?;
        let unasked = machine.unasked.take_if(|path| path == folder).is_some();
        let without = machine.without == Without::FolderSyncs;
        let node = machine.find(folder)?;
        let Node::Folder {
            live,
            durable,
            changes,
        } = &mut machine.nodes[node]
        else {
            return Err(ErrorKind::NotADirectory.into());
        };
        if !unasked && !without {
            durable.clone_from(live);
            changes.clear();
        }
        Ok(())
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut machine = self.machine();
        failed_unless(machine.step()?)?;
        let file = Node::File {
            live: Vec::new(),
            durable: Vec::new(),
            forgotten: false,
            modified: machine.clock,
        };
        let node = machine.add(path, file)?;
        for end in [bytes.len() / 2, bytes.len()] {
            failed_unless(machine.step()?)?;
            if let Node::File { live, .. } = &mut machine.nodes[node] {
                *live = bytes[..end].to_vec();
            }
        }
        let succeeds = machine.step()?;
        machine.sync_bytes(node, succeeds)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        let succeeds = machine.step()?;
        let node = machine.find(path)?;
        if machine.without == Without::SyncsOfOthersPacks {
            machine.unasked = path.parent().map(Path::to_owned);
            return Ok(());
        }
        machine.sync_bytes(node, succeeds)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        failed_unless(machine.step()?)?;
        assert_eq!(from.parent(), to.parent(), "a rename stays in its folder");
        let node = machine.find(from)?;
        machine.change(from, Change::Rename(last(from), last(to), node))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        failed_unless(machine.step()?)?;
        machine.find(path)?;
        machine.change(path, Change::Remove(last(path)))
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let machine = self.machine();
        machine.awake()?;
        let Node::File { live, .. } = &machine.nodes[machine.find(path)?] else {
            return Err(ErrorKind::IsADirectory.into());
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = live.get(start..start.saturating_add(length));
        Ok(found.ok_or(ErrorKind::UnexpectedEof)?.to_vec())
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        let machine = self.machine();
        machine.awake()?;
        Ok(match &machine.nodes[machine.find(path)?] {
            Node::Folder { .. } => Entry::Folder,
            Node::File { live, .. } => Entry::File(live.len() as u64),
        })
    }

    fn modified(&self, path: &Path) -> io::Result<i64> {
        let machine = self.machine();
        machine.awake()?;
        match &machine.nodes[machine.find(path)?] {
            Node::Folder { .. } => Err(ErrorKind::IsADirectory.into()),
            Node::File { modified, .. } => Ok(*modified),
        }
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let machine = self.machine();
        machine.awake()?;
        match &machine.nodes[machine.find(folder)?] {
            Node::Folder { live, .. } => Ok(live.keys().cloned().collect()),
            Node::File { .. } => Err(ErrorKind::NotADirectory.into()),
        }
    }
}
