//! Hard links, also those whose first name is outside of what is selected.

use std::collections::HashMap;

use snapkeep_api::tree::{EntryKind, TreeNode, TreePath, TreeReader, find};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits::FIRST_NAMES_BYTES_MAX;
use crate::selection::{Selected, Selection};
use crate::visit::Unread;

/// The files whose first name is not selected, and under which name they are made instead.
#[derive(Debug, Default)]
pub(crate) struct Links {
    made: HashMap<TreePath, TreePath>,
    bytes: usize,
}

/// What becomes of a hard link.
#[derive(Debug)]
pub(crate) enum Link {
    /// A link to this name, which came before.
    To(TreePath),
    /// The first name that is selected: it is made like the entry itself.
    First,
}

impl Links {
    /// What becomes of the hard link at `path` to the entry `to`, and that entry.
    pub(crate) fn resolve(
        &mut self,
        reader: &dyn TreeReader,
        selection: &Selection,
        path: &TreePath,
        to: &TreePath,
    ) -> Result<(Link, TreeNode), Unread> {
        let node = target(reader, path, to)?;
        if selection.says(to) == Selected::Whole {
            return Ok((Link::To(to.clone()), node));
        }
        if let Some(made) = self.made.get(to) {
            return Ok((Link::To(made.clone()), node));
        }
        self.bytes += to.as_bytes().len() + path.as_bytes().len() + 128;
        if self.bytes > FIRST_NAMES_BYTES_MAX {
            let what = "too many hard links lead out of what is selected: select more of the tree";
            return Err(Error::new(ErrorKind::Unsupported, what).into());
        }
        self.made.insert(to.clone(), path.clone());
        Ok((Link::First, node))
    }
}

/// The entry that a hard link is another name of.
pub(crate) fn target(
    reader: &dyn TreeReader,
    path: &TreePath,
    to: &TreePath,
) -> Result<TreeNode, Unread> {
    let found = find(reader, to).map_err(|e| Unread::of(to, "cannot be looked up", e))?;
    let wrong = |why: &str| {
        let what = format!("{path} of the archive is a hard link to {to}, which {why}");
        Err(Error::new(ErrorKind::Corrupt, what).into())
    };
    let Some(node) = found else {
        return wrong("is not there");
    };
    match node.entry.kind {
        EntryKind::Directory => wrong("is a folder"),
        EntryKind::HardLink { .. } => wrong("is a hard link itself"),
        EntryKind::File { .. }
        | EntryKind::Symlink { .. }
        | EntryKind::Fifo
        | EntryKind::Socket
        | EntryKind::CharDevice(_)
        | EntryKind::BlockDevice(_) => match node.entry.check() {
            Ok(()) => Ok(node),
            Err(error) => wrong(&format!("is impossible: {error}")),
        },
    }
}
