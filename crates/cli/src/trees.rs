//! The file trees of archives: how they are opened, and how their entries are shown.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use snapkeep_api::tree::{self, Entry, EntryKind, Name, TreeNode, TreePath, TreeReader};
use snapkeep_api::{ArchiveName, ContainerRestore, Provider};

use crate::failure::{Code, fault, usage};
use crate::progress::Progress;
use crate::report::remark;
use crate::session::{CONTAINER, Session};
use crate::settings::Settings;

/// Entries of a folder that are read together.
const BATCH: usize = 1024;

/// The file tree of an archive.
pub(crate) struct Opened {
    pub(crate) name: ArchiveName,
    pub(crate) reader: Arc<dyn TreeReader>,
    restore: Box<dyn ContainerRestore>,
    pub(crate) guest_config: Vec<u8>,
    /// Entries that could not be read, or not whole, when the archive was made.
    pub(crate) left_out: u64,
}

impl Opened {
    /// Opens the tree of the archive that the user means.
    pub(crate) fn open(session: &Session, settings: &Settings, archive: &str) -> Result<Self> {
        let (name, snapshot) = session.archive(settings, archive, CONTAINER)?;
        let left_out = snapshot.tree.map_or(0, |tree| tree.left_out);
        let opened = Self::of(session, settings, name)?;
        Ok(Self { left_out, ..opened })
    }

    /// Opens the tree of this archive, for who does not ask what was left out.
    pub(crate) fn of(session: &Session, settings: &Settings, name: ArchiveName) -> Result<Self> {
        let log = Progress::start("", None, true, Arc::clone(&session.clock));
        let provider = session.provider(settings, Arc::new(log));
        let archive = provider.open_archive(&name)?;
        let guest_config = archive.guest_config()?;
        let mut restore = (archive.restore_container())
            .with_context(|| format!("archive {name} has no file tree"))?;
        let reader = restore.open_tree()?.into();
        Ok(Self {
            name,
            reader,
            restore,
            guest_config,
            left_out: 0,
        })
    }

    /// What is at a path, which must be there.
    pub(crate) fn find(&self, path: &TreePath) -> Result<TreeNode> {
        let found = tree::find(&*self.reader, path)
            .with_context(|| format!("cannot look for {path} in archive {}", self.name))?;
        found.ok_or_else(|| {
            let what = format!("there is no {path} in archive {}", self.name);
            fault(Code::NotFound, what)
        })
    }

    /// The same; what is another name of a file is the file.
    pub(crate) fn resolve(&self, path: &TreePath) -> Result<TreeNode> {
        let node = self.find(path)?;
        if let EntryKind::HardLink { to } = &node.entry.kind {
            return self.find(to);
        }
        Ok(node)
    }

    /// Says so if something is missing in what was restored.
    pub(crate) fn tell_left_out(&self) {
        if self.left_out > 0 {
            remark(&format!(
                "warning: archive {} is partial: {} could not be read when it was made, or not whole, \
                 and cannot be restored",
                self.name,
                match self.left_out {
                    1 => "1 entry".to_owned(),
                    number => format!("{number} entries"),
                }
            ));
        }
    }

    /// Ends the restore.
    pub(crate) fn finish(self) -> Result<()> {
        Ok(self.restore.finish()?)
    }
}

/// A path that the user gave.
pub(crate) fn typed(path: &OsStr) -> Result<TreePath> {
    TreePath::typed(path.as_bytes()).map_err(|e| usage(e.chain()))
}

/// Calls for each entry below a folder, each folder before what is in it, until that says no more.
pub(crate) fn walk(
    reader: &dyn TreeReader,
    path: &TreePath,
    folder: TreeNode,
    each: &mut dyn FnMut(&TreePath, &TreeNode) -> Result<Visit>,
) -> Result<()> {
    let mut open = vec![Frame::new(path.clone(), folder)];
    while let Some(frame) = open.last_mut() {
        let Some((path, node)) = frame.next(reader)? else {
            open.pop();
            continue;
        };
        match each(&path, &node)? {
            Visit::End => return Ok(()),
            Visit::Below if node.entry.kind.is_directory() => open.push(Frame::new(path, node)),
            Visit::Below | Visit::Next => {}
        }
    }
    Ok(())
}

/// A folder that is being walked.
struct Frame {
    path: TreePath,
    folder: TreeNode,
    listed: std::vec::IntoIter<(Name, TreeNode)>,
    after: Option<Name>,
}

impl Frame {
    fn new(path: TreePath, folder: TreeNode) -> Self {
        Self {
            path,
            folder,
            listed: Vec::new().into_iter(),
            after: None,
        }
    }

    fn next(&mut self, reader: &dyn TreeReader) -> Result<Option<(TreePath, TreeNode)>> {
        if self.listed.len() == 0 {
            let list = reader.list(&self.folder, self.after.as_ref(), BATCH);
            let list = list.with_context(|| format!("cannot list {}", self.path))?;
            self.after = list
                .last()
                .map(|(name, _)| name.clone())
                .or(self.after.take());
            self.listed = list.into_iter();
        }
        Ok((self.listed.next()).map(|(name, node)| (self.path.join(&name), node)))
    }
}

/// Where a walk goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Visit {
    /// With what is in it, if it is a folder.
    Below,
    /// With what comes after it.
    Next,
    /// Nowhere.
    End,
}

/// An entry, as it is shown.
#[derive(Serialize)]
pub(crate) struct Shown {
    path: String,
    /// The path's bytes in hexadecimal, if they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: &'static str,
    permissions: String,
    uid: u32,
    gid: u32,
    size_bytes: u64,
    /// In RFC 3339, UTC.
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip)]
    line_path: String,
}

impl Shown {
    pub(crate) fn new(path: &TreePath, entry: &Entry) -> Self {
        let bytes = path.as_bytes();
        let text = std::str::from_utf8(bytes);
        let attributes = &entry.attributes;
        Self {
            path: format!("/{}", String::from_utf8_lossy(bytes)),
            path_hex: text.is_err().then(|| hex(bytes)),
            kind: kind(&entry.kind),
            permissions: format!("{:04o}", attributes.permissions),
            uid: attributes.uid,
            gid: attributes.gid,
            size_bytes: size(&entry.kind),
            mtime: time(attributes.mtime),
            target: target(&entry.kind),
            line_path: path.to_string(),
        }
    }

    /// The path alone, or everything.
    pub(crate) fn line(&self, long: bool) -> String {
        if !long {
            return self.line_path.clone();
        }
        let target = self.target.as_ref();
        let target = target.map(|target| format!(" -> {target}"));
        format!(
            "{:<9} {} {:>6} {:>6} {:>12} {} {}{}",
            self.kind,
            self.permissions,
            self.uid,
            self.gid,
            self.size_bytes,
            self.mtime,
            self.line_path,
            target.unwrap_or_default()
        )
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
    bytes.iter().flat_map(digits).map(char::from).collect()
}

/// Where a link leads.
fn target(kind: &EntryKind) -> Option<String> {
    match kind {
        EntryKind::Symlink { target } => Some(escaped(target)),
        EntryKind::HardLink { to } => Some(to.to_string()),
        EntryKind::File { .. }
        | EntryKind::Directory
        | EntryKind::Fifo
        | EntryKind::Socket
        | EntryKind::CharDevice(_)
        | EntryKind::BlockDevice(_) => None,
    }
}

/// Bytes for people, on one line.
fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn kind(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File { .. } => "file",
        EntryKind::Directory => "folder",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::HardLink { .. } => "hard-link",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice(_) => "char",
        EntryKind::BlockDevice(_) => "block",
    }
}

fn size(kind: &EntryKind) -> u64 {
    match kind {
        EntryKind::File { size, .. } => *size,
        EntryKind::Symlink { target } => target.len() as u64,
        EntryKind::Directory
        | EntryKind::HardLink { .. }
        | EntryKind::Fifo
        | EntryKind::Socket
        | EntryKind::CharDevice(_)
        | EntryKind::BlockDevice(_) => 0,
    }
}

fn time(time: tree::Timestamp) -> String {
    let nanos = i32::try_from(time.nanos).unwrap_or_default();
    Timestamp::new(time.seconds, nanos).map_or_else(
        |_| format!("{}.{:09}", time.seconds, time.nanos),
        |t| t.to_string(),
    )
}
