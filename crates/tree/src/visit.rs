//! A visit of the entries of a tree, in order, without ever holding many of them. A reader is not
//! believed: names out of order, impossible entries and links forward end the visit.

use snapkeep_api::tree::limits::DEPTH_MAX;
use snapkeep_api::tree::{Entry, EntryKind, Name, TreeNode, TreePath, TreeReader};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits::{LISTED_BYTES_MAX, PAGE_BYTES, PAGE_ENTRIES_MAX, PAGE_ENTRIES_MIN};
use crate::order::compare;
use crate::selection::{Selected, Selection};

/// Where a visit is.
#[derive(Debug)]
pub(crate) struct Visit {
    selection: Selection,
    path: TreePath,
    folders: Vec<Folder>,
    started: bool,
    /// The last step was about an entry that the visit is not in.
    left: bool,
    page_entries: usize,
    /// What is selected, but not there, is passed over.
    may_lack: bool,
}

#[derive(Debug)]
struct Folder {
    /// Without extended attributes, which a deep tree would make many.
    node: TreeNode,
    /// All that is in it is selected.
    whole: bool,
    last: Option<Name>,
    /// What is listed and not visited yet, the next one last.
    listed: Vec<(Name, TreeNode)>,
    listed_bytes: usize,
    complete: bool,
}

/// A step of a visit.
#[derive(Debug)]
pub(crate) enum Step {
    /// A folder; what is in it follows, up to its `Leave`.
    Enter {
        node: TreeNode,
        /// It is not selected itself, but something below it.
        above: bool,
    },
    /// Any other entry.
    Entry(TreeNode),
    /// The rest of the folder that was entered last and not left cannot be read.
    Unreadable(Error),
    /// The folder that was entered last and not left is complete.
    Leave,
}

impl Visit {
    /// A visit of a part of a tree from the root on.
    pub(crate) fn new(selection: Selection) -> Self {
        Self {
            selection,
            path: TreePath::root(),
            folders: Vec::new(),
            started: false,
            left: false,
            page_entries: PAGE_ENTRIES_MIN,
            may_lack: false,
        }
    }

    /// Passes over what is selected and not there.
    pub(crate) fn of_what_is_there(mut self) -> Self {
        self.may_lack = true;
        self
    }

    /// A visit of a whole tree that has just come to this path, which is there.
    pub(crate) fn after(reader: &dyn TreeReader, path: &TreePath) -> Result<Self> {
        let mut visit = Self::new(Selection::all());
        let mut step = visit.next(reader)?;
        for name in path.names() {
            let name = Name::new(name)?;
            let Some(folder) = visit.folders.last_mut().filter(|_| is_enter(step.as_ref())) else {
                return Err(visit.wrong("is no folder any more"));
            };
            let Some(node) = reader.lookup(&folder.node, &name)? else {
                return Err(visit.wrong(&format!("has no {name} any more")));
            };
            folder.last = Some(name.clone());
            step = Some(visit.told(&name, node)?);
        }
        Ok(visit)
    }

    /// The path of what the last step was about.
    pub(crate) fn path(&self) -> &TreePath {
        &self.path
    }

    /// Leaves out what is in the folder that was entered with the last step.
    pub(crate) fn skip(&mut self) {
        if let Some(folder) = self.folders.last_mut() {
            folder.complete = true;
        }
    }

    /// The next step; `None` after the root was left.
    pub(crate) fn next(&mut self, reader: &dyn TreeReader) -> Result<Option<Step>> {
        if !self.started {
            self.started = true;
            let node = reader.root()?;
            self.check(&node.entry)?;
            if !node.entry.kind.is_directory() {
                return Err(self.wrong("is the root, but no folder"));
            }
            let above = !self.selection.is_all();
            return self.enter(node, above).map(Some);
        }
        if self.left {
            self.left = false;
            self.path.pop();
        }
        if self.folders.is_empty() {
            return Ok(None);
        }
        match self.next_listed(reader) {
            Ok(Some((name, node))) => return self.told(&name, node).map(Some),
            Ok(None) => {}
            Err(Unread::Damaged(error)) => {
                self.skip();
                return Ok(Some(Step::Unreadable(error)));
            }
            Err(Unread::Failed(error)) => return Err(error),
        }
        self.folders.pop();
        self.left = true;
        Ok(Some(Step::Leave))
    }

    /// The next entry of the folder that the visit is in.
    fn next_listed(&mut self, reader: &dyn TreeReader) -> Result<Option<(Name, TreeNode)>, Unread> {
        let Some(folder) = self.folders.last_mut() else {
            return Ok(None);
        };
        if folder.complete {
            return Ok(None);
        }
        if !folder.whole {
            return Ok(self.next_selected(reader)?);
        }
        if let Some((name, node)) = folder.listed.pop() {
            folder.last = Some(name.clone());
            return Ok(Some((name, node)));
        }
        let max = self.page_entries;
        let listed = reader.list(&folder.node, folder.last.as_ref(), max);
        let mut listed =
            listed.map_err(|error| Unread::of(&self.path, "cannot be listed", error))?;
        let ascending = listed.is_sorted_by(|(a, _), (b, _)| a < b);
        let first = listed.first().map(|(name, _)| name);
        let follows = first.is_none_or(|first| folder.last.as_ref().is_none_or(|l| l < first));
        if !ascending || !follows || listed.len() > max {
            return Err(self
                .wrong("is listed out of order, or with a name twice")
                .into());
        }
        let bytes = listed
            .iter()
            .map(|(name, node)| weight(name, &node.entry))
            .sum();
        self.page_entries = if bytes > PAGE_BYTES { max / 2 } else { max * 2 }
            .clamp(PAGE_ENTRIES_MIN, PAGE_ENTRIES_MAX);
        listed.reverse();
        let next = listed.pop();
        folder.last = next
            .as_ref()
            .map(|(name, _)| name.clone())
            .or(folder.last.take());
        folder.complete = next.is_none();
        folder.listed = listed;
        folder.listed_bytes = bytes;
        Ok(next)
    }

    /// The next entry of the folder that the visit is in and that is above what is selected.
    fn next_selected(&mut self, reader: &dyn TreeReader) -> Result<Option<(Name, TreeNode)>> {
        let Some(folder) = self.folders.last_mut() else {
            return Ok(None);
        };
        loop {
            let after = folder.last.as_ref().map(Name::as_bytes);
            let Some(name) = self.selection.next_name(&self.path, after) else {
                return Ok(None);
            };
            let name = Name::new(name)?;
            folder.last = Some(name.clone());
            let path = self.path.join(&name);
            let node = reader.lookup(&folder.node, &name);
            let node = node.map_err(|e| at(&path, "cannot be looked up", e))?;
            let above = self.selection.says(&path) == Selected::Above;
            let lacks = match node {
                Some(node) if !above || node.entry.kind.is_directory() => {
                    return Ok(Some((name, node)));
                }
                Some(_) => "is no folder in the archive, so there is nothing below it",
                None => "is not in the archive",
            };
            if !self.may_lack {
                let what = format!("{path} {lacks}");
                return Err(Error::new(ErrorKind::NotFound, what));
            }
        }
    }

    fn told(&mut self, name: &Name, node: TreeNode) -> Result<Step> {
        self.path.push(name);
        self.check(&node.entry)?;
        if node.entry.kind.is_directory() {
            let above = self.selection.says(&self.path) == Selected::Above;
            return self.enter(node, above);
        }
        if let EntryKind::HardLink { to } = &node.entry.kind
            && compare(to, &self.path).is_ge()
        {
            return Err(self.wrong("is a hard link to what does not come before it"));
        }
        self.left = true;
        Ok(Step::Entry(node))
    }

    fn enter(&mut self, node: TreeNode, above: bool) -> Result<Step> {
        if self.folders.len() > DEPTH_MAX {
            return Err(self.wrong("is deeper than 8192 folders"));
        }
        let listed: usize = self
            .folders
            .iter()
            .rev()
            .take(64)
            .map(|f| f.listed_bytes)
            .sum();
        if listed > LISTED_BYTES_MAX || self.folders.len() % 64 == 63 {
            for folder in &mut self.folders {
                folder.listed = Vec::new();
                folder.listed_bytes = 0;
            }
        }
        let mut kept = node.clone();
        kept.entry.attributes.xattrs = Vec::new();
        self.folders.push(Folder {
            node: kept,
            whole: !above,
            last: None,
            listed: Vec::new(),
            listed_bytes: 0,
            complete: false,
        });
        Ok(Step::Enter { node, above })
    }

    fn check(&self, entry: &Entry) -> Result<()> {
        entry.check().map_err(|e| {
            let what = format!("{} in the archive is impossible: {e}", self.path);
            Error::new(ErrorKind::Corrupt, what)
        })
    }

    fn wrong(&self, why: &str) -> Error {
        let what = format!(
            "{} {why}: the archive is damaged, or its reader wrong",
            self.path
        );
        Error::new(ErrorKind::Corrupt, what)
    }
}

/// Why something of the archive is not known.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It alone is damaged or lost.
    Damaged(Error),
    /// All is concerned.
    Failed(Error),
}

impl Unread {
    /// What the reader says of a path.
    pub(crate) fn of(path: &TreePath, why: &str, error: Error) -> Self {
        let damaged = is_damage(&error);
        let error = at(path, why, error);
        if damaged {
            Self::Damaged(error)
        } else {
            Self::Failed(error)
        }
    }
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Unread> for Error {
    fn from((Unread::Damaged(error) | Unread::Failed(error)): Unread) -> Self {
        error
    }
}

/// Whether an error of the reader says that what it was asked for is damaged or lost; another thing
/// may be readable all the same.
pub(crate) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

/// An error of the reader, with the path that it is about.
pub(crate) fn at(path: &TreePath, why: &str, error: Error) -> Error {
    Error::with_source(error.kind(), format!("{path} of the archive {why}"), error)
}

fn is_enter(step: Option<&Step>) -> bool {
    matches!(step, Some(Step::Enter { .. }))
}

/// About what an entry takes in memory.
pub(crate) fn weight(name: &Name, entry: &Entry) -> usize {
    let xattrs = entry.attributes.xattrs.iter();
    let xattrs: usize = xattrs.map(|x| x.name.len() + x.value.len() + 64).sum();
    let kind = match &entry.kind {
        EntryKind::Symlink { target } => target.len(),
        EntryKind::HardLink { to } => to.as_bytes().len(),
        EntryKind::File { .. }
        | EntryKind::Directory
        | EntryKind::Fifo
        | EntryKind::Socket
        | EntryKind::CharDevice(_)
        | EntryKind::BlockDevice(_) => 0,
    };
    size_of::<(Name, TreeNode)>() + name.as_bytes().len() + xattrs + kind
}
