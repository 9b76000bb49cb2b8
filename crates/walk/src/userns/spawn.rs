//! The parent of a walker.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, set_socket_send_buffer_size_force};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use snapkeep_api::{Error, ErrorKind, IdMap, IdRange, Result};

use super::alone::{self, Keeper};
use super::words::so_far;
use super::{FAILED, MAPPED, NAMESPACE, NO_NAMESPACE, READY};
use crate::limits;

/// How to start a walker.
#[derive(Clone, Debug)]
pub struct Command {
    /// The program, which is this one.
    pub program: PathBuf,
    /// The arguments with which it calls [`run_walker`](crate::run_walker) on a clone of its
    /// standard input, before it starts a thread.
    pub arguments: Vec<OsString>,
    /// Where the walker starts, entered before it loses its rights: a [`Request`](crate::Request)
    /// for the directory `.` reads a tree that the container's root user could not go to.
    pub directory: Option<PathBuf>,
    /// The container's users. Without a map the walker stays who its parent is: root, for a
    /// privileged container.
    pub id_map: Option<IdMap>,
}

/// A walker's process. It ends, at the latest, when this is dropped, or when the process that started
/// it ends, and with it all that it may have started.
#[derive(Debug)]
pub struct Walker {
    /// Until it was waited for.
    child: Option<Child>,
    /// Readable once it has ended.
    end: OwnedFd,
    socket: Option<OwnedFd>,
    _keeper: Keeper,
}

impl Command {
    /// Starts it. An error is of kind `Source` and says what the walker could not do.
    pub fn spawn(&self) -> Result<Walker> {
        let failed = |error: io::Error| {
            let what = format!("the walker {} cannot be started", self.program.display());
            Error::with_source(ErrorKind::Source, what, error)
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        enlarge(&theirs);
        let mut command = process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .current_dir(self.directory.as_deref().unwrap_or(Path::new("/")))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let (child, keeper) = alone::start(command).map_err(failed)?;
        let mut walker = Walker::of(child, keeper)?;
        match self.begin(&ours, &walker) {
            Ok(()) => {
                walker.socket = Some(ours.into());
                Ok(walker)
            }
            Err(why) => {
                let words = walker.last_words(limits::LAST_WORDS);
                let what = format!("the walker cannot start: {why}; {words}");
                Err(Error::new(ErrorKind::Source, what))
            }
        }
    }

    fn begin(&self, socket: &UnixStream, walker: &Walker) -> Result<(), String> {
        let deadline = Instant::now() + limits::START;
        let order = self.id_map.as_ref().map_or(NO_NAMESPACE, |_| NAMESPACE);
        say(socket, order)?;
        if let Some(map) = &self.id_map {
            ready(socket, deadline)?;
            let id = walker.child.as_ref().map_or(0, Child::id);
            write_map(id, "uid_map", map.users())?;
            write_map(id, "gid_map", map.groups())?;
            say(socket, MAPPED)?;
        }
        ready(socket, deadline)
    }
}

impl Walker {
    fn of(mut child: Child, keeper: Keeper) -> Result<Self> {
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let opened = id
            .ok_or(Errno::SRCH)
            .and_then(|id| pidfd_open(id, PidfdFlags::empty()));
        match opened {
            Ok(end) => Ok(Self {
                child: Some(child),
                end,
                socket: None,
                _keeper: keeper,
            }),
            Err(errno) => {
                drop(child.kill().and_then(|()| child.wait()));
                let what = "the walker's process cannot be watched";
                Err(Error::with_source(
                    ErrorKind::Source,
                    what,
                    io::Error::from(errno),
                ))
            }
        }
    }

    /// The process ID.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The way to talk to it, once.
    pub(crate) fn take_socket(&mut self) -> Result<OwnedFd> {
        self.socket
            .take()
            .ok_or_else(|| Error::new(ErrorKind::Protocol, "the walker is pulled from already"))
    }

    /// How it ended, and what it said about that. It is given some time to end, and then killed.
    pub(crate) fn last_words(&mut self, patience: Duration) -> String {
        if !self.ends_within(patience) {
            let Some(child) = &mut self.child else {
                return "it has ended".into();
            };
            if child.kill().is_err() || !self.ends_within(limits::REAP) {
                return "it does not end, not even killed".into();
            }
        }
        let Some(mut child) = self.child.take() else {
            return "it has ended".into();
        };
        let ended = match child.wait() {
            Ok(status) => format!("it ended with {status}"),
            Err(error) => format!("how it ended is unknown: {error}"),
        };
        // All that it said is there already.
        let said = child.stderr.take().map(so_far).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        if said.is_empty() {
            return ended;
        }
        let said: String = said.chars().flat_map(char::escape_debug).collect();
        format!("{ended} and said: {said}")
    }

    fn ends_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
            match poll(&mut [PollFd::new(&self.end, PollFlags::IN)], left.as_ref()) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Walker {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // It may have ended, and nothing can be done about one that cannot be killed.
        drop(child.kill());
        if self.ends_within(limits::REAP) {
            drop(child.wait());
        } else {
            // It is stuck in the kernel, as with a disk that is gone. Nobody is to wait for that.
            thread::spawn(move || child.wait());
        }
    }
}

/// More room in the socket means fewer turns. Whoever may not have more makes do with less.
fn enlarge(socket: &UnixStream) {
    let size = limits::SEND_BYTES * 2;
    if set_socket_send_buffer_size_force(socket, size).is_err() {
        set_socket_send_buffer_size(socket, size).ok();
    }
}

fn write_map(id: u32, file: &str, ranges: &[IdRange]) -> Result<(), String> {
    let line = |range: &IdRange| format!("{} {} {}\n", range.container, range.host, range.count);
    let map: String = ranges.iter().map(line).collect();
    if map.len() > limits::MAP_BYTES_MAX {
        return Err(format!(
            "its {file} would be longer than the kernel takes: write the ID map with fewer ranges"
        ));
    }
    let path = format!("/proc/{id}/{file}");
    // The kernel takes a map in one write and once.
    let written = fs::OpenOptions::new().write(true).open(&path);
    let written = written.and_then(|mut file: File| file.write_all(map.as_bytes()));
    written.map_err(|error| format!("its {file} cannot be written: {error}"))
}

fn say(mut socket: &UnixStream, word: u8) -> Result<(), String> {
    let said = socket.write_all(&[word]);
    said.map_err(|error| format!("it does not listen: {error}"))
}

/// Waits until it says that it is ready.
fn ready(mut socket: &UnixStream, deadline: Instant) -> Result<(), String> {
    let mut hear = |into: &mut [u8]| loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // No time would mean no limit.
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match socket.read(into) {
            // Whoever is sent a signal notices it elsewhere.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            heard => return heard,
        }
    };
    let mut word = [0];
    let failed = |error: io::Error| format!("it does not answer: {error}");
    if hear(&mut word).map_err(failed)? == 0 {
        return Err("it hung up".into());
    }
    match word[0] {
        READY => Ok(()),
        FAILED => {
            let mut why = vec![0; limits::WHY_BYTES_MAX];
            let length = hear(&mut why).map_err(failed)?;
            let why = String::from_utf8_lossy(&why[..length]);
            Err(why.chars().flat_map(char::escape_debug).collect())
        }
        _ => Err("it is no walker".into()),
    }
}
