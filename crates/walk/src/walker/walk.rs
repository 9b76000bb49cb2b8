//! The walk: from folder to folder, without recursion.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, StatFs, fstatfs, syncfs};
use rustix::io::Errno;
use snapkeep_api::tree::ProblemKind;

use super::attributes::Reader;
use super::levels::Levels;
use super::links::Links;
use super::open::{self, Opener};
use super::out::Out;
use super::owners::Owners;
use super::sources::{Part, Sources};
use super::stat::{Id, Stat};
use super::stop::Stop;
use super::{Before, Moment};
use crate::exclude::{Decision, Patterns};
use crate::limits;
use crate::stream::{self, Wish};
use snapkeep_api::tree::Judgement;

/// A walk that is under way.
pub(super) struct Walk<'a> {
    pub(super) out: &'a mut Out,
    pub(super) before: &'a mut Before<'a>,
    pub(super) opener: Opener,
    pub(super) owners: Owners,
    pub(super) reader: Reader,
    pub(super) patterns: Patterns,
    pub(super) sources: Sources,
    pub(super) links: Links,
    /// Whether it was said that there are too many of them.
    pub(super) links_full: bool,
    pub(super) levels: Levels,
    /// Of the folder where the walk is, or of the entry that is looked at.
    pub(super) path: Vec<u8>,
    /// Entries of that folder that come next.
    pub(super) plan: VecDeque<Planned>,
    /// File systems whose pages were clean before anything was looked at, and whose times tell.
    pub(super) clean: HashSet<(u32, u32)>,
    ask: bool,
    directory: Vec<u8>,
}

/// An entry that comes next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    /// Which of the folder's names.
    pub(super) index: usize,
    pub(super) directory: bool,
    /// If it was looked at.
    pub(super) stat: Option<Stat>,
    pub(super) judgement: Judgement,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        out: &'a mut Out,
        before: &'a mut Before<'a>,
        wish: Wish,
    ) -> Result<Self, Stop> {
        let patterns = Patterns::new(&wish.exclude);
        Ok(Self {
            out,
            before,
            opener: Opener::new()?,
            owners: Owners::new(),
            reader: Reader::new(),
            patterns: patterns.map_err(|error| Stop::Failed(error.chain()))?,
            sources: Sources::new(wish.sources),
            links: Links::default(),
            links_full: false,
            levels: Levels::default(),
            path: Vec::new(),
            plan: VecDeque::new(),
            clean: HashSet::new(),
            ask: wish.ask,
            directory: wish.directory,
        })
    }

    pub(super) fn run(mut self) -> Result<(), Stop> {
        let root = open::root(&self.directory).map_err(|errno| {
            let path = String::from_utf8_lossy(&self.directory).into_owned();
            Stop::Failed(format!("{path} cannot be opened: {errno}"))
        })?;
        self.clean(&root)?;
        self.enter_root(root)?;
        while let Some(level) = self.levels.last() {
            if let Some(planned) = self.plan.pop_front() {
                self.out.live()?;
                self.entry(planned)?;
            } else if level.next < level.names.len() {
                self.plan()?;
            } else {
                self.leave()?;
            }
        }
        self.out.done()
    }

    /// Has the kernel write out what is dirty in each source, and notes where that makes witnesses
    /// reliable.
    fn clean(&mut self, root: &OwnedFd) -> Result<(), Stop> {
        for path in self.sources.paths() {
            // What is not there is told when the walk misses it.
            let Ok(top) = open::below(root, path.as_bytes()) else {
                continue;
            };
            let (Ok(stat), Ok(system)) = (Stat::of(top.as_fd()), fstatfs(&top)) else {
                continue;
            };
            if times_tell(&system) && self.out.while_alive(|| syncfs(&top))?.is_ok() {
                self.clean.insert(stat.id.file_system());
            }
        }
        Ok(())
    }

    /// Decides which entries come next, and asks about them where that may save reading them. A
    /// question ends with its first folder, so that none is open while the walk is elsewhere.
    fn plan(&mut self) -> Result<(), Stop> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        let ask = self.ask && level.trusted;
        let mut asked: HashSet<Id> = HashSet::new();
        let mut found = Vec::new();
        while level.next < level.names.len() {
            self.out.live()?;
            let index = level.next;
            level.next += 1;
            let name = level.names.get(index);
            let mut kind = level.names.kind(index);
            let mut stat = None;
            let asks = ask && matches!(kind, FileType::RegularFile | FileType::Directory);
            if (asks || kind == FileType::Unknown)
                && let Some(folder) = &level.folder
            {
                match Stat::at(folder.as_fd(), name) {
                    Ok(seen) => {
                        kind = seen.kind;
                        stat = Some(seen);
                    }
                    Err(errno) => {
                        missed(self.out, name.to_bytes(), errno)?;
                        continue;
                    }
                }
            }
            let directory = kind == FileType::Directory;
            if self.patterns.decide(name.to_bytes(), directory) == Decision::Excluded {
                let parent = self.path.len();
                push(&mut self.path, name.to_bytes());
                self.sources.excluded(&self.path);
                self.path.truncate(parent);
                continue;
            }
            let is_new = |stat: &Stat| {
                !stat.has_other_names() || (!self.links.has(stat.id) && asked.insert(stat.id))
            };
            let question = stat
                .filter(|_| ask)
                .filter(is_new)
                .and_then(|stat| stat.found());
            if let Some(question) = question {
                found.push((self.plan.len(), index, question));
            }
            self.plan.push_back(Planned {
                index,
                directory,
                stat,
                judgement: Judgement::Read,
            });
            if !ask || directory || self.plan.len() == limits::BATCH_MAX {
                break;
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let names = &level.names;
        let all = found
            .iter()
            .map(|(_, index, found)| (names.get(*index).to_bytes(), *found));
        let answers = self.out.ask(found.len(), |out| stream::batch(out, all))?;
        for ((place, ..), answer) in found.iter().zip(answers) {
            self.plan[*place].judgement = answer;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Stop> {
        (self.before)(Moment::Leave, &self.path);
        if self.levels.depth() == 1 {
            for path in self.sources.missing() {
                let why = format!("the source {path} is not there, or a link leads to it");
                self.out.problem(None, ProblemKind::LeftOut, &why)?;
            }
        }
        self.out.leave()?;
        let is_there = self.levels.pop(&self.opener, &self.path);
        let name = self.path.iter().rposition(|byte| *byte == b'/');
        self.path.truncate(name.unwrap_or(0));
        self.patterns.leave();
        if let Some(level) = self.levels.last_mut()
            && !is_there
            && level.next < level.names.len()
        {
            let left = level.names.len() - level.next;
            level.next = level.names.len();
            let why = format!("it was moved while it was read: {left} entries of it are missing");
            self.out.problem(None, ProblemKind::LeftOut, &why)?;
        }
        Ok(())
    }

    /// What is to be read of the root.
    pub(super) fn root_part(&mut self) -> Part {
        if self.sources.met(b"") {
            Part::Whole
        } else {
            Part::Way
        }
    }
}

/// Adds a name to a path.
pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Tells why an entry that was listed cannot be looked at.
pub(super) fn missed(out: &mut Out, name: &[u8], errno: Errno) -> Result<(), Stop> {
    Stop::if_not_about_the_entry(errno)?;
    if matches!(errno, Errno::NOENT | Errno::STALE) {
        let why = "it was gone when it should have been read";
        return out.problem(Some(name), ProblemKind::Vanished, why);
    }
    let why = format!("it cannot be opened: {errno}");
    out.problem(Some(name), ProblemKind::LeftOut, &why)
}

/// Whether a change shows in the times of a file that was clean.
fn times_tell(system: &StatFs) -> bool {
    /// Numbers of linux/magic.h, of `OpenZFS` and of bcachefs.
    const KNOWN: [u64; 6] = [
        0xEF53,      // ext2, ext3, ext4
        0x5846_5342, // XFS
        0x9123_683E, // Btrfs
        0x2FC1_2FC1, // ZFS
        0xF2F5_2010, // F2FS
        0xCA45_1A4E, // bcachefs
    ];
    u64::try_from(system.f_type).is_ok_and(|magic| KNOWN.contains(&magic))
}
