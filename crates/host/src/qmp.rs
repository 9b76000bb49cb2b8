//! One connection to a QEMU monitor: the framing, the replies and the events of QMP.
//!
//! Messages are lines of JSON. Every command has an identifier of its own, so that the reply to a
//! command that was given up is not taken for the reply to the next one. Events that nobody here
//! knows are dropped when they come.

use std::collections::VecDeque;
use std::error::Error as _;
use std::io::{self, ErrorKind as IoKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};
use snapkeep_api::{Clock, Error, ErrorKind, Result};

use crate::limits::{EVENTS_MAX, MESSAGE_BYTES_MAX, MESSAGES_PER_REPLY_MAX, Timeouts};

pub(crate) mod schema;

/// Bytes asked of the socket at once.
const READ_SIZE: usize = 64 << 10;
/// A monitor whose queue of callers is full is tried again after this long.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// The events that somebody here waits for.
const KNOWN_EVENTS: &[&str] = &["BLOCK_EXPORT_DELETED", "BLOCK_JOB_COMPLETED"];
/// Commands that wait until the guest's requests are done.
const DRAINING: &[&str] = &[
    "stop",
    "cont",
    "transaction",
    "qom-set",
    "blockdev-reopen",
    "blockdev-add",
    "blockdev-del",
    "nbd-server-stop",
    "backup-access-teardown",
];

/// How a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// QEMU refused it: nothing was done.
    Refused(Error),
    /// There is no answer: it may have been done, or not.
    Unknown(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) | Failure::Unknown(error) => error,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
}

#[derive(Debug)]
pub(crate) struct Monitor {
    socket: PathBuf,
    stream: UnixStream,
    clock: Arc<dyn Clock>,
    timeouts: Timeouts,
    /// What was received and not yet taken; never more than a message and one read.
    buffer: Vec<u8>,
    /// Bytes of `buffer` in which no end of line is.
    searched: usize,
    events: VecDeque<Event>,
    last_id: u64,
    /// Why the connection is of no use any more.
    broken: Option<Error>,
}

impl Monitor {
    /// Connects, reads the greeting and leaves the negotiation. Also returns the version.
    pub(crate) fn connect(
        socket: &Path,
        clock: Arc<dyn Clock>,
        timeouts: Timeouts,
    ) -> Result<(Self, Value)> {
        let deadline = clock.monotonic() + timeouts.greeting;
        let stream = open(socket, &*clock, deadline)?;
        let mut monitor = Self {
            socket: socket.to_owned(),
            stream,
            clock,
            timeouts,
            buffer: Vec::new(),
            searched: 0,
            events: VecDeque::new(),
            last_id: 0,
            broken: None,
        };
        let Some(greeting) = monitor.message(deadline)? else {
            let what = format!(
                "the monitor {} did not greet within {} seconds: a monitor serves one client at a time; \
                 end the other one, or give QEMU a second monitor",
                socket.display(),
                timeouts.greeting.as_secs_f32()
            );
            return Err(Error::new(ErrorKind::Unavailable, what));
        };
        let version = greeting["QMP"]["version"].clone();
        if version.is_null() {
            return Err(monitor.not_qmp("its first message is no greeting"));
        }
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok((monitor, version))
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Ends the connection.
    pub(crate) fn hang_up(&mut self) {
        let what = format!(
            "the connection to the monitor {} was ended",
            self.socket.display()
        );
        self.give_up(Error::new(ErrorKind::Unavailable, what));
        // If it fails, the other end has closed it.
        drop(self.stream.shutdown(std::net::Shutdown::Both));
    }

    /// Runs one command.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "arguments are made for one command"
    )]
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Failure> {
        let limit = if DRAINING.contains(&command) {
            self.timeouts.drain
        } else {
            self.timeouts.command
        };
        let deadline = self.clock.monotonic() + limit;
        self.last_id += 1;
        let id = self.last_id;
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        self.send(line.as_bytes(), command, limit)
            .map_err(Failure::Unknown)?;
        for _ in 0..MESSAGES_PER_REPLY_MAX {
            let Some(message) = self.message(deadline).map_err(Failure::Unknown)? else {
                let what = format!(
                    "QEMU at {} did not answer {command} within {} seconds; it may still do it later",
                    self.socket.display(),
                    limit.as_secs_f32()
                );
                return Err(Failure::Unknown(Error::new(ErrorKind::Unavailable, what)));
            };
            if message.get("event").is_some() {
                self.keep(&message);
                continue;
            }
            if message["id"].as_u64() != Some(id) {
                // The late reply to a command that was given up.
                continue;
            }
            if let Some(value) = message.get("return") {
                return Ok(value.clone());
            }
            let text = |field: &str| message["error"][field].as_str().unwrap_or("?").to_owned();
            let what = format!(
                "QEMU at {} refused {command}: {} ({})",
                self.socket.display(),
                text("desc"),
                text("class")
            );
            return Err(Failure::Refused(Error::new(ErrorKind::Source, what)));
        }
        let why = format!("{MESSAGES_PER_REPLY_MAX} messages came before the reply to {command}");
        Err(Failure::Unknown(self.not_qmp(&why)))
    }

    /// Waits until an event is there for which `wanted` holds, and takes it. `false` if the time
    /// is over before.
    pub(crate) fn wait_for(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<bool> {
        let deadline = self.clock.monotonic() + limit;
        loop {
            if let Some(at) = self.events.iter().position(&wanted) {
                self.events.remove(at);
                return Ok(true);
            }
            match self.message(deadline)? {
                Some(message) => self.keep(&message),
                None => return Ok(false),
            }
        }
    }

    fn keep(&mut self, message: &Value) {
        let name = message["event"].as_str().unwrap_or_default();
        if KNOWN_EVENTS.contains(&name) {
            if self.events.len() == EVENTS_MAX {
                self.events.pop_front();
            }
            self.events.push_back(Event {
                name: name.to_owned(),
                data: message["data"].clone(),
            });
        }
    }

    fn send(&mut self, bytes: &[u8], command: &str, limit: Duration) -> Result<()> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let sent = (self.stream)
            .set_write_timeout(Some(limit))
            .and_then(|()| self.stream.write_all(bytes));
        sent.map_err(|e| {
            let what = format!(
                "cannot send {command} to the monitor {}: is QEMU still running?",
                self.socket.display()
            );
            self.give_up(Error::with_source(ErrorKind::Unavailable, what, e))
        })
    }

    /// The next message; `None` if it has not come in time.
    fn message(&mut self, deadline: Duration) -> Result<Option<Value>> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        loop {
            if let Some(line) = self.take_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let message: Value = match serde_json::from_slice(&line) {
                    Ok(message) => message,
                    Err(_) => return Err(self.not_qmp("it sent something that is not JSON")),
                };
                if !message.is_object() {
                    return Err(self.not_qmp("it sent something that is no object"));
                }
                return Ok(Some(message));
            }
            if self.buffer.len() > MESSAGE_BYTES_MAX {
                let why = format!("it sent a message of more than {MESSAGE_BYTES_MAX} bytes");
                return Err(self.not_qmp(&why));
            }
            let left = deadline.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return Ok(None);
            }
            self.receive(left)?;
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer[self.searched..]
            .iter()
            .position(|&byte| byte == b'\n');
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(self.searched + end + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    fn receive(&mut self, limit: Duration) -> Result<()> {
        let start = self.buffer.len();
        self.buffer.resize(start + READ_SIZE, 0);
        let got = (self.stream)
            .set_read_timeout(Some(limit))
            .and_then(|()| self.stream.read(&mut self.buffer[start..]));
        self.buffer.truncate(start + *got.as_ref().unwrap_or(&0));
        match got {
            Ok(0) => {
                let what = format!(
                    "the monitor {} closed the connection: QEMU has ended",
                    self.socket.display()
                );
                Err(self.give_up(Error::new(ErrorKind::Unavailable, what)))
            }
            Ok(_) => Ok(()),
            Err(e)
                if matches!(
                    e.kind(),
                    IoKind::WouldBlock | IoKind::TimedOut | IoKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(e) => {
                let what = format!("cannot read from the monitor {}", self.socket.display());
                Err(self.give_up(Error::with_source(ErrorKind::Unavailable, what, e)))
            }
        }
    }

    fn not_qmp(&mut self, why: &str) -> Error {
        let what = format!(
            "{} does not speak QMP: {why}; name the socket of a monitor in mode control (-qmp)",
            self.socket.display()
        );
        self.give_up(Error::new(ErrorKind::Protocol, what))
    }

    fn give_up(&mut self, error: Error) -> Error {
        self.broken = Some(error.clone());
        error
    }
}

/// Whether a connection failed because no process listens at the socket: a QEMU does as long as it
/// lives.
pub(crate) fn nobody_listens(error: &Error) -> bool {
    let cause = error.source().and_then(|e| e.downcast_ref::<io::Error>());
    cause.is_some_and(|e| matches!(e.kind(), IoKind::ConnectionRefused | IoKind::NotFound))
}

/// Connects without waiting for ever: a Unix socket whose queue of callers is full blocks.
pub(crate) fn open(socket: &Path, clock: &dyn Clock, deadline: Duration) -> Result<UnixStream> {
    let failed = |e: rustix::io::Errno| {
        let what = format!(
            "cannot connect to the monitor {}: is QEMU running, and is this its QMP socket?",
            socket.display()
        );
        Error::with_source(ErrorKind::Unavailable, what, io::Error::from(e))
    };
    let address = SocketAddrUnix::new(socket).map_err(|_| {
        let what = format!("{} is too long for a Unix socket", socket.display());
        Error::new(ErrorKind::Invalid, what)
    })?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let end = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(failed)?;
    loop {
        match rustix::net::connect(&end, &address) {
            Ok(()) => break,
            Err(rustix::io::Errno::AGAIN) if clock.monotonic() < deadline => {
                clock.sleep(BUSY_PAUSE);
            }
            Err(rustix::io::Errno::AGAIN) => {
                let what = format!(
                    "the monitor {} has no room for another client: end the other ones",
                    socket.display()
                );
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
            Err(e) => return Err(failed(e)),
        }
    }
    let stream = UnixStream::from(end);
    stream.set_nonblocking(false).map_err(|e| {
        let what = format!("cannot prepare the connection to {}", socket.display());
        Error::with_source(ErrorKind::Unavailable, what, e)
    })?;
    Ok(stream)
}
