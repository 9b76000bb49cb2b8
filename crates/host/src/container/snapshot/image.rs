//! A snapshot of a root file system that lies in a disk image: a clone of the image, made while the
//! file system in it is frozen, and mounted beside it.
//!
//! The clone has two names, one after the other: as long as it has the first, the file system may be
//! frozen by us, and whoever takes back thaws it.

mod backing;
mod freeze;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind as IoKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::IFlags;
use serde::{Deserialize, Serialize};
use snapkeep_api::{Cancel, Error, ErrorKind, Level, Result, TaskLog};

use crate::container::command::run;
use crate::container::limits::Timeouts;
use crate::container::lines::{shown, shown_path};
use crate::container::lock::Lock;

use super::{PREFIX, mount};
use backing::{Format, Id};
use freeze::{Frozen, NotFrozen};

/// What the name of a clone ends with until the file system is surely thawed.
const UNFINISHED: &str = ".unfinished";
/// How long a file system that somebody else has frozen is waited for, and the pause between two tries.
const OTHERS: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
/// How long a clone that is still in use is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// A snapshot of one disk image.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::container) struct Image {
    /// The disk image, and which file that is.
    file: PathBuf,
    id: Id,
    /// The root file system that is running, and its device.
    rootfs: PathBuf,
    device: u64,
    format: Format,
    /// Where the clone is when it is whole.
    path: PathBuf,
    /// The folder at which it is mounted.
    at: PathBuf,
    /// The root file system in that.
    below: PathBuf,
}

impl Image {
    /// The snapshot to make of a root file system; why not, if it cannot be. It is mounted in a
    /// folder of states.
    pub(in crate::container) fn new(
        rootfs: &Path,
        id: &str,
        states: &Path,
        stdin: Stdio,
        times: &Timeouts,
    ) -> Result<Self> {
        let found = backing::find(rootfs, states, stdin, times).map_err(|why| {
            let what = format!(
                "no snapshot of the disk image of {}: {why}",
                shown_path(rootfs)
            );
            Error::new(ErrorKind::Unsupported, what)
        })?;
        let name = format!("{PREFIX}{}", id.trim_start_matches("snapkeep-"));
        Ok(Self {
            path: found.folder.join(&name),
            at: states.join(&name),
            file: found.image,
            id: found.id,
            rootfs: found.rootfs,
            device: found.device,
            format: found.format,
            below: found.below,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn unfinished(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(UNFINISHED);
        path.into()
    }

    /// Whether the file system may still be frozen by us.
    pub(super) fn may_be_frozen(&self) -> bool {
        !matches!(self.unfinished().symlink_metadata(), Err(e) if e.kind() == IoKind::NotFound)
    }

    /// Makes it. `Unsupported` if it turns out that this image cannot be cloned, or its clone not be
    /// mounted.
    pub(super) fn make(
        &self,
        lock: &Lock,
        times: &Timeouts,
        log: &dyn TaskLog,
        cancel: &Cancel,
    ) -> Result<PathBuf> {
        let failed = |doing: &str, path: &Path, e: io::Error| {
            let what = format!("no snapshot: cannot {doing} {}", shown_path(path));
            Error::with_source(ErrorKind::Unavailable, what, e)
        };
        let image = backing::open(&self.file, self.id).map_err(|why| {
            let what = format!("no snapshot: the disk image {}", shown_path(&self.file));
            Error::with_source(ErrorKind::Unavailable, what, io::Error::other(why))
        })?;
        let root = File::open(&self.rootfs).map_err(|e| failed("open", &self.rootfs, e))?;
        let mut folder = DirBuilder::new();
        let made = folder.mode(0o700).create(&self.at);
        made.map_err(|e| failed("make", &self.at, e))?;
        // What is written now is not written while everything stands still.
        rustix::fs::syncfs(&root).map_err(|e| failed("sync", &self.rootfs, e.into()))?;
        (image.sync_data()).map_err(|e| failed("sync", &self.file, e))?;
        cancel.check()?;
        if root.metadata().ok().map(|about| about.dev()) != Some(self.device) {
            let e = io::Error::other("another file system is mounted there by now");
            return Err(failed("freeze", &self.rootfs, e));
        }
        let (clone, frozen) = self.freeze(&image, lock, times, cancel)?;
        let cloned = rustix::fs::ioctl_ficlone(&clone, &image);
        let stood_still = frozen.thaw()?;
        cloned.map_err(|e| {
            let what = format!("no snapshot: cannot clone {}", shown_path(&self.file));
            Error::with_source(ErrorKind::Unsupported, what, io::Error::from(e))
        })?;
        let renamed = rustix::fs::rename(self.unfinished(), &self.path);
        renamed.map_err(|e| failed("rename the clone to", &self.path, e.into()))?;
        drop((clone, image, root));
        let line = format!(
            "the file system of {} stood still for {} ms, to be cloned",
            shown_path(&self.rootfs),
            stood_still.as_millis()
        );
        log.log(Level::Info, &line);
        self.mount(lock.stdin(), times)
    }

    /// Makes the file for the clone, then freezes the file system. One that somebody else has frozen,
    /// such as another backup, is waited for a while.
    fn freeze<'a>(
        &self,
        image: &File,
        lock: &'a Lock,
        times: &'a Timeouts,
        cancel: &Cancel,
    ) -> Result<(File, Frozen<'a>)> {
        let unfinished = self.unfinished();
        let deadline = Instant::now() + OTHERS;
        loop {
            let clone = create(&unfinished, image).map_err(|e| {
                let what = format!("no snapshot: cannot make {}", shown_path(&unfinished));
                Error::with_source(ErrorKind::Unavailable, what, e)
            })?;
            match freeze::freeze(&self.rootfs, lock, times) {
                Ok(frozen) => return Ok((clone, frozen)),
                Err(NotFrozen::Perhaps(e)) => return Err(e),
                Err(NotFrozen::Certainly(e)) => {
                    // Whoever finds it thaws, and what somebody else froze is not ours.
                    remove(&unfinished, |path| std::fs::remove_file(path))?;
                    if Instant::now() >= deadline {
                        return Err(e);
                    }
                }
            }
            cancel.check()?;
            sleep(PAUSE);
        }
    }

    /// Mounts the clone; where the root file system is in it.
    fn mount(&self, stdin: Stdio, times: &Timeouts) -> Result<PathBuf> {
        let (kind, options) = match self.format {
            // It fails if there is anything to recover.
            Format::Ext4 => ("ext4", ""),
            // XFS has its log not empty when it is frozen, and nothing in it that is not in place.
            // Two of the same UUID are refused otherwise.
            Format::Xfs => ("xfs", ",norecovery,nouuid"),
        };
        let mut command = Command::new("mount");
        command
            .args(["-t", kind, "-o"])
            .arg(format!("loop,ro,nosuid,nodev,noexec{options}"))
            .args([&self.path, &self.at]);
        let cannot = |why: &str| {
            let what = format!(
                "no snapshot: cannot mount {}: {why}",
                shown_path(&self.path)
            );
            Error::new(ErrorKind::Unsupported, what)
        };
        let ended = run(&mut command, stdin, times.program)?;
        if !ended.status.success() {
            return Err(cannot(&ended.why()));
        }
        let copy = self.at.join(&self.below);
        let inode = |path: &Path| {
            std::fs::symlink_metadata(path)
                .map(|about| about.ino())
                .ok()
        };
        if inode(&copy).is_none() || inode(&copy) != inode(&self.rootfs) {
            return Err(cannot(
                "the root file system is not in it where it should be",
            ));
        }
        Ok(copy)
    }

    /// Thaws, unmounts and deletes: all that is there of it.
    pub(super) fn delete(&self, lock: &Lock, times: &Timeouts, log: &dyn TaskLog) -> Result<()> {
        let name = self.path.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.starts_with(PREFIX))
            || self.at.file_name() != self.path.file_name()
        {
            let line = format!(
                "{} is no snapshot's name: it is let alone",
                shown_path(&self.path)
            );
            log.log(Level::Warn, &line);
            return Ok(());
        }
        if self.may_be_frozen() {
            self.thaw(lock, times, log)?;
            // Whoever froze it from here on is somebody else.
            let renamed = rustix::fs::rename(self.unfinished(), &self.path);
            renamed.map_err(|e| {
                let what = format!("cannot rename the clone to {}", shown_path(&self.path));
                Error::with_source(ErrorKind::Unavailable, what, io::Error::from(e))
            })?;
        }
        let deadline = Instant::now() + BUSY;
        while is_mounted(&self.at) {
            // Whoever looks at all files for a moment keeps it busy.
            match self.ask("unmount", Command::new("umount").arg(&self.at), lock, times) {
                Err(e) if Instant::now() >= deadline => return Err(e),
                Err(_) => sleep(PAUSE),
                Ok(_) => {}
            }
        }
        remove(&self.at, |path| std::fs::remove_dir(path))?;
        for path in [self.path.clone(), self.unfinished()] {
            match std::fs::symlink_metadata(&path) {
                Ok(about) if about.is_file() => {}
                Ok(_) => {
                    let line = format!(
                        "{} is not the snapshot that a backup made there: it is let alone",
                        shown_path(&path)
                    );
                    log.log(Level::Warn, &line);
                    continue;
                }
                // `remove` says why it cannot be looked at.
                Err(_) => {}
            }
            self.detach(&path, lock, times)?;
            remove(&path, |path| std::fs::remove_file(path))?;
        }
        Ok(())
    }

    fn thaw(&self, lock: &Lock, times: &Timeouts, log: &dyn TaskLog) -> Result<()> {
        let device = std::fs::metadata(&self.rootfs).map(|about| about.dev());
        if device.ok() != Some(self.device) {
            let line = format!(
                "the file system of {} is mounted there no longer: it is not thawed",
                shown_path(&self.rootfs)
            );
            log.log(Level::Warn, &line);
            return Ok(());
        }
        freeze::thaw(&self.rootfs, lock, times).map(drop)
    }

    /// Detaches loop devices that a mount which was cut off left. Those that are mounted detach
    /// themselves.
    fn detach(&self, clone: &Path, lock: &Lock, times: &Timeouts) -> Result<()> {
        if clone.symlink_metadata().is_err() {
            return Ok(());
        }
        let list = || {
            let mut command = Command::new("losetup");
            command.args(["--noheadings", "--output", "NAME", "--associated"]);
            let ended = self.ask("look for loop devices of", command.arg(clone), lock, times)?;
            let lines = String::from_utf8_lossy(&ended).into_owned();
            let names = lines.lines().map(str::trim).filter(|line| !line.is_empty());
            Ok::<_, Error>(names.map(str::to_owned).collect::<Vec<_>>())
        };
        for device in list()? {
            let mut command = Command::new("losetup");
            let ended = run(
                command.args(["--detach", &device]),
                lock.stdin(),
                times.program,
            )?;
            // It may just have detached itself.
            if !ended.status.success() && list()?.contains(&device) {
                let why = format!(
                    "cannot detach {}: {}",
                    shown(device.as_bytes()),
                    ended.why()
                );
                return Err(Error::new(ErrorKind::Unavailable, why));
            }
        }
        Ok(())
    }

    fn ask(
        &self,
        doing: &str,
        command: &mut Command,
        lock: &Lock,
        times: &Timeouts,
    ) -> Result<Vec<u8>> {
        let ended = run(command, lock.stdin(), times.program)?;
        if ended.status.success() {
            return Ok(ended.output);
        }
        let what = format!("cannot {doing} {}: {}", shown_path(&self.path), ended.why());
        Err(Error::new(ErrorKind::Unavailable, what))
    }
}

/// Makes an empty file that the image can be cloned into.
fn create(path: &Path, image: &File) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // Btrfs clones only into a file that has the same, and a new one has its folder's. Others may know
    // no flags.
    if let (Ok(flags), Ok(mut own)) = (
        rustix::fs::ioctl_getflags(image),
        rustix::fs::ioctl_getflags(&file),
    ) && (flags ^ own).contains(IFlags::NOCOW)
    {
        own.toggle(IFlags::NOCOW);
        rustix::fs::ioctl_setflags(&file, own)?;
    }
    Ok(file)
}

/// Whether something is mounted at a folder of ours.
fn is_mounted(at: &Path) -> bool {
    let above = at.parent().and_then(mount);
    mount(at).is_some_and(|own| above != Some(own))
}

fn remove(path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    match remove(path) {
        Err(e) if e.kind() != IoKind::NotFound => {
            let what = format!("cannot remove {}", shown_path(path));
            Err(Error::with_source(ErrorKind::Unavailable, what, e))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
