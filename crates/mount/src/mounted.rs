//! Mounting, and what there is while something is mounted.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use crate::fs::Fs;
use crate::inode::Inode;
use crate::limits::{READ_MAX, THREADS};
use crate::location::{Location, ROOT};
use crate::mountinfo::mounted_at;
use crate::node::Node;
use crate::problems::{OnProblem, Problems};
use crate::target::{FILE_SYSTEM, check, is_stale, shown};

/// How often it is seen that the end was asked for.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);
/// How long the kernel may take to end what is no longer mounted.
const END_LIMIT: Duration = Duration::from_secs(10);

/// How to mount.
pub struct Options {
    /// Lets users other than root in, to what the permissions, ACLs included, allow them: note
    /// that these name the users of the container, not those of this machine.
    pub allow_other: bool,
    /// How many threads answer; `None` is as many as there are processors, 4 to 16.
    pub threads: Option<NonZeroUsize>,
    /// Told what cannot be read.
    pub on_problem: OnProblem,
}

impl Default for Options {
    /// For root alone, and nobody is told what cannot be read.
    fn default() -> Self {
        Self {
            allow_other: false,
            threads: None,
            on_problem: Box::new(|_, _| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("allow_other", &self.allow_other)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// Something that is mounted. Dropping it unmounts it; what still uses it then goes on until it
/// lets go, or the process ends.
#[derive(Debug)]
pub struct Mounted {
    target: PathBuf,
    /// The device number of its file system: no other has it until this one has ended.
    device: String,
    end: Arc<End>,
}

/// Why waiting is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Waited {
    /// It was unmounted by somebody else.
    Unmounted,
    /// The end was asked for. It is still mounted.
    Cancelled,
}

/// What became of a mount.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unmounted {
    /// It is gone.
    Done,
    /// Nobody can find it any more, but somebody has a file of it open or is in one of its
    /// folders, and can read on until this process ends.
    InUse,
}

/// The end of the threads that answer the kernel.
#[derive(Debug, Default)]
struct End {
    state: Mutex<Option<std::result::Result<(), String>>>,
    ended: Condvar,
}

/// Mounts a folder or a tree, read-only and for root alone, at an empty folder.
///
/// `Invalid` if the target is no folder, not empty or mounted at already, or the root is a file;
/// `Unsupported` if this system has no FUSE or this process may not mount; otherwise what reading
/// the root says.
pub fn mount(target: &Path, root: Node, options: Options) -> Result<Mounted> {
    if matches!(root, Node::Bytes(_)) {
        let what = "a file cannot be mounted: put it into a folder";
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let (root, _) = Inode::of_node(Location::root(), root)?;
    root.attributes(ROOT)?;
    let path = check(target)?;
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device = OwnedFd::from(device.map_err(|e| no_fuse(target, e))?);
    attach(&path, &device, options.allow_other).map_err(|e| no_fuse(target, e.into()))?;
    let mut attached = Attached {
        path: &path,
        kept: false,
    };
    let failed = |error: io::Error| {
        let what = format!("the file system at {} cannot be served", shown(target));
        Error::with_source(ErrorKind::Target, what, error)
    };
    let mut config = Config::default();
    config.n_threads = Some(threads(options.threads));
    config.clone_fd = true;
    config.acl = if options.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    let fs = Fs::new(root, Problems::new(options.on_problem), options.allow_other);
    let session = Session::from_fd(fs, device, config.acl, config).map_err(failed)?;
    let listed = mounted_at(&path).map_err(failed)?;
    let listed = listed.filter(|mount| mount.file_system == FILE_SYSTEM);
    let gone = || failed(io::Error::other("it is gone already"));
    let device = listed.ok_or_else(gone)?.device;
    let end = Arc::new(End::default());
    let thread_end = Arc::clone(&end);
    let thread = thread::Builder::new().name("mount".to_owned());
    let run = move || thread_end.set(session.run());
    thread.spawn(run).map_err(failed)?;
    attached.kept = true;
    drop(attached);
    // The kernel does not let a file system ask for more than its default. Reading is slower if
    // this cannot be set, and nothing else.
    let ahead = (READ_MAX / 1024).to_string();
    fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), ahead).ok();
    Ok(Mounted {
        target: path,
        device,
        end,
    })
}

impl Mounted {
    /// Where it is mounted.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Waits until somebody unmounts it or the end is asked for. An error if it can no longer be
    /// served.
    pub fn wait(&self, cancel: &Cancel) -> Result<Waited> {
        loop {
            match self.end.within(CANCEL_INTERVAL) {
                Some(Ok(())) => return Ok(Waited::Unmounted),
                Some(Err(why)) => {
                    let what = format!("the mount at {} ended: {why}", shown(&self.target));
                    return Err(Error::new(ErrorKind::Target, what));
                }
                None if cancel.is_cancelled() => return Ok(Waited::Cancelled),
                None => {}
            }
        }
    }

    /// Unmounts it, even if it is in use.
    pub fn unmount(self) -> Result<Unmounted> {
        self.take_down()
    }

    fn take_down(&self) -> Result<Unmounted> {
        let failed = |error: io::Error| {
            let what = format!("{} cannot be unmounted", shown(&self.target));
            Error::with_source(ErrorKind::Target, what, error)
        };
        let ended = self.end.within(Duration::ZERO).is_some();
        let listed = mounted_at(&self.target).map_err(failed)?;
        let ours = listed.is_some_and(|mount| {
            // Once it has ended, another mount may be there and have even its device number.
            mount.device == self.device
                && mount.file_system == FILE_SYSTEM
                && (!ended || is_stale(&self.target))
        });
        if !ours {
            return Ok(if ended {
                Unmounted::Done
            } else {
                Unmounted::InUse
            });
        }
        let unmount = |flags| rustix::mount::unmount(&self.target, UnmountFlags::NOFOLLOW | flags);
        match unmount(UnmountFlags::empty()) {
            // Unless it is in another mount namespace too, the kernel ends it at once.
            Ok(()) if self.end.within(END_LIMIT).is_some() => Ok(Unmounted::Done),
            Ok(()) => Ok(Unmounted::InUse),
            Err(Errno::BUSY) => {
                unmount(UnmountFlags::DETACH).map_err(|e| failed(e.into()))?;
                Ok(Unmounted::InUse)
            }
            Err(error) => Err(failed(error.into())),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nobody is left who could be told.
        self.take_down().ok();
    }
}

impl End {
    fn set(&self, result: io::Result<()>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = Some(result.map_err(|error| error.to_string()));
        self.ended.notify_all();
    }

    /// How it ended, if it does so in this time.
    fn within(&self, time: Duration) -> Option<std::result::Result<(), String>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .ended
            .wait_timeout_while(state, time, |state| state.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// A mount that is taken back unless it becomes a [`Mounted`].
struct Attached<'a> {
    path: &'a Path,
    kept: bool,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            rustix::mount::unmount(self.path, flags).ok();
        }
    }
}

fn attach(path: &Path, device: &OwnedFd, allow_other: bool) -> rustix::io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    // `040000` is a folder. Without allow_other the kernel lets in processes of root alone.
    let mut options = format!(
        "fd={},rootmode=40000,user_id={user},group_id={group},max_read={READ_MAX}",
        device.as_raw_fd()
    );
    if allow_other {
        options.push_str(",allow_other,default_permissions");
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("snapkeep", path, FILE_SYSTEM, flags, options.as_c_str())
}

fn no_fuse(target: &Path, error: io::Error) -> Error {
    let why = if error.kind() == io::ErrorKind::NotFound {
        "this system has no FUSE (try: modprobe fuse)"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "this takes root"
    } else {
        "the kernel refuses it"
    };
    let what = format!("nothing can be mounted at {}: {why}", shown(target));
    Error::with_source(ErrorKind::Unsupported, what, error)
}

fn threads(wanted: Option<NonZeroUsize>) -> usize {
    let wanted = wanted.or_else(|| thread::available_parallelism().ok());
    wanted
        .map_or(THREADS.0, NonZeroUsize::get)
        .clamp(THREADS.0, THREADS.1)
}
