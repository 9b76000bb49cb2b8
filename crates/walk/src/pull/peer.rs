//! The socket to the walker: messages in, answers out, and how long that may take.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use snapkeep_api::{Error, ErrorKind, Result};

use super::{Options, broken};
use crate::limits;
use crate::stream::{Fault, Header, header};
use crate::userns::{FAILED, NO_NAMESPACE, READY, Walker};

/// The walker, as far as it can be heard.
#[derive(Debug)]
pub(super) struct Peer {
    socket: OwnedFd,
    options: Options,
    /// What was received is `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Whose end can be explained.
    walker: Option<Walker>,
    /// Since when it says no more than that it lives.
    idle: Option<Instant>,
    /// For how long it may.
    pub(super) idle_limit: Duration,
}

impl Peer {
    pub(super) fn new(socket: OwnedFd, options: Options) -> Self {
        Self {
            socket,
            options,
            buffer: vec![0; limits::RECEIVE_BYTES],
            start: 0,
            end: 0,
            walker: None,
            idle: None,
            idle_limit: limits::IDLE,
        }
    }

    pub(super) fn with_walker(socket: OwnedFd, walker: Walker, options: Options) -> Self {
        Self {
            walker: Some(walker),
            ..Self::new(socket, options)
        }
    }

    /// Has a walker begin that is where it belongs.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.send(&[NO_NAMESPACE])?;
        self.fill(1)?;
        self.start += 1;
        match self.buffer[self.start - 1] {
            READY => Ok(()),
            FAILED => {
                // It says why, and hangs up.
                while self.end - self.start < limits::WHY_BYTES_MAX {
                    match self.receive(None) {
                        Ok(received) => self.end += received,
                        Err(_) => break,
                    }
                }
                let why = String::from_utf8_lossy(&self.buffer[self.start..self.end]);
                let why: String = why.chars().flat_map(char::escape_debug).collect();
                let what = format!("the walker cannot start: {why}");
                Err(Error::new(ErrorKind::Source, what))
            }
            _ => Err(broken(Fault("it is no walker"))),
        }
    }

    /// The beginning of the next message, which stays where it is: asked again, it is the same.
    pub(super) fn header(&mut self) -> Result<Header> {
        self.fill(limits::HEADER_BYTES)?;
        let mut bytes = [0; limits::HEADER_BYTES];
        bytes.copy_from_slice(&self.buffer[self.start..self.start + limits::HEADER_BYTES]);
        header(bytes).map_err(broken)
    }

    /// The payload of the message that `header` showed, which is over with that.
    pub(super) fn payload(&mut self, length: usize) -> Result<&[u8]> {
        self.fill(limits::HEADER_BYTES + length)?;
        let payload = self.start + limits::HEADER_BYTES;
        self.start = payload + length;
        Ok(&self.buffer[payload..self.start])
    }

    /// Goes into the payload of the message that `header` showed, for [`take`](Self::take).
    pub(super) fn begin_data(&mut self) {
        self.start += limits::HEADER_BYTES;
    }

    /// Takes some bytes of a payload, 1 or more. Room for many is filled without going through the buffer.
    pub(super) fn take(&mut self, into: &mut [u8]) -> Result<usize> {
        if self.start == self.end && into.len() >= limits::READ_BYTES_MIN {
            return self.receive(Some(into));
        }
        self.fill(1)?;
        let length = into.len().min(self.end - self.start);
        into[..length].copy_from_slice(&self.buffer[self.start..self.start + length]);
        self.start += length;
        Ok(length)
    }

    /// It said that it lives, which it may not do for ever instead of its work.
    pub(super) fn only_alive(&mut self) -> Result<()> {
        let since = *self.idle.get_or_insert_with(Instant::now);
        if since.elapsed() < self.idle_limit {
            return Ok(());
        }
        let seconds = self.idle_limit.as_secs();
        let what = format!(
            "the walk through the guest's files came no further for {seconds} seconds: their file \
             system is too slow, or the walker cannot be believed"
        );
        Err(Error::new(ErrorKind::Source, what))
    }

    /// It said something that its work brought.
    pub(super) fn said_something(&mut self) {
        self.idle = None;
    }

    pub(super) fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while !bytes.is_empty() {
            match send(&self.socket, bytes, flags) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN) => wait(&self.socket, &self.options, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                // What it said last is still to be read.
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }

    /// Has at least so many bytes.
    fn fill(&mut self, wanted: usize) -> Result<()> {
        while self.end - self.start < wanted {
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            }
            if self.buffer.len() - self.start < wanted {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            let received = self.receive(None)?;
            self.end += received;
        }
        Ok(())
    }

    /// Receives 1 byte or more, into the buffer's free end unless there is another place.
    fn receive(&mut self, into: Option<&mut [u8]>) -> Result<usize> {
        let into = into.unwrap_or(&mut self.buffer[self.end..]);
        loop {
            self.options.cancel.check()?;
            match recv(&self.socket, &mut *into, RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Err(ended(self.walker.as_mut())),
                Ok((received, _)) => return Ok(received),
                Err(Errno::AGAIN) => wait(&self.socket, &self.options, PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

/// Waits until the socket can be used.
fn wait(socket: &OwnedFd, options: &Options, events: PollFlags) -> Result<()> {
    let begin = Instant::now();
    loop {
        options.cancel.check()?;
        let left = options.hang_limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(silent(options.hang_limit));
        }
        let look = Timespec::try_from(left.min(limits::LOOK)).ok();
        match poll(&mut [PollFd::new(socket, events)], look.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
    }
}

fn silent(limit: Duration) -> Error {
    let seconds = limit.as_secs_f32();
    let what = format!(
        "the guest's files could not be read for {seconds} seconds: their file system hangs, or \
         the walker was stopped"
    );
    Error::new(ErrorKind::Source, what)
}

fn ended(walker: Option<&mut Walker>) -> Error {
    let mut what = "the walker ended before it told all of the guest's files".to_owned();
    if let Some(walker) = walker {
        what.push_str(": ");
        what.push_str(&walker.last_words(limits::LAST_WORDS));
    }
    Error::new(ErrorKind::Source, what)
}

fn failed(errno: Errno) -> Error {
    let what = "the socket to the walker failed";
    Error::with_source(ErrorKind::Source, what, std::io::Error::from(errno))
}
