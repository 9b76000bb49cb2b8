//! How a backup pulls a file tree.

use super::entry::{Entry, Timestamp};
use super::name::Name;
use crate::Result;

/// A container's file tree, pulled from its unprivileged walker, which holds no key and no
/// repository. It is told from the root on, each folder before what is in it, and a folder's
/// entries in ascending order of their names' bytes, each name once. A source proves all that
/// itself, whatever its walker says, and checks each entry ([`Entry::check`]); a walker that breaks
/// a rule is an error of kind `Protocol`, one that dies or hangs an error of kind `Source`.
pub trait TreeSource: Send {
    /// The next step; `None` after the root was left, when all is told. Before it, the walk may ask
    /// `known` about entries of the folder it is in. What is left unread of the last file is skipped.
    fn next(&mut self, known: &mut dyn KnownTree) -> Result<Option<Step>>;
    /// Reads on in the content of the file that the last step told with its entry. The buffer is
    /// not empty. After anything but `Data` and `Hole` there is no more of it.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Content>;
}

/// What a provider knows of the tree from an earlier archive.
pub trait KnownTree {
    /// Whether an entry has to be read. Asked about entries of the folder that the walk is in, the
    /// innermost that was entered and not left, in ascending order of their names, each at most
    /// once, some or all of them before the steps that tell them; after a folder in it was left, it
    /// goes on where it was. Which are asked about is the source's choice; what is told without
    /// having been asked about is told with its entry, and what was asked about need not be told.
    fn judge(&mut self, name: &Name, found: &Found) -> Result<Judgement>;
}

/// What is seen of an entry without reading it, and cheaply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// What it is.
    pub kind: FoundKind,
    /// When its content was modified.
    pub mtime: Timestamp,
    /// What changes with everything about it.
    pub witness: Witness,
}

/// The kinds of entries that a provider is asked about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FoundKind {
    /// A regular file, by the first of its names.
    File {
        /// Bytes.
        size: u64,
    },
    /// A folder: whether its own attributes have to be read. What is in it is walked anyway.
    Directory,
}

/// What tells that an entry is still the one it was: equal only if nothing about it was changed,
/// provided that it was older than the walk when it was read. The device is not in it: a snapshot
/// is mounted under another number each time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Witness {
    /// The inode's number.
    pub inode: u64,
    /// When anything about the inode was changed.
    pub ctime: Timestamp,
}

/// An answer to "has it to be read?".
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// Yes: it is new, or changed, or nothing is known.
    Read,
    /// No: it is unchanged. It is told without its entry, or not at all if it is gone by then.
    Known,
    /// It looks unchanged, but read it all the same, to see whether that is true.
    Audit,
}

/// A step of the walk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// A folder; what is in it follows, up to its `Leave`.
    Enter(Told),
    /// The folder that was entered last, and not left, is complete.
    Leave,
    /// Any other entry. If it is a file that is told with its entry, its content follows, by
    /// [`TreeSource::read`].
    Entry(Told),
    /// Something about the folder that was entered last and not left, or about an entry of it.
    Problem(Problem),
}

/// An entry as the walk tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    /// Its name; `None` for the root, which is the first step, and for nothing else.
    pub name: Option<Name>,
    /// What the provider answered about it; `Read` if it was not asked. With `Known` there is no entry.
    pub judged: Judgement,
    /// The entry, unless it is known.
    pub entry: Option<Entry>,
    /// What it may be recognised by next time; `None` if that is not to be relied on, as on a file
    /// system where a file can change without its times (tmpfs).
    pub witness: Option<Witness>,
}

/// A piece of a file's content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// So many bytes are in the buffer: 1 or more.
    Data(usize),
    /// So many zeroes that the file system does not store: 1 or more.
    Hole(u64),
    /// That was all. The file is as long as what was told, never longer than its entry says.
    End {
        /// Why what was told may be of no one instant: the file was changed while it was read.
        changed: Option<String>,
    },
    /// The rest cannot be read, for this reason: the file cannot be in the archive, so that no hard
    /// link to it may be told.
    Lost(String),
}

/// Something that people must know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The entry; `None` is the folder itself.
    pub name: Option<Name>,
    /// What follows from it.
    pub kind: ProblemKind,
    /// What happened, on one line.
    pub why: String,
}

/// What follows from a problem.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProblemKind {
    /// It is not in the archive, or not all of it, though it should be: the archive is partial.
    LeftOut,
    /// It was there when its folder was read and gone soon after: the archive lacks nothing.
    Vanished,
    /// It is in the archive, but something about it is not as one would expect.
    Warning,
}
