//! Directory trees: what a container's file systems hold.
//!
//! A tree is a Merkle tree of nodes. [`write_tree`] takes entries in the order of a walk and makes
//! the nodes, bundles and chunks; [`TreeReader`] reads it at any place; [`WitnessedDirectory`] goes
//! through it beside a new walk, to tell what has not changed.

mod cache;
mod check;
mod cut;
mod file;
mod identity;
mod levels;
mod queue;
mod reader;
mod witnessed;
mod writer;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::format::id::ChunkId;

pub(crate) use check::{check_extents, check_name, check_node};
pub use reader::TreeReader;
pub(crate) use reader::{check_child, end_in_chunk};
pub use witnessed::{Witnessed, WitnessedDirectory};
pub use writer::{TreeCounts, TreeWriter, write_tree};

/// A directory tree of a snapshot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TreeRecord {
    /// The directory node whose one entry, with the empty name, is the tree's root.
    pub root: ChunkId,
    /// The witness node that goes with it; `None` if nothing in the tree may be believed.
    pub witness: Option<ChunkId>,
    /// Number of entries, the root included.
    pub entries: u64,
    /// Sum of the files' sizes; `u64::MAX` if it is larger.
    pub size: u64,
    /// The user namespace that the owners are of, as text; `None` is the machine's own. Only for
    /// whoever wants to believe witnesses: in another one, the same files have other owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_map: Option<String>,
    /// How many entries should be in the tree and are not, or not whole: more than 0 is a partial archive.
    #[serde(default, skip_serializing_if = "is_none_left_out")]
    pub left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_none_left_out(left_out: &u64) -> bool {
    *left_out == 0
}

/// One entry of a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreeNode {
    /// The name: 1 to 255 bytes without a slash or zero; empty for the tree's root.
    pub name: Vec<u8>,
    /// What every kind has.
    pub attributes: Attributes,
    /// What it is.
    pub kind: NodeKind,
}

/// What every kind of entry has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// The 12 bits of permissions.
    pub mode: u16,
    /// The owner's number, as the container sees it.
    pub uid: u32,
    /// The group's number, as the container sees it.
    pub gid: u32,
    /// When the content was last changed.
    pub mtime: Timestamp,
    /// Inode flags as of `FS_IOC_GETFLAGS`.
    pub flags: u32,
    /// Extended attributes, name and value, in ascending order of their names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A time of a file.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Timestamp {
    /// Seconds since the epoch, which may be before it.
    pub seconds: i64,
    /// Nanoseconds after that: less than 1,000,000,000.
    pub nanos: u32,
}

/// What an entry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NodeKind {
    /// A regular file, under the first of its names.
    File(TreeFile),
    /// A directory.
    Directory(TreeDirectory),
    /// A symbolic link.
    Symlink {
        /// What it points to, as it is stored: 1 to 4095 bytes without a zero.
        target: Vec<u8>,
    },
    /// A further name of a file or other entry.
    HardLink {
        /// The path of the first name, from the tree's root, without a leading slash.
        path: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// A file and where its content lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreeFile {
    /// Size in bytes.
    pub size: u64,
    /// How many names it had, as it was seen.
    pub links: u32,
    pub(crate) content: Content,
}

/// Where a file's content lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Content {
    /// A few extents, or none.
    Extents(Vec<Extent>),
    /// The root of a tree of extent nodes.
    Node(ChunkId),
}

/// A part of a file; what lies between two is a hole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    pub(crate) chunk: ChunkId,
    /// Where it begins in the chunk.
    pub(crate) within: u32,
    pub(crate) length: u32,
}

impl Extent {
    /// Where it ends in the file; a reader has checked that there is such an offset.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

/// A directory and where its entries lie.
#[derive(Clone, Debug)]
pub struct TreeDirectory {
    pub(crate) place: Place,
    /// How far below the tree's root it is; not stored.
    pub(crate) depth: usize,
    /// The node that an error is about: its own, or the one in which it lies; not stored.
    pub(crate) origin: ChunkId,
}

impl PartialEq for TreeDirectory {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for TreeDirectory {}

impl TreeDirectory {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            depth: 0,
            origin: ChunkId([0; 32]),
        }
    }
}

/// Where the node of a directory lies, or of what is known of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// There is none: the directory is empty, or nothing is known.
    Nowhere,
    /// In the entry.
    Inline(Arc<[u8]>),
    /// In a chunk.
    Node(ChunkId),
}

/// What tells that an entry has not changed since: stored beside the tree, never needed to
/// restore it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Witness {
    /// The inode's number.
    pub inode: u64,
    /// When the inode was last changed.
    pub ctime: Timestamp,
}
