//! Making the entries of the target.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, linkat, makedev, mkdirat, mknodat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use snapkeep_api::tree::{Attributes, Entry, EntryKind, Name, TreePath, TreeReader};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use super::attributes::{self, FLAGS_FIRST, Made};
use super::content::Content;
use super::folder::{Folder, beneath, folder_at, open_at};
use super::queue::Job;
use super::report::{Failure, Log, ProblemKind, Progress};
use super::{Existing, ExtractOptions};
use crate::limits::WORKERS_MAX;

/// What all who make entries share.
pub(super) struct Maker<'a> {
    pub(super) reader: &'a dyn TreeReader,
    pub(super) options: &'a ExtractOptions,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a Cancel,
    pub(super) log: Mutex<Log>,
    /// Held by the file that several threads write; the others have one thread each.
    pub(super) split: Mutex<()>,
}

impl Maker<'_> {
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a file, with its content.
    pub(super) fn file(&self, job: &mut Job, buffer: &mut Vec<u8>) -> Result<()> {
        let Job { folder, name, node } = job;
        let path = || folder.path().join(name);
        let EntryKind::File { size, links } = node.entry.kind else {
            let what = "only files wait for a thread";
            return Err(Error::new(ErrorKind::Protocol, what));
        };
        let wanted = &self.wanted(&node.entry, path)?;
        let made = self.new_file(folder, name).and_then(|(within, file)| {
            if folder.inherits {
                attributes::forget_inherited(&file);
            }
            let first = wanted.flags & FLAGS_FIRST;
            if first != 0 {
                // Said once all flags are set.
                attributes::set_flags(&file, first).ok();
            }
            let content = Content {
                reader: self.reader,
                node,
                size,
                file: file.as_fd(),
                progress: self.progress,
                cancel: self.cancel,
                path: &path,
            };
            let alone = self.split.try_lock();
            let helpers = if alone.is_ok() {
                self.options.workers.min(WORKERS_MAX)
            } else {
                1
            };
            let written = content.write(buffer, helpers.saturating_sub(1));
            drop(alone);
            if written.is_err() {
                // Half a file must not be taken for the whole one.
                unlinkat(&within, name.as_bytes(), AtFlags::empty()).ok();
            }
            written.map(|()| file)
        });
        let Some(file) = self.made(made, path)? else {
            return Ok(());
        };
        self.set(Made::Open(file.as_fd()), &node.entry.kind, wanted, path)?;
        if wanted.flags != 0 {
            if links > 1 {
                self.log().flag_at_end(path(), wanted.flags)?;
            } else {
                self.set_flags(&file, wanted.flags, path)?;
            }
        }
        Ok(())
    }

    /// The attributes of an entry, as they are set.
    pub(super) fn wanted(&self, entry: &Entry, path: impl Fn() -> TreePath) -> Result<Attributes> {
        let problem = |kind, why| self.log().problem(path(), kind, why);
        attributes::mapped(&entry.attributes, &self.options.owners, &path, problem)
    }

    fn new_file(&self, folder: &Folder, name: &Name) -> Result<(impl AsFd, OwnedFd), Failure> {
        let path = || folder.path().join(name);
        let within = folder
            .fd()
            .map_err(|e| Failure::of(e, "opening its folder", path))?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Nobody else may use it before it has its owner.
        let mode = Mode::RUSR | Mode::WUSR;
        let file = self.create(&within, name, path, || {
            openat(&within, name.as_bytes(), flags, mode)
        })?;
        Ok((within, file))
    }

    /// Makes what is neither a file nor a folder.
    pub(super) fn node(&self, folder: &Folder, name: &Name, entry: &Entry) -> Result<()> {
        let path = || folder.path().join(name);
        let wanted = self.wanted(entry, path)?;
        let made = self.new_node(folder, name, &entry.kind);
        let Some(place) = self.made(made, path)? else {
            return Ok(());
        };
        let in_proc = format!("/proc/self/fd/{}", place.as_raw_fd());
        self.set(
            Made::Place(place.as_fd(), &in_proc),
            &entry.kind,
            &wanted,
            path,
        )?;
        if wanted.flags != 0 {
            let why = "only files and folders can have inode flags".to_owned();
            self.log().problem(path(), ProblemKind::Flags, why)?;
        }
        Ok(())
    }

    fn new_node(&self, folder: &Folder, name: &Name, kind: &EntryKind) -> Result<OwnedFd, Failure> {
        let path = || folder.path().join(name);
        if self.options.owners.is_mapped() && !self.options.allow_devices && is_device(kind) {
            let why = "a device in a container with an ID map could open the host's".to_owned();
            return Err(Failure::Problem(ProblemKind::NotMade, why));
        }
        let within = folder
            .fd()
            .map_err(|e| Failure::of(e, "opening its folder", path))?;
        let special = |kind, device| {
            mknodat(
                &within,
                name.as_bytes(),
                kind,
                Mode::RUSR | Mode::WUSR,
                device,
            )
        };
        self.create(&within, name, path, || match kind {
            EntryKind::Symlink { target } => symlinkat(target.as_slice(), &within, name.as_bytes()),
            EntryKind::Fifo => special(FileType::Fifo, 0),
            EntryKind::Socket => special(FileType::Socket, 0),
            EntryKind::CharDevice(number) => special(
                FileType::CharacterDevice,
                makedev(number.major, number.minor),
            ),
            EntryKind::BlockDevice(number) => {
                special(FileType::BlockDevice, makedev(number.major, number.minor))
            }
            EntryKind::File { .. } | EntryKind::Directory | EntryKind::HardLink { .. } => {
                Err(Errno::INVAL)
            }
        })?;
        let place = open_at(&within, name.as_bytes(), OFlags::PATH);
        place.map_err(|e| Failure::of(e, "opening it", path))
    }

    /// Makes a folder, or takes the one that is there if that is allowed. Tells the folder, and
    /// whether it was there.
    pub(super) fn folder(&self, within: &Folder, name: &Name) -> Result<(OwnedFd, bool), Failure> {
        let path = || within.path().join(name);
        let fd = within
            .fd()
            .map_err(|e| Failure::of(e, "opening its folder", path))?;
        let name = name.as_bytes();
        let failed = |doing| move |errno| Failure::of(errno, doing, path);
        match mkdirat(&fd, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.options.existing == Existing::Refuse => {
                return Err(is_there(&path()).into());
            }
            Err(Errno::EXIST) => match folder_at(&fd, name) {
                Ok(folder) => return Ok((folder, true)),
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    unlinkat(&fd, name, AtFlags::empty())
                        .map_err(failed("removing what is there"))?;
                    mkdirat(&fd, name, Mode::RWXU).map_err(failed("making it"))?;
                }
                Err(errno) => return Err(failed("opening it")(errno)),
            },
            Err(errno) => return Err(failed("making it")(errno)),
        }
        let folder = folder_at(&fd, name).map_err(failed("opening it"))?;
        if within.inherits {
            attributes::forget_inherited(&folder);
        }
        Ok((folder, false))
    }

    /// Makes a hard link to what was made at this path of the target.
    pub(super) fn link(
        &self,
        root: &Folder,
        folder: &Folder,
        name: &Name,
        to: &TreePath,
    ) -> Result<()> {
        let path = || folder.path().join(name);
        let made = if self.log().is_not_made(to) {
            let why = format!("it is another name of {to}, which was not made");
            Err(Failure::Problem(ProblemKind::NotMade, why))
        } else {
            self.new_link(root, folder, name, to)
        };
        self.made(made, path).map(drop)
    }

    fn new_link(
        &self,
        root: &Folder,
        folder: &Folder,
        name: &Name,
        to: &TreePath,
    ) -> Result<(), Failure> {
        let path = || folder.path().join(name);
        let failed = |doing| move |errno| Failure::of(errno, doing, path);
        let root = root.fd().map_err(failed("opening the target"))?;
        let mut names: Vec<_> = to.names().collect();
        let last = names.pop().unwrap_or_default();
        let from = beneath(&root, names.into_iter());
        let from = from.map_err(failed("opening the folder of its first name"))?;
        let within = folder.fd().map_err(failed("opening its folder"))?;
        self.create(&within, name, path, || {
            linkat(&from, last, &within, name.as_bytes(), AtFlags::empty())
        })
    }

    /// Makes something under a name where there may be something already.
    fn create<T>(
        &self,
        within: &impl AsFd,
        name: &Name,
        path: impl Fn() -> TreePath,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Failure> {
        let failed = match make() {
            Ok(made) => return Ok(made),
            Err(errno) => errno,
        };
        if failed != Errno::EXIST {
            return Err(Failure::of(failed, "making it", path));
        }
        match self.options.existing {
            Existing::Refuse => Err(is_there(&path()).into()),
            Existing::Replace => {
                match unlinkat(within, name.as_bytes(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR) => {
                        let why = "the target has a folder there, which stays".to_owned();
                        return Err(Failure::Problem(ProblemKind::Kept, why));
                    }
                    Err(e) => return Err(Failure::of(e, "removing what is there", path)),
                }
                make().map_err(|errno| Failure::of(errno, "making it", path))
            }
        }
    }

    /// Counts what was made, and notes what was not.
    pub(super) fn made<T>(
        &self,
        made: Result<T, Failure>,
        path: impl Fn() -> TreePath,
    ) -> Result<Option<T>> {
        match made {
            Ok(made) => {
                self.progress.made();
                Ok(Some(made))
            }
            Err(Failure::Problem(kind, why)) => {
                self.log().problem(path(), kind, why)?;
                Ok(None)
            }
            Err(Failure::Fatal(error)) => Err(error),
        }
    }

    pub(super) fn set(
        &self,
        made: Made<'_>,
        kind: &EntryKind,
        wanted: &Attributes,
        path: impl Fn() -> TreePath,
    ) -> Result<()> {
        attributes::set(made, kind, wanted, |kind, why| {
            self.log().problem(path(), kind, why)
        })
    }

    pub(super) fn set_flags(
        &self,
        fd: impl AsFd,
        flags: u32,
        path: impl Fn() -> TreePath,
    ) -> Result<()> {
        match attributes::set_flags(fd, flags) {
            Ok(()) => Ok(()),
            Err(why) => self.log().problem(path(), ProblemKind::Flags, why),
        }
    }
}

/// Whether it opens something of the host. The number 0:0 is a whiteout, which opens nothing.
fn is_device(kind: &EntryKind) -> bool {
    match kind {
        EntryKind::CharDevice(number) => (number.major, number.minor) != (0, 0),
        EntryKind::BlockDevice(_) => true,
        EntryKind::File { .. }
        | EntryKind::Directory
        | EntryKind::Symlink { .. }
        | EntryKind::HardLink { .. }
        | EntryKind::Fifo
        | EntryKind::Socket => false,
    }
}

fn is_there(path: &TreePath) -> Error {
    let what = format!(
        "{path} is there already in the target: extract into an empty folder, \
         or allow writing over what is there"
    );
    Error::new(ErrorKind::Target, what)
}
