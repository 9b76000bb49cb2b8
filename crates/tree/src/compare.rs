//! The differences of two trees.

mod content;

use std::cmp::Ordering;
use std::ops::ControlFlow;

use snapkeep_api::tree::{Entry, EntryKind, TreeNode, TreePath, TreeReader};
use snapkeep_api::{Cancel, Result};

use crate::links::target;
use crate::order;
use crate::selection::{Selected, Selection};
use crate::visit::{Step, Visit};

/// A path at which two trees differ.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Difference {
    /// Only the second tree has it.
    Added(TreePath, Entry),
    /// Only the first tree has it.
    Removed(TreePath, Entry),
    /// Both have it, but not the same.
    Changed(TreePath, Changes),
}

/// What of an entry differs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "any of them may be, independently"
)]
pub struct Changes {
    /// What it is: a file, a folder and so on. The rest is then not compared, but for attributes.
    pub kind: bool,
    /// A file's content. A hole and zeroes that are stored are the same.
    pub content: bool,
    /// User or group.
    pub owner: bool,
    /// Permissions.
    pub permissions: bool,
    /// When it was modified.
    pub mtime: bool,
    /// Extended attributes, among them ACLs and file capabilities.
    pub xattrs: bool,
    /// Inode flags.
    pub flags: bool,
    /// Where a symbolic link leads.
    pub target: bool,
    /// The number of a device.
    pub device: bool,
    /// Which name is its first: it became another name of something else, or no longer is.
    pub links: bool,
}

impl Changes {
    /// Whether anything differs.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Tells the differences of a part of two trees, the first the older one, in the order in which
/// trees are told. What is below two folders of the same identity is not looked at, so both trees
/// have to be of one provider, unless it gives no identities. Of a file with several names, all but
/// which one is the first is told there alone. The selection need not be in both. Ends early where
/// the listener breaks off.
pub fn compare(
    trees: (&dyn TreeReader, &dyn TreeReader),
    selection: &Selection,
    cancel: &Cancel,
    tell: &mut dyn FnMut(Difference) -> ControlFlow<()>,
) -> Result<()> {
    let mut sides = (Side::new(trees.0, selection), Side::new(trees.1, selection));
    sides.0.advance()?;
    sides.1.advance()?;
    loop {
        cancel.check()?;
        let ahead = match (&sides.0.node, &sides.1.node) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), Some(_)) => order::compare(sides.0.visit.path(), sides.1.visit.path()),
        };
        let difference = match ahead {
            Ordering::Less => sides
                .0
                .own()
                .map(|(p, entry)| Difference::Removed(p, entry)),
            Ordering::Greater => sides.1.own().map(|(p, entry)| Difference::Added(p, entry)),
            Ordering::Equal => both(&mut sides, cancel)?,
        };
        if difference.is_some_and(|difference| tell(difference).is_break()) {
            return Ok(());
        }
        if ahead.is_le() {
            sides.0.advance()?;
        }
        if ahead.is_ge() {
            sides.1.advance()?;
        }
    }
}

/// Compares the entries at the path that both sides are at.
fn both((old, new): &mut (Side<'_>, Side<'_>), cancel: &Cancel) -> Result<Option<Difference>> {
    let (Some(was), Some(is)) = (old.node.take(), new.node.take()) else {
        return Ok(None);
    };
    let path = old.visit.path().clone();
    let meant = old.selection.says(&path) == Selected::Whole;
    let same_below = was.identity.is_some() && was.identity == is.identity;
    let folders = was.entry.kind.is_directory() && is.entry.kind.is_directory();
    if folders && same_below {
        old.visit.skip();
        new.visit.skip();
    }
    if !meant {
        return Ok(None);
    }
    let changes = changes((old.reader, &was), (new.reader, &is), &path, cancel)?;
    Ok(changes.any().then_some(Difference::Changed(path, changes)))
}

/// One of the trees.
struct Side<'a> {
    reader: &'a dyn TreeReader,
    selection: &'a Selection,
    visit: Visit,
    node: Option<TreeNode>,
}

impl<'a> Side<'a> {
    fn new(reader: &'a dyn TreeReader, selection: &'a Selection) -> Self {
        let visit = Visit::new(selection.clone()).of_what_is_there();
        Self {
            reader,
            selection,
            visit,
            node: None,
        }
    }

    fn advance(&mut self) -> Result<()> {
        self.node = loop {
            match self.visit.next(self.reader)? {
                Some(Step::Enter { node, .. } | Step::Entry(node)) => break Some(node),
                Some(Step::Unreadable(error)) => return Err(error),
                Some(Step::Leave) => {}
                None => break None,
            }
        };
        Ok(())
    }

    /// The entry that only this side has, if it is meant and not only on the way.
    fn own(&mut self) -> Option<(TreePath, Entry)> {
        let path = self.visit.path();
        let meant = self.selection.says(path) == Selected::Whole;
        let node = self.node.take().filter(|_| meant)?;
        Some((path.clone(), node.entry))
    }
}

/// What differs of two entries.
fn changes(
    (old, was): (&dyn TreeReader, &TreeNode),
    (new, is): (&dyn TreeReader, &TreeNode),
    path: &TreePath,
    cancel: &Cancel,
) -> Result<Changes> {
    let links = match (first_name(&was.entry), first_name(&is.entry)) {
        (Some(was), Some(is)) if was == is => return Ok(Changes::default()),
        (was, is) => was != is,
    };
    let (was, is) = (named(old, was, path)?, named(new, is, path)?);
    let (a, b) = (&was.entry.attributes, &is.entry.attributes);
    let mut changes = Changes {
        owner: (a.uid, a.gid) != (b.uid, b.gid),
        permissions: a.permissions != b.permissions,
        mtime: a.mtime != b.mtime,
        xattrs: a.xattrs != b.xattrs,
        flags: a.flags != b.flags,
        links,
        ..Changes::default()
    };
    match (&was.entry.kind, &is.entry.kind) {
        (EntryKind::File { size: old_size, .. }, EntryKind::File { size: new_size, .. }) => {
            let same = was.identity.is_some() && was.identity == is.identity;
            changes.content = old_size != new_size
                || !same && content::differs((old, &was), (new, &is), *old_size, path, cancel)?;
        }
        (EntryKind::Symlink { target: a }, EntryKind::Symlink { target: b }) => {
            changes.target = a != b;
        }
        (EntryKind::CharDevice(a), EntryKind::CharDevice(b))
        | (EntryKind::BlockDevice(a), EntryKind::BlockDevice(b)) => changes.device = a != b,
        (a, b) => changes.kind = a != b,
    }
    Ok(changes)
}

fn first_name(entry: &Entry) -> Option<&TreePath> {
    if let EntryKind::HardLink { to } = &entry.kind {
        Some(to)
    } else {
        None
    }
}

/// What a node is a name of.
fn named(reader: &dyn TreeReader, node: &TreeNode, path: &TreePath) -> Result<TreeNode> {
    match first_name(&node.entry) {
        Some(to) => Ok(target(reader, path, to)?),
        None => Ok(node.clone()),
    }
}
