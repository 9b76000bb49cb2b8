//! What can be mounted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use snapkeep_api::tree::{Name, Timestamp, TreeReader};
use snapkeep_api::{Region, Result, VolumeReader};

/// A folder that is in no archive. It is asked each time, so it may change while it is mounted;
/// but what one of its names leads to stays what it is.
pub trait Folder: Send + Sync {
    /// At most `max` entries, 1 or more unless there are none, in ascending order of their names:
    /// those after this name, or the first. To make a node must be cheap: a folder that is costly
    /// to open is opened when it is itself asked.
    fn list(&self, after: Option<&Name>, max: usize) -> Result<Vec<(Name, Node)>>;
    /// One entry, if it is there.
    fn lookup(&self, name: &Name) -> Result<Option<Node>>;
    /// When it was modified.
    fn modified(&self) -> Timestamp {
        Timestamp::default()
    }
}

/// A file that is in no archive as such. It never changes.
pub trait RandomRead: Send + Sync {
    /// Bytes. First asked when somebody looks at the file, not when its folder is listed, so it
    /// may take a while; then perhaps by several threads at once.
    fn size(&self) -> Result<u64>;
    /// Fills the buffer from this offset; never asked for anything past the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// The next run of data at or after this offset; holes, which read as zeroes, lie between.
    /// Unless somebody knows better, all of it is data.
    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        let left = self.size()?.saturating_sub(offset);
        let all = (left > 0).then(|| Region::new(offset, left));
        all.transpose()
    }
    /// When it was modified.
    fn modified(&self) -> Timestamp {
        Timestamp::default()
    }
}

/// Something that can be mounted, or be in a [`Folder`].
#[derive(Clone)]
pub enum Node {
    /// A folder.
    Folder(Arc<dyn Folder>),
    /// A file.
    Bytes(Arc<dyn RandomRead>),
    /// A container's tree, as a folder with the owner and the mode of the tree's root.
    Tree(Arc<dyn TreeReader>),
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder(_) => "Folder",
            Self::Bytes(_) => "Bytes",
            Self::Tree(_) => "Tree",
        })
    }
}

/// A folder whose entries are known beforehand.
#[derive(Debug, Default)]
pub struct FixedFolder {
    entries: BTreeMap<Name, Node>,
    modified: Timestamp,
}

impl FixedFolder {
    /// With these entries; of two of the same name the later.
    pub fn new(entries: impl IntoIterator<Item = (Name, Node)>, modified: Timestamp) -> Self {
        let entries = entries.into_iter().collect();
        Self { entries, modified }
    }
}

impl Folder for FixedFolder {
    fn list(&self, after: Option<&Name>, max: usize) -> Result<Vec<(Name, Node)>> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.entries.range((after, Bound::Unbounded)).take(max);
        Ok(found.map(|(n, node)| (n.clone(), node.clone())).collect())
    }

    fn lookup(&self, name: &Name) -> Result<Option<Node>> {
        Ok(self.entries.get(name).cloned())
    }

    fn modified(&self) -> Timestamp {
        self.modified
    }
}

/// A virtual machine's disk as a file.
pub struct VolumeFile {
    volume: Box<dyn VolumeReader>,
    modified: Timestamp,
}

impl VolumeFile {
    /// The whole volume, raw.
    pub fn new(volume: Box<dyn VolumeReader>, modified: Timestamp) -> Self {
        Self { volume, modified }
    }
}

impl fmt::Debug for VolumeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeFile").finish_non_exhaustive()
    }
}

impl RandomRead for VolumeFile {
    fn size(&self) -> Result<u64> {
        Ok(self.volume.size())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.volume.read_at(offset, buffer)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        self.volume.next_data(offset)
    }

    fn modified(&self) -> Timestamp {
        self.modified
    }
}
