//! What the kernel asks, answered.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use snapkeep_api::tree::Name;
use snapkeep_api::{Error, ErrorKind};

use crate::cursor::Cursor;
use crate::holes;
use crate::inode::{Found, Inode, Object};
use crate::limits::{BACKGROUND_MAX, OPEN_FOLDERS_MAX, READ_MAX};
use crate::location::Location;
use crate::problems::Problems;
use crate::table::Table;

/// How long the kernel may believe what it was told of an archive: as long as it likes.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long it may believe what is in a folder that is in no archive.
const A_WHILE: Duration = Duration::from_secs(1);
/// No number ever stands for something else than before.
const GENERATION: Generation = Generation(0);
/// `whence` of `lseek(2)`.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
/// The unit of `statfs`.
const BLOCK: u32 = 4096;

/// The file system.
pub(crate) struct Fs {
    table: Table,
    folders: Mutex<OpenFolders>,
    problems: Problems,
    /// Whether the kernel is to check permissions, ACLs included.
    checked: bool,
}

#[derive(Default)]
struct OpenFolders {
    cursors: HashMap<u64, Arc<Mutex<Cursor>>>,
    next: u64,
}

/// Why a question has no other answer than an error.
enum Refusal {
    /// As expected: no entry of that name and the like.
    Plain(Errno),
    /// What was asked about cannot be read.
    Problem(Error),
    /// What is at another location cannot be read.
    ProblemAt(Arc<Location>, Error),
}

type Answer<T> = Result<T, Refusal>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Problem(error)
    }
}

/// An inode that was looked up, and how long its name is good.
struct Entered {
    inode: Arc<Inode>,
    attr: FileAttr,
    valid: Duration,
}

/// An extended attribute, or a list of them, for somebody with so much room.
enum Xattrs {
    Size(u32),
    Bytes(Vec<u8>),
}

/// An entry of a folder as it is told: its name, and from where to go on after it.
struct Told<'a> {
    name: &'a OsStr,
    next: u64,
    what: What<'a>,
}

enum What<'a> {
    /// `.` or `..`.
    Dots(u64),
    Entry(&'a Name, &'a Found),
}

impl Fs {
    pub(crate) fn new(root: Inode, problems: Problems, checked: bool) -> Self {
        Self {
            table: Table::new(root),
            folders: Mutex::default(),
            problems,
            checked,
        }
    }

    /// Answers a question about an inode. Whatever goes wrong, even a panic, is an error for who
    /// asked, and is told.
    fn answer<T>(&self, ino: INodeNo, f: impl FnOnce(&Inode) -> Answer<T>) -> Result<T, Errno> {
        let inode = self.table.get(ino.0).ok_or(Errno::ESTALE)?;
        let refusal = match catch_unwind(AssertUnwindSafe(|| f(&inode))) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(refusal)) => refusal,
            Err(_) => {
                let what = "reading it ended in a panic, which is a bug";
                Refusal::Problem(Error::new(ErrorKind::Protocol, what))
            }
        };
        match refusal {
            Refusal::Plain(errno) => return Err(errno),
            Refusal::Problem(error) => self.problems.tell(&inode.location, &error),
            Refusal::ProblemAt(location, error) => self.problems.tell(&location, &error),
        }
        Err(Errno::EIO)
    }

    /// Looks up what was found in a folder; counts it.
    fn enter(&self, location: &Arc<Location>, folder: &Inode, found: &Found) -> Answer<Entered> {
        let at = |error| Refusal::ProblemAt(Arc::clone(location), error);
        let (number, inode) = if let Some(known) = self.table.again(location.key) {
            known
        } else {
            let child = folder.child(Arc::clone(location), found.clone());
            let (inode, wrong) = child.map_err(at)?;
            self.warn(&inode, wrong);
            self.table.enter(inode).map_err(at)?
        };
        let attr = inode.attributes(number).map_err(|error| {
            self.table.forget(number, 1);
            at(error)
        })?;
        let in_archive = !matches!(folder.object, Object::Folder(_));
        let valid = if in_archive { FOREVER } else { A_WHILE };
        Ok(Entered { inode, attr, valid })
    }

    /// Tells of something that is only guessed.
    fn warn(&self, inode: &Inode, wrong: Option<Error>) {
        if let Some(error) = wrong {
            self.problems.tell(&inode.location, &error);
        }
    }

    /// What `stat` shows of an inode.
    fn stat(&self, inode: &Inode, number: u64) -> Result<FileAttr, Error> {
        self.warn(inode, inode.measure()?);
        inode.attributes(number)
    }

    fn folders(&self) -> MutexGuard<'_, OpenFolders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a folder's entries from an offset on, until `tell` has no more room: 0 is `.`, 1 is
    /// `..`, and 2 the first entry.
    fn tell_entries(
        &self,
        folder: &Inode,
        handle: FileHandle,
        offset: u64,
        tell: &mut dyn FnMut(Told<'_>) -> Answer<bool>,
    ) -> Answer<()> {
        let cursor = self.folders().cursors.get(&handle.0).cloned();
        let cursor = cursor.ok_or(Refusal::Plain(Errno::EBADF))?;
        let mut cursor = cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let dots = [
            (".", folder.location.number()),
            ("..", folder.location.parent_number()),
        ];
        for (at, (name, number)) in (0..).zip(dots) {
            let told = Told {
                name: OsStr::new(name),
                next: at + 1,
                what: What::Dots(number),
            };
            if at >= offset && tell(told)? {
                return Ok(());
            }
        }
        let mut at = offset.max(2);
        while let Some((name, found)) = cursor.at(folder, at - 2)? {
            at += 1;
            let told = Told {
                name: OsStr::from_bytes(name.as_bytes()),
                next: at,
                what: What::Entry(name, found),
            };
            if tell(told)? {
                break;
            }
        }
        Ok(())
    }

    /// The attributes of an entry for a list of them.
    fn listed(&self, folder: &Inode, name: &Name, found: &Found) -> Answer<(FileAttr, Duration)> {
        let location = folder.location.join(name);
        let (at, error) = match self.enter(&location, folder, found) {
            // A size of zero is all that is wrong, and it is not to be believed.
            Ok(entered) if !entered.inode.is_measured() => {
                return Ok((entered.attr, Duration::ZERO));
            }
            Ok(entered) => return Ok((entered.attr, entered.valid)),
            Err(Refusal::ProblemAt(location, error)) => (location, error),
            Err(other) => return Err(other),
        };
        // Its name must be seen though it cannot be read; whoever looks closer is told so.
        self.problems.tell(&at, &error);
        let (number, inode) = self.table.enter(Inode::broken(at))?;
        Ok((inode.attributes(number)?, Duration::ZERO))
    }
}

impl Filesystem for Fs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for flag in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
        ] {
            // A kernel without it is only slower.
            config.add_capabilities(flag).ok();
        }
        if self.checked && config.add_capabilities(InitFlags::FUSE_POSIX_ACL).is_err() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // Writes there are none, but this bounds reads too.
        config.set_max_write(READ_MAX).ok();
        if let Err(most) = config.set_max_readahead(READ_MAX) {
            config.set_max_readahead(most).ok();
        }
        config.set_max_background(BACKGROUND_MAX).ok();
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let answer = self.answer(parent, |folder| {
            let absent = || Refusal::Plain(Errno::ENOENT);
            let name = Name::new(name.as_bytes()).map_err(|_| absent())?;
            let location = folder.location.join(&name);
            let at = |error| Refusal::ProblemAt(Arc::clone(&location), error);
            let found = folder.lookup(&name).map_err(at)?.ok_or_else(absent)?;
            let Entered { inode, attr, valid } = self.enter(&location, folder, &found)?;
            let attr = self.stat(&inode, attr.ino.0).map_err(|error| {
                self.table.forget(attr.ino.0, 1);
                at(error)
            })?;
            Ok((attr, valid))
        });
        match answer {
            Ok((attr, valid)) => reply.entry_with_ttls(&FOREVER, &valid, &attr, GENERATION),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        // What is let go of may be anything.
        catch_unwind(AssertUnwindSafe(|| self.table.forget(ino.0, lookups))).ok();
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.answer(ino, |inode| Ok(self.stat(inode, ino.0)?)) {
            Ok(attr) => reply.attr(&FOREVER, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let refusal = || Refusal::Plain(Errno::EINVAL);
        let answer = self.answer(ino, |inode| {
            inode.symlink().map(<[u8]>::to_vec).ok_or_else(refusal)
        });
        match answer {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = self.answer(ino, |inode| {
            let left = inode.size().saturating_sub(offset).min(size.into());
            // The kernel takes a short answer for the file's end: it is refused instead.
            let length = usize::try_from(left).ok().filter(|_| size <= READ_MAX);
            let mut buffer = vec![0; length.ok_or(Refusal::Plain(Errno::EINVAL))?];
            if !buffer.is_empty() {
                inode.read_at(offset, &mut buffer)?;
            }
            Ok(buffer)
        });
        match answer {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let answer = self.answer(ino, |inode| {
            let beyond = || Refusal::Plain(Errno::ENXIO);
            let size = inode.size();
            let from = u64::try_from(offset).ok().filter(|from| *from < size);
            let from = from.ok_or_else(beyond)?;
            let next_data = |from| inode.next_data(from);
            let at = match whence {
                SEEK_DATA => holes::data_at(size, from, &next_data)?.ok_or_else(beyond)?,
                SEEK_HOLE => holes::hole_at(size, from, &next_data)?,
                _ => return Err(Refusal::Plain(Errno::EINVAL)),
            };
            i64::try_from(at).map_err(|_| Refusal::Plain(Errno::EOVERFLOW))
        });
        match answer {
            Ok(at) => reply.offset(at),
            Err(errno) => reply.error(errno),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let answer = self.answer(ino, |inode| {
            if !inode.is_folder() {
                return Err(Refusal::Plain(Errno::ENOTDIR));
            }
            let mut folders = self.folders();
            if folders.cursors.len() >= OPEN_FOLDERS_MAX {
                return Err(Refusal::Plain(Errno::ENFILE));
            }
            folders.next += 1;
            let handle = folders.next;
            folders.cursors.insert(handle, Arc::default());
            Ok(handle)
        });
        match answer {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut some = false;
        let answer = self.answer(ino, |folder| {
            self.tell_entries(folder, handle, offset, &mut |told| {
                let (number, kind) = match told.what {
                    What::Dots(number) => (number, FileType::Directory),
                    // That it cannot be read is told to whoever looks closer.
                    What::Entry(name, found) => (folder.child_type(name, found))
                        .unwrap_or((folder.location.join(name).number(), FileType::RegularFile)),
                };
                let full = reply.add(INodeNo(number), told.next, kind, told.name);
                some |= !full;
                Ok(full)
            })
        });
        match answer {
            // What follows the entries that could be read is asked for again.
            Err(errno) if !some => reply.error(errno),
            _ => reply.ok(),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut some = false;
        let answer = self.answer(ino, |folder| {
            let own = folder.attributes(ino.0)?;
            self.tell_entries(folder, handle, offset, &mut |told| {
                let (attr, valid) = match told.what {
                    What::Dots(number) => {
                        let ino = INodeNo(number);
                        (FileAttr { ino, ..own }, Duration::ZERO)
                    }
                    What::Entry(name, found) => self.listed(folder, name, found)?,
                };
                let full = reply.add(attr.ino, told.next, told.name, &valid, &attr, GENERATION);
                if full && matches!(told.what, What::Entry(..)) {
                    self.table.forget(attr.ino.0, 1);
                }
                some |= !full;
                Ok(full)
            })
        });
        match answer {
            Err(errno) if !some => reply.error(errno),
            _ => reply.ok(),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let cursor = self.folders().cursors.remove(&handle.0);
        catch_unwind(AssertUnwindSafe(|| drop(cursor))).ok();
        reply.ok();
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.answer(ino, |inode| Ok(inode.totals())) {
            Ok((bytes, entries)) => {
                let blocks = bytes.div_ceil(BLOCK.into());
                reply.statfs(blocks, 0, 0, entries, 0, BLOCK, 255, BLOCK);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        let answer = self.answer(ino, |inode| {
            let value = inode.with_xattrs(|xattrs| {
                let found = xattrs.iter().find(|x| x.name == name.as_bytes());
                found.map(|x| fitting(&[&x.value], room))
            })?;
            value.ok_or(Refusal::Plain(Errno::ENODATA))?
        });
        reply_xattrs(answer, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, room: u32, reply: ReplyXattr) {
        let answer = self.answer(ino, |inode| {
            inode.with_xattrs(|xattrs| {
                let names = xattrs.iter().flat_map(|x| [&x.name[..], &[0]]);
                fitting(&names.collect::<Vec<_>>(), room)
            })?
        });
        reply_xattrs(answer, reply);
    }
}

/// These bytes one after the other, or how many they are if there is no room at all.
fn fitting(parts: &[&[u8]], room: u32) -> Answer<Xattrs> {
    let size = parts.iter().map(|part| part.len()).sum::<usize>();
    let size = u32::try_from(size).map_err(|_| Refusal::Plain(Errno::E2BIG))?;
    match room {
        0 => Ok(Xattrs::Size(size)),
        _ if size > room => Err(Refusal::Plain(Errno::ERANGE)),
        _ => Ok(Xattrs::Bytes(parts.concat())),
    }
}

fn reply_xattrs(answer: Result<Xattrs, Errno>, reply: ReplyXattr) {
    match answer {
        Ok(Xattrs::Size(size)) => reply.size(size),
        Ok(Xattrs::Bytes(bytes)) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
}
