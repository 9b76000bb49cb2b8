//! One entry: opened, looked at, told.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, readlinkat};
use rustix::io::{Errno, pread};
use snapkeep_api::tree::limits::{DEPTH_MAX, SYMLINK_MAX};
use snapkeep_api::tree::{Entry, EntryKind, Judgement, ProblemKind, TreePath};

use super::Moment;
use super::attributes::{Way, flags};
use super::content::Content;
use super::levels::Level;
use super::links::Met;
use super::names::{Names, Unlisted};
use super::open::{Opened, Opener, handle};
use super::out::Out;
use super::sources::Part;
use super::stat::Stat;
use super::stop::Stop;
use super::walk::{Planned, Walk, missed, push};
use crate::exclude::{Decision, FILE_NAME, FILE_READ_BYTES};
use crate::stream::{Kind, Telling};

/// An entry's handle and what it shows.
struct Seen {
    handle: OwnedFd,
    stat: Stat,
    /// Something is mounted there.
    mounted: bool,
}

const REPLACED: &str = "it was replaced by something else before it could be read";

impl Walk<'_> {
    pub(super) fn enter_root(&mut self, handle: OwnedFd) -> Result<(), Stop> {
        let part = Some(self.root_part());
        let stat = Stat::of(handle.as_fd());
        let stat = stat.map_err(|errno| Stop::Failed(format!("its state is unknown: {errno}")))?;
        let seen = Seen {
            handle,
            stat,
            mounted: true,
        };
        self.folder(&seen, None, Judgement::Read, part)
    }

    pub(super) fn entry(&mut self, planned: Planned) -> Result<(), Stop> {
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        let name = level.names.get(planned.index).to_owned();
        let parent = self.path.len();
        push(&mut self.path, name.to_bytes());
        let depth = self.levels.depth();
        let result = self.look(&planned, &name);
        // The path of a folder that was entered is the walk's from now on.
        if self.levels.depth() == depth {
            self.path.truncate(parent);
        }
        result
    }

    fn look(&mut self, planned: &Planned, name: &std::ffi::CStr) -> Result<(), Stop> {
        let bytes = name.to_bytes();
        if self.levels.depth() > DEPTH_MAX {
            let why = "it is deeper than 8192 folders";
            return self.out.problem(Some(bytes), ProblemKind::LeftOut, why);
        }
        if let (Judgement::Known, false, Some(stat)) =
            (planned.judgement, planned.directory, &planned.stat)
        {
            return self.known(stat, bytes);
        }
        (self.before)(Moment::Handle, &self.path);
        let Some(folder) = self.levels.last().and_then(|level| level.folder.as_ref()) else {
            return Ok(());
        };
        let (handle, mounted) = match handle(folder.as_fd(), name, false) {
            Err(Errno::XDEV) => (handle(folder.as_fd(), name, true), true),
            other => (other, false),
        };
        let seen = handle.and_then(|handle| Ok((Stat::of(handle.as_fd())?, handle)));
        let (stat, handle) = match seen {
            Ok(seen) => seen,
            Err(errno) => return missed(self.out, bytes, errno),
        };
        let seen = Seen {
            handle,
            stat,
            mounted,
        };
        let directory = stat.is_directory();
        if directory != planned.directory
            && self.patterns.decide(bytes, directory) == Decision::Excluded
        {
            return Ok(());
        }
        let is_other = planned.stat.is_some_and(|old| old.id != stat.id);
        let was_judged = planned.judgement == Judgement::Known;
        // A folder must be the last of what was asked about.
        if (was_judged && (is_other || !directory)) || (directory && !self.plan.is_empty()) {
            return self
                .out
                .problem(Some(bytes), ProblemKind::Vanished, REPLACED);
        }
        if directory {
            let way = self
                .levels
                .last()
                .is_some_and(|level| level.part == Part::Way);
            let part = if mounted || way {
                self.sources.part(&self.path)
            } else {
                self.sources.met(&self.path);
                Some(Part::Whole)
            };
            return self.folder(&seen, Some(bytes), planned.judgement, part);
        }
        if mounted {
            let why = "something is mounted over it, which is not read";
            return self.out.problem(Some(bytes), ProblemKind::Warning, why);
        }
        self.other(&seen, bytes)
    }

    /// A file that is in an earlier archive as it is.
    fn known(&mut self, stat: &Stat, name: &[u8]) -> Result<(), Stop> {
        let linked = self.may_be_linked(stat, name)?;
        let telling = Telling {
            name: Some(name),
            entry: None,
            witness: Some(stat.witness()),
            linked,
        };
        self.out.tell(Kind::Entry, &telling)?;
        self.remember(stat, linked, true);
        Ok(())
    }

    /// Anything but a folder.
    fn other(&mut self, seen: &Seen, name: &[u8]) -> Result<(), Stop> {
        let stat = &seen.stat;
        match self.links.first(stat) {
            None => {}
            Some(Met::Same { path: to, whole }) => {
                let kind = EntryKind::HardLink { to };
                let attributes = stat.attributes();
                return self.tell(stat, name, &Entry { attributes, kind }, whole, false);
            }
            Some(Met::Other) => {
                let why = "it is not any more what another name of it was: kept on its own";
                self.out.problem(Some(name), ProblemKind::Warning, why)?;
            }
        }
        let kind = match stat.kind {
            FileType::RegularFile => return self.file(seen, name),
            FileType::Symlink => {
                let target = match readlinkat(&seen.handle, c"", Vec::new()) {
                    Ok(target) => target.into_bytes(),
                    Err(errno) => return missed(self.out, name, errno),
                };
                if target.is_empty() || target.len() > SYMLINK_MAX {
                    let why = "it leads to a path of impossible length";
                    return self.out.problem(Some(name), ProblemKind::LeftOut, why);
                }
                EntryKind::Symlink { target }
            }
            FileType::Fifo => EntryKind::Fifo,
            FileType::Socket => EntryKind::Socket,
            FileType::CharacterDevice => EntryKind::CharDevice(stat.device),
            FileType::BlockDevice => EntryKind::BlockDevice(stat.device),
            FileType::Directory | FileType::Unknown => {
                let why = "it is of no known kind";
                return self.out.problem(Some(name), ProblemKind::LeftOut, why);
            }
        };
        let mut attributes = stat.attributes();
        let mut warnings = Vec::new();
        let way = Way::Handle(seen.handle.as_fd());
        attributes.xattrs = self.reader.xattrs(way, &mut warnings)?;
        warnings.extend(self.owners.warning(stat, false));
        self.warn(Some(name), &warnings)?;
        let whole = warnings.is_empty();
        let linked = self.may_be_linked(stat, name)?;
        self.tell(stat, name, &Entry { attributes, kind }, whole, linked)?;
        self.remember(stat, linked, whole);
        Ok(())
    }

    fn file(&mut self, seen: &Seen, name: &[u8]) -> Result<(), Stop> {
        (self.before)(Moment::Open, &self.path);
        let stat = &seen.stat;
        let leased = || (self.before)(Moment::Leased, &self.path);
        let opened = self
            .opener
            .open_file(seen.handle.as_fd(), self.out, leased)?;
        let Opened { file, foreign } = match opened {
            Ok(opened) => opened,
            Err(errno) => return missed(self.out, name, errno),
        };
        let mut attributes = stat.attributes();
        let mut warnings = Vec::new();
        attributes.xattrs = self.reader.xattrs(Way::File(file.as_fd()), &mut warnings)?;
        attributes.flags = flags(file.as_fd(), &mut warnings)?;
        warnings.extend(self.owners.warning(stat, foreign));
        self.warn(Some(name), &warnings)?;
        let whole = warnings.is_empty();
        let linked = self.may_be_linked(stat, name)?;
        let kind = EntryKind::File {
            size: stat.size,
            links: stat.links.max(1),
        };
        self.tell(stat, name, &Entry { attributes, kind }, whole, linked)?;
        (self.before)(Moment::Content, &self.path);
        let content = Content {
            file: file.as_fd(),
            stat,
            path: &self.path,
        };
        if content.send(self.out, self.before)? {
            self.remember(stat, linked, whole);
        }
        Ok(())
    }

    /// Tells a folder and goes into it, unless nothing of it is to be read. `name` is `None` for the
    /// root.
    fn folder(
        &mut self,
        seen: &Seen,
        name: Option<&[u8]>,
        judgement: Judgement,
        part: Option<Part>,
    ) -> Result<(), Stop> {
        let stat = &seen.stat;
        let above = self.levels.last();
        let opened = self.opener.open_folder(seen.handle.as_fd());
        if let Err(errno) = &opened {
            Stop::if_not_about_the_entry(*errno)?;
        }
        // Proxmox VE leaves it out too. It belongs to the host, and what is in it to nobody.
        if name == Some(b"lost+found")
            && above.is_some_and(|above| above.top)
            && matches!(opened, Err(Errno::ACCESS | Errno::PERM))
        {
            return Ok(());
        }
        let begins = seen.mounted || above.is_none_or(|above| above.part == Part::Way);
        let trusted = match (part, above) {
            (Some(Part::Whole), Some(above)) if !begins => above.trusted,
            (Some(Part::Whole), _) => self.clean.contains(&stat.id.file_system()),
            (Some(Part::Way) | None, _) => false,
        };
        let mut warnings = Vec::new();
        let entry = if judgement == Judgement::Known {
            None
        } else {
            Some(self.folder_entry(seen, opened.as_ref().ok(), &mut warnings)?)
        };
        let foreign = opened.as_ref().is_ok_and(|opened| opened.foreign);
        warnings.extend(self.owners.warning(stat, foreign));
        let whole = warnings.is_empty() && opened.is_ok();
        let telling = Telling {
            name,
            entry: entry.as_ref(),
            witness: (trusted && whole).then(|| stat.witness()),
            linked: false,
        };
        self.out.tell(Kind::Enter, &telling)?;
        self.warn(None, &warnings)?;
        let Some(part) = part else {
            return self.out.leave();
        };
        match name {
            Some(name) => self.patterns.enter(name),
            // What there is to say about the administrator's patterns.
            None => self.warn_of_patterns(None)?,
        }
        let folder = opened.map(|opened| opened.file);
        let names = match &folder {
            Ok(folder) => self.names(folder, part)?,
            Err(errno) => Err(Unlisted::Errno(*errno)),
        };
        let names = match names {
            Ok(names) => names,
            Err(why) => {
                let why = match why {
                    Unlisted::Errno(errno) => {
                        Stop::if_not_about_the_entry(errno)?;
                        format!("what is in it cannot be listed: {errno}")
                    }
                    Unlisted::TooMany => "too many entries are in it".to_owned(),
                };
                self.out.problem(None, ProblemKind::LeftOut, &why)?;
                Names::default()
            }
        };
        self.levels.push(Level {
            folder: folder.ok(),
            id: stat.id,
            names,
            next: 0,
            part,
            trusted,
            top: begins || stat.mount_root,
        });
        (self.before)(Moment::Listed, &self.path);
        self.patterns_of_folder()
    }

    fn folder_entry(
        &mut self,
        seen: &Seen,
        opened: Option<&Opened>,
        warnings: &mut Vec<String>,
    ) -> Result<Entry, Stop> {
        let mut attributes = seen.stat.attributes();
        let way = match opened {
            Some(opened) => Way::File(opened.file.as_fd()),
            None => Way::Handle(seen.handle.as_fd()),
        };
        attributes.xattrs = self.reader.xattrs(way, warnings)?;
        if let Some(opened) = opened {
            attributes.flags = flags(opened.file.as_fd(), warnings)?;
        }
        Ok(Entry {
            attributes,
            kind: EntryKind::Directory,
        })
    }

    fn names(&mut self, folder: &OwnedFd, part: Part) -> Result<Result<Names, Unlisted>, Stop> {
        match part {
            Part::Whole => Names::list(folder.as_fd(), self.levels.room(), self.out),
            Part::Way => Ok(Ok(Names::only(self.sources.names_below(&self.path)))),
        }
    }

    /// Takes in the folder's own file of patterns.
    fn patterns_of_folder(&mut self) -> Result<(), Stop> {
        const NAME: &std::ffi::CStr = c".pxarexclude";
        debug_assert_eq!(NAME.to_bytes(), FILE_NAME.as_bytes());
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        let Some(folder) = level.folder.as_ref().filter(|_| level.names.contains(NAME)) else {
            return Ok(());
        };
        let leased = || (self.before)(Moment::Leased, &self.path);
        match read_patterns(&self.opener, self.out, folder, leased)? {
            Ok(Some(content)) => self.patterns.add_file(&content),
            Ok(None) => {}
            Err(errno) => {
                Stop::if_not_about_the_entry(errno)?;
                let why = format!("its patterns cannot be read and leave out nothing: {errno}");
                self.out
                    .problem(Some(NAME.to_bytes()), ProblemKind::Warning, &why)?;
            }
        }
        self.warn_of_patterns(Some(NAME.to_bytes()))
    }

    fn warn_of_patterns(&mut self, name: Option<&[u8]>) -> Result<(), Stop> {
        for why in self.patterns.take_warnings() {
            self.out.problem(name, ProblemKind::Warning, &why)?;
        }
        Ok(())
    }

    /// Without a witness unless it is told whole: what was not read must not be known next time.
    fn tell(
        &mut self,
        stat: &Stat,
        name: &[u8],
        entry: &Entry,
        whole: bool,
        linked: bool,
    ) -> Result<(), Stop> {
        let trusted = self.levels.last().is_some_and(|level| level.trusted);
        let telling = Telling {
            name: Some(name),
            entry: Some(entry),
            witness: (trusted && whole).then(|| stat.witness()),
            linked,
        };
        self.out.tell(Kind::Entry, &telling)
    }

    /// Whether hard links to it can be told as such, if it has other names.
    fn may_be_linked(&mut self, stat: &Stat, name: &[u8]) -> Result<bool, Stop> {
        if !stat.has_other_names() {
            return Ok(false);
        }
        if self.links.has_room(self.path.len()) {
            return Ok(true);
        }
        if !self.links_full {
            self.links_full = true;
            let why = "too many entries have several names: from here on, some of these are kept \
                       as files of their own";
            self.out.problem(Some(name), ProblemKind::Warning, why)?;
        }
        Ok(false)
    }

    fn remember(&mut self, stat: &Stat, linked: bool, whole: bool) {
        if linked && let Ok(path) = TreePath::new(self.path.clone()) {
            self.links.add(stat, path, whole);
        }
    }

    fn warn(&mut self, name: Option<&[u8]>, warnings: &[String]) -> Result<(), Stop> {
        for why in warnings {
            self.out.problem(name, ProblemKind::Warning, why)?;
        }
        Ok(())
    }
}

/// The patterns of a folder, if its file of them is one.
fn read_patterns(
    opener: &Opener,
    out: &mut Out,
    folder: &OwnedFd,
    leased: impl FnOnce(),
) -> Result<Result<Option<Vec<u8>>, Errno>, Stop> {
    let found = handle(folder.as_fd(), c".pxarexclude", false);
    let found = found.and_then(|handle| Ok((Stat::of(handle.as_fd())?.kind, handle)));
    let handle = match found {
        Ok((FileType::RegularFile, handle)) => handle,
        Ok(_) => return Ok(Ok(None)),
        Err(errno) => return Ok(Err(errno)),
    };
    let opened = opener.open_file(handle.as_fd(), out, leased)?;
    Ok(opened.and_then(|opened| read_all(&opened.file).map(Some)))
}

/// What is in a file, up to one byte more than patterns may be.
fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut content = vec![0; FILE_READ_BYTES];
    let mut filled = 0;
    while filled < content.len() {
        let position = u64::try_from(filled).unwrap_or(u64::MAX);
        match pread(file, &mut content[filled..], position) {
            Ok(0) => break,
            Ok(taken) => filled += taken,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    content.truncate(filled);
    Ok(content)
}
