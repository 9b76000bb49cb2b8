//! A process that leaves no other behind.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

/// A thread that has a PID namespace for its only child, and lives until this is dropped: when it
/// ends, the kernel sends the child its death signal.
#[derive(Debug)]
pub(super) struct Keeper {
    _until_dropped: Sender<()>,
}

/// Starts a process as the first of a PID namespace: when it ends, the kernel kills all that it
/// started, and whatever those started.
///
/// Who may not make such a namespace goes without: then the process has no more rights than a child
/// of anybody's.
pub(super) fn start(mut command: Command) -> io::Result<(Child, Keeper)> {
    let (started, is_started) = channel();
    let (until_dropped, dropped) = channel();
    // Only this thread's next children are concerned, and a thread with such a namespace can start
    // no other thread: so it is one of its own.
    thread::Builder::new().spawn(move || {
        let child = match unshare(CloneFlags::CLONE_NEWPID) {
            Ok(()) | Err(Errno::EPERM) => command.spawn(),
            Err(errno) => Err(errno.into()),
        };
        // The command has the other ends of the child's descriptors, whose closing must be noticed.
        drop(command);
        if started.send(child).is_ok() {
            // Nothing comes but the end.
            dropped.recv().ok();
        }
    })?;
    let child = is_started
        .recv()
        .map_err(|_| io::Error::other("the thread that starts it ended"))??;
    let keeper = Keeper {
        _until_dropped: until_dropped,
    };
    Ok((child, keeper))
}
