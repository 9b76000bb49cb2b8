//! The visit of the archive's tree, which makes folders, and hands files over to threads.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, fstat, open, syncfs};
use snapkeep_api::tree::{Attributes, EntryKind, Name, TreeNode, TreePath, TreeReader};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use super::attributes::{self, Made};
use super::folder::{Folder, beneath, open_at};
use super::made::Maker;
use super::queue::{Job, Queue};
use super::report::{ExtractReport, ProblemKind, Progress};
use super::{Existing, ExtractOptions};
use crate::acl;
use crate::limits::{
    FOLDERS_BYTES_MAX, OPEN_FOLDERS, OPEN_FOLDERS_MAX, OPEN_FOLDERS_STEP, WORKERS_MAX,
};
use crate::links::{Link, Links};
use crate::visit::{Step, Unread, Visit, weight};

pub(super) fn run(
    reader: &dyn TreeReader,
    target: &Path,
    options: &ExtractOptions,
    progress: &Progress,
    cancel: &Cancel,
) -> Result<ExtractReport> {
    let (target_fd, is_new) = open_target(target, options.existing)?;
    let closed = is_new && !options.owners.is_mapped();
    let log = Mutex::default();
    let maker = Maker {
        reader,
        options,
        progress,
        cancel,
        log,
        split: Mutex::new(()),
    };
    let queue = Queue::default();
    let root = thread::scope(|scope| {
        for _ in 0..options.workers.clamp(1, WORKERS_MAX) {
            scope.spawn(|| {
                let mut buffer = Vec::new();
                queue.work(|job| {
                    maker.file(job, &mut buffer)?;
                    finish(&maker, Arc::clone(&job.folder))
                });
            });
        }
        let _closed_at_the_end = queue.closing();
        let walk = Walk {
            maker: &maker,
            queue: &queue,
            visit: Visit::new(options.selection.clone()),
            links: Links::default(),
            folders: Vec::new(),
            folders_bytes: 0,
            open_folders: Arc::default(),
            closed,
        };
        walk.run(target_fd, is_new)
            .inspect_err(|error| queue.fail(error.clone()))
    })?;
    let at_end = std::mem::take(&mut maker.log().flags_at_end);
    for (path, flags) in at_end {
        cancel.check()?;
        flag(&maker, &root, &path, flags)?;
    }
    if options.durable {
        root.fd().and_then(syncfs).map_err(|errno| {
            let what = format!("{} cannot be made durable: {errno}", target.display());
            Error::new(ErrorKind::Target, what)
        })?;
    }
    let mut log = maker.log();
    Ok(ExtractReport {
        entries: progress.entries(),
        bytes: progress.bytes(),
        problems: log.problems,
        named: std::mem::take(&mut log.named),
        closed_target: closed,
    })
}

/// Opens the folder to extract into; tells also whether it was made.
fn open_target(target: &Path, existing: Existing) -> Result<(rustix::fd::OwnedFd, bool)> {
    let failed = |doing: &str, error: io::Error| {
        let what = format!("the target {} cannot be {doing}: {error}", target.display());
        Error::new(ErrorKind::Target, what)
    };
    let is_new = match rustix::fs::mkdirat(CWD, target, Mode::RWXU) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(errno) => return Err(failed("made", errno.into())),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(target, flags, Mode::empty()).map_err(|e| failed("opened", e.into()))?;
    if existing == Existing::Refuse && !is_new {
        let mut entries = fs::read_dir(target).map_err(|e| failed("listed", e))?;
        if entries.next().is_some() {
            let what = format!("the target {} is not empty", target.display());
            return Err(Error::new(ErrorKind::Target, what));
        }
    }
    Ok((fd, is_new))
}

/// Lets a folder stay its maker's alone.
fn close(fd: impl AsFd, wanted: &mut Attributes) -> Result<()> {
    let stat = fstat(fd).map_err(|errno| {
        Error::new(
            ErrorKind::Target,
            format!("the target cannot be examined: {errno}"),
        )
    })?;
    (wanted.uid, wanted.gid) = (stat.st_uid, stat.st_gid);
    wanted.permissions = 0o700;
    wanted.xattrs.retain(|xattr| xattr.name != acl::ACCESS);
    Ok(())
}

/// One thing in a folder is done: with the last one, so is the folder, and maybe those above it.
fn finish(maker: &Maker<'_>, folder: Arc<Folder>) -> Result<()> {
    let mut next = Some(folder);
    while let Some(folder) = next.take().filter(|folder| folder.let_go()) {
        if let Some(entry) = &folder.entry {
            let path = || folder.path();
            let fd = match folder.fd() {
                Ok(fd) => fd,
                Err(errno) => {
                    let why = format!("its attributes are not set, it cannot be opened: {errno}");
                    maker.log().problem(path(), ProblemKind::Permissions, why)?;
                    return Ok(());
                }
            };
            let made = Made::Open(fd.as_fd());
            maker.set(made, &entry.kind, &entry.attributes, path)?;
            if entry.attributes.flags != 0 {
                maker.set_flags(&fd, entry.attributes.flags, path)?;
            }
        }
        next = folder.within.as_ref().map(|(parent, _)| Arc::clone(parent));
        if next.is_some() {
            folder.close();
        }
    }
    Ok(())
}

/// Sets the inode flags of a file that has all its names.
fn flag(maker: &Maker<'_>, root: &Folder, path: &TreePath, flags: u32) -> Result<()> {
    let mut names: Vec<_> = path.names().collect();
    let last = names.pop().unwrap_or_default();
    let file = root.fd().and_then(|root| beneath(&root, names.into_iter()));
    match file.and_then(|folder| open_at(&folder, last, OFlags::RDONLY | OFlags::NONBLOCK)) {
        Ok(file) => maker.set_flags(&file, flags, || path.clone()),
        Err(errno) => {
            let why = format!("its inode flags are not set, it cannot be opened: {errno}");
            maker.log().problem(path.clone(), ProblemKind::Flags, why)
        }
    }
}

struct Walk<'a> {
    maker: &'a Maker<'a>,
    queue: &'a Queue,
    visit: Visit,
    links: Links,
    /// The folders that the visit is in, and what each takes in memory; one that could not be made
    /// is none.
    folders: Vec<(Option<Arc<Folder>>, usize)>,
    folders_bytes: usize,
    open_folders: Arc<AtomicUsize>,
    /// Whether nobody else may enter the target, also at the end.
    closed: bool,
}

impl Walk<'_> {
    /// Visits all; tells the target.
    fn run(mut self, target: rustix::fd::OwnedFd, is_new: bool) -> Result<Arc<Folder>> {
        let reader = self.maker.reader;
        let Some(Step::Enter { node, above }) = self.visit.next(reader)? else {
            return Err(Error::new(ErrorKind::Protocol, "the tree has no root"));
        };
        let root = self.entered(None, target, !is_new, node, above)?;
        self.maker.progress.made();
        self.push(Some(Arc::clone(&root)), 0);
        while let Some(step) = self.visit.next(reader)? {
            self.maker.cancel.check()?;
            match step {
                Step::Enter { node, above } => self.enter(node, above)?,
                Step::Entry(node) => self.entry(&root, node)?,
                Step::Unreadable(error) => self.damaged(&error)?,
                Step::Leave => self.leave()?,
            }
        }
        self.queue.drain()?;
        Ok(root)
    }

    fn enter(&mut self, node: TreeNode, above: bool) -> Result<()> {
        let (parent, name) = self.here()?;
        let bytes = weight(&name, &node.entry);
        if self.folders_bytes + bytes > FOLDERS_BYTES_MAX {
            let what = format!(
                "{} is in folders with too many extended attributes",
                self.visit.path()
            );
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let made = self.maker.folder(&parent, &name);
        let path = self.visit.path().clone();
        let Some((fd, was_there)) = self.maker.made(made, || path.clone())? else {
            self.visit.skip();
            self.push(None, 0);
            return Ok(());
        };
        let folder = self.entered(Some((parent, name)), fd, was_there, node, above)?;
        self.push(Some(folder), bytes);
        // All but every so many of those further out are closed.
        if let Some(outer) = self.folders.len().checked_sub(OPEN_FOLDERS + 1)
            && !outer.is_multiple_of(OPEN_FOLDERS_STEP)
            && let Some(folder) = &self.folders[outer].0
        {
            folder.close();
        }
        Ok(())
    }

    /// A folder that was made or is used.
    fn entered(
        &self,
        within: Option<(Arc<Folder>, Name)>,
        fd: rustix::fd::OwnedFd,
        was_there: bool,
        mut node: TreeNode,
        above: bool,
    ) -> Result<Arc<Folder>> {
        let path = self.visit.path();
        let stays = above && (was_there || within.is_none());
        let mut inherits = false;
        let mut entry = None;
        if stays {
            inherits = attributes::is_inherited(&fd);
        } else {
            node.entry.attributes = self.maker.wanted(&node.entry, || path.clone())?;
            if within.is_none() && self.closed {
                close(&fd, &mut node.entry.attributes)?;
            }
            if was_there {
                attributes::forget_inherited(&fd);
                if let Err(errno) = attributes::remove_others(&fd, &node.entry.attributes.xattrs) {
                    let why = format!("what it had before cannot be removed: {errno}");
                    self.maker
                        .log()
                        .problem(path.clone(), ProblemKind::Xattr, why)?;
                }
            }
            entry = Some(node.entry);
        }
        Ok(Folder::new(within, fd, entry, inherits, &self.open_folders))
    }

    fn entry(&mut self, root: &Folder, mut node: TreeNode) -> Result<()> {
        let (folder, name) = self.here()?;
        if let EntryKind::HardLink { to } = &node.entry.kind {
            let selection = &self.maker.options.selection;
            let (reader, path) = (self.maker.reader, self.visit.path());
            let (link, target) = match self.links.resolve(reader, selection, path, to) {
                Ok(resolved) => resolved,
                Err(Unread::Damaged(error)) => return self.damaged(&error),
                Err(Unread::Failed(error)) => return Err(error),
            };
            if let Link::To(made) = link {
                // The first name has to be made by now.
                if matches!(target.entry.kind, EntryKind::File { links: 1, .. }) {
                    self.queue.drain()?;
                } else {
                    self.queue.drain_links()?;
                }
                return self.maker.link(root, &folder, &name, &made);
            }
            node = target;
        }
        if matches!(node.entry.kind, EntryKind::File { .. }) {
            folder.hold();
            return self.queue.push(Job { folder, name, node });
        }
        self.maker.node(&folder, &name, &node.entry)
    }

    /// What the visit is at is damaged in the archive: it, or the rest of what is in it, is missed.
    fn damaged(&self, error: &Error) -> Result<()> {
        let path = self.visit.path().clone();
        self.maker
            .log()
            .problem(path, ProblemKind::NotMade, error.chain())
    }

    fn leave(&mut self) -> Result<()> {
        let Some((folder, bytes)) = self.folders.pop() else {
            return Ok(());
        };
        self.folders_bytes -= bytes;
        if let Some(folder) = folder {
            finish(self.maker, folder)?;
        }
        if let Some((Some(outer), _)) = self.folders.last() {
            outer.keep_open().map_err(|errno| {
                let what = format!("{} cannot be opened again: {errno}", outer.path());
                Error::new(ErrorKind::Target, what)
            })?;
        }
        if self.open_folders.load(Ordering::Relaxed) > OPEN_FOLDERS_MAX {
            self.queue.drain()?;
        }
        Ok(())
    }

    fn push(&mut self, folder: Option<Arc<Folder>>, bytes: usize) {
        self.folders_bytes += bytes;
        self.folders.push((folder, bytes));
    }

    /// The folder that the last step's entry is in, and its name there.
    fn here(&self) -> Result<(Arc<Folder>, Name)> {
        let name = self.visit.path().names().next_back().unwrap_or_default();
        match self.folders.last() {
            Some((Some(folder), _)) => Ok((Arc::clone(folder), Name::new(name)?)),
            _ => Err(Error::new(
                ErrorKind::Protocol,
                "an entry of a folder that is not open",
            )),
        }
    }
}
