//! Reading a file tree of an archive.

use std::sync::Arc;

use snapkeep_api::tree::{EntryKind, Name, Place, TreeNode, TreeReader, TreeTotals};
use snapkeep_api::{ArchiveName, Error, ErrorKind, Region, Result};
use snapkeep_repo::{self as repo, NodeKind, Repository, TreeDirectory, TreeFile, TreeRecord};

use super::convert::{corrupt, from_node};
use crate::error;

/// The tree of an archive.
pub(crate) struct StoredTree {
    repository: Arc<Repository>,
    archive: ArchiveName,
    reader: repo::TreeReader,
}

impl StoredTree {
    pub(crate) fn open(
        repository: Arc<Repository>,
        archive: ArchiveName,
        record: &TreeRecord,
    ) -> Result<Self> {
        let reader = repo::TreeReader::open(Arc::clone(&repository), record).map_err(|e| {
            let what = format!("cannot open the tree of {archive}");
            error::of_archive(&repository, &archive, what, e)
        })?;
        Ok(Self {
            repository,
            archive,
            reader,
        })
    }

    fn failed(&self, error: repo::Error) -> Error {
        let what = format!("cannot read the tree of archive {}", self.archive);
        error::of_archive(&self.repository, &self.archive, what, error)
    }

    fn node(&self, node: repo::TreeNode) -> Result<TreeNode> {
        let entry = from_node(&node).map_err(|e| {
            let what = format!("cannot read the tree of archive {}", self.archive);
            Error::with_source(e.kind(), what, e)
        })?;
        Ok(TreeNode {
            entry,
            identity: node.identity(),
            place: Place::new(node.kind),
        })
    }
}

impl TreeReader for StoredTree {
    fn root(&self) -> Result<TreeNode> {
        self.node(self.reader.root().clone())
    }

    fn totals(&self) -> TreeTotals {
        let TreeRecord { entries, size, .. } = *self.reader.record();
        let bytes = size;
        TreeTotals { entries, bytes }
    }

    fn list(
        &self,
        directory: &TreeNode,
        after: Option<&Name>,
        max: usize,
    ) -> Result<Vec<(Name, TreeNode)>> {
        let after = after.map(Name::as_bytes);
        let listed = self.reader.list(folder(directory)?, after, max);
        let listed = listed.map_err(|e| self.failed(e))?.into_iter();
        let named = listed.map(|mut node| {
            let name = Name::new(std::mem::take(&mut node.name)).map_err(corrupt)?;
            Ok((name, self.node(node)?))
        });
        named.collect()
    }

    fn lookup(&self, directory: &TreeNode, name: &Name) -> Result<Option<TreeNode>> {
        let found = self.reader.lookup(folder(directory)?, name.as_bytes());
        let found = found.map_err(|e| self.failed(e))?;
        found.map(|node| self.node(node)).transpose()
    }

    fn read_at(&self, file: &TreeNode, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let content = content(file)?;
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > content.size) {
            return Err(protocol("a read passes the end of the file"));
        }
        let read = self.reader.read_at(content, offset, buffer);
        read.map_err(|e| self.failed(e))
    }

    fn next_data(&self, file: &TreeNode, offset: u64) -> Result<Option<Region>> {
        let found = self.reader.next_data(content(file)?, offset);
        let found = found.map_err(|e| self.failed(e))?;
        let region = found.map(|(offset, length)| Region::new(offset, length));
        region.transpose()
    }
}

fn folder(node: &TreeNode) -> Result<&TreeDirectory> {
    match (&node.entry.kind, node.place.get()) {
        (EntryKind::Directory, Some(NodeKind::Directory(folder))) => Ok(folder),
        _ => Err(protocol(
            "it is no folder of this reader's, so it has no entries",
        )),
    }
}

fn content(node: &TreeNode) -> Result<&TreeFile> {
    match node.place.get() {
        Some(NodeKind::File(file)) => Ok(file),
        _ => Err(protocol(
            "it is no file of this reader's, so it has no content",
        )),
    }
}

fn protocol(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, what)
}
