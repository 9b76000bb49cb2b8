//! The mounts of ours that the kernel lists, whoever made them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;

use rustix::fs::statfs;
use rustix::io::Errno;
use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits::ANSWER_LIMIT;
use crate::mountinfo::all_of;
use crate::target::FILE_SYSTEM;

/// A mount of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is served.
    pub service: Service,
}

/// Whether a mount is served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Service {
    /// Its program answers.
    Served,
    /// Its program is gone: [`cleanup`](crate::cleanup) removes the mount.
    Stale,
    /// Nothing is known, and why.
    Unknown(String),
}

/// All mounts of ours below a folder that this process can see, each asked whether it is served. The
/// folder is named by its true path.
pub fn found(below: &Path) -> Result<Vec<Found>> {
    let paths = all_of(FILE_SYSTEM).map_err(|e| {
        let what = "what is mounted where is unknown";
        Error::with_source(ErrorKind::Target, what, e)
    })?;
    let below = paths.into_iter().filter(|path| path.starts_with(below));
    let found = below.map(|path| Found {
        service: service(&path),
        path,
    });
    Ok(found.collect())
}

/// Asks in a thread of its own: a program that stands still does not answer, and this process ends
/// without the answer.
fn service(path: &Path) -> Service {
    let unknown = |why: &str| Service::Unknown(why.to_owned());
    let (sender, receiver) = channel();
    let asked = path.to_owned();
    let started = thread::Builder::new()
        .name("asks a mount".to_owned())
        .spawn(move || {
            sender
                .send(statfs(&asked).map(|answer| answer.f_bsize))
                .ok()
        });
    if let Err(e) = started {
        return Service::Unknown(format!("it could not be asked: {e}"));
    }
    match receiver.recv_timeout(ANSWER_LIMIT) {
        // The kernel says that by itself to whoever a mount is closed to, also if nobody serves it.
        Ok(Ok(0)) => unknown("it is closed to this user"),
        Ok(Ok(_)) => Service::Served,
        Ok(Err(Errno::NOTCONN)) => Service::Stale,
        Ok(Err(e)) => Service::Unknown(io::Error::from(e).to_string()),
        Err(RecvTimeoutError::Timeout) => unknown("its program does not answer"),
        Err(RecvTimeoutError::Disconnected) => unknown("it could not be asked"),
    }
}
