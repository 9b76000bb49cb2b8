//! How a restore reads a file tree.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::entry::{Entry, EntryKind};
use super::name::{Name, TreePath};
use crate::{Region, Result};

/// A file tree of an archive, readable anywhere, from several threads at once. A node is given back
/// to the reader that it came from; what cannot be one of its own is refused as `Protocol`, and so
/// is listing what is no folder, or reading what is no file.
pub trait TreeReader: Send + Sync {
    /// The tree's root, a folder.
    fn root(&self) -> Result<TreeNode>;
    /// How much there is in it, for progress and sizes.
    fn totals(&self) -> TreeTotals;
    /// At most `max` entries of a folder, 1 or more unless there are none, in ascending order of
    /// their names: those after this name, or the first.
    fn list(
        &self,
        directory: &TreeNode,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, TreeNode)>>;
    /// One entry of a folder, if it is there.
    fn lookup(&self, directory: &TreeNode, name: &Name) -> Result<Option<TreeNode>>;
    /// Fills the buffer with a file's content from this offset. A range past the end is an error of
    /// kind `Protocol`.
    fn read_at(&self, file: &TreeNode, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// The next run of a file's data at or after this offset; holes, which read as zeroes, lie
    /// between. Answered from the archive's metadata.
    fn next_data(&self, file: &TreeNode, offset: u64) -> Result<Option<Region>>;
}

/// How much there is in a tree.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TreeTotals {
    /// Entries, the root among them.
    pub entries: u64,
    /// Bytes of all files, each once.
    pub bytes: u64,
}

/// An entry of an archive, and where its reader finds more of it.
#[derive(Clone, Debug)]
pub struct TreeNode {
    /// The entry. For a hard link, what it is a link to has to be looked up ([`find`]).
    pub entry: Entry,
    /// Equal in two nodes of one provider only if the files' contents, or all that is below the
    /// folders, are equal; `None` if the provider cannot tell.
    pub identity: Option<[u8; 32]>,
    /// Where its reader finds its content, or what is in it.
    pub place: Place,
}

/// What a reader wants to know of a node it gave out, in whatever type it likes.
#[derive(Clone)]
pub struct Place(Arc<dyn Any + Send + Sync>);

impl Place {
    /// Keeps a value.
    pub fn new(value: impl Any + Send + Sync) -> Self {
        Self(Arc::new(value))
    }

    /// The value, if it is of this type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

/// The entry at a path, if it is there. What is no folder has nothing in it: no link is followed.
pub fn find(reader: &dyn TreeReader, path: &TreePath) -> Result<Option<TreeNode>> {
    let mut node = reader.root()?;
    for name in path.names() {
        if node.entry.kind != EntryKind::Directory {
            return Ok(None);
        }
        match reader.lookup(&node, &Name::new(name)?)? {
            Some(child) => node = child,
            None => return Ok(None),
        }
    }
    Ok(Some(node))
}
