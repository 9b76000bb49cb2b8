//! What goes to the caller: lines of the log, and the answers.

use std::collections::VecDeque;
use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use serde_json::{Value, json};
use snapkeep_api::{Error, ErrorKind, Level, TaskLog};

use crate::limits;

/// The way to the caller. Lines of the log are told at once while a call runs, and else with the next.
pub(crate) struct Log(Mutex<State>);

struct State {
    socket: UnixStream,
    /// The call that runs.
    id: Option<String>,
    waiting: VecDeque<(Level, String)>,
    /// So many were dropped before those that wait.
    dropped: u64,
}

/// Why a call has no result.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    kind: &'static str,
    message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            kind: word(error.kind()),
            message: error.chain(),
        }
    }
}

impl Failure {
    /// The call ended in a panic, which said this.
    pub(crate) fn panicked(why: &str) -> Self {
        Self {
            kind: "panicked",
            message: format!("the call ended in a panic, which is a bug: {why}"),
        }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl Log {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self(Mutex::new(State {
            socket,
            id: None,
            waiting: VecDeque::new(),
            dropped: 0,
        }))
    }

    /// A call begins.
    pub(crate) fn begin(&self, id: String) {
        let mut state = self.state();
        state.id = Some(id);
        if state.dropped > 0 {
            let what = format!("{} earlier lines of the log were dropped", state.dropped);
            state.dropped = 0;
            state.tell(Level::Warn, &what);
        }
        while let Some((level, message)) = state.waiting.pop_front() {
            state.tell(level, &message);
        }
    }

    /// The call that began last is over.
    pub(crate) fn answer(&self, result: Result<Value, Failure>) {
        let mut state = self.state();
        let id = state.id.take().unwrap_or_default();
        let line = match result {
            Ok(result) => json!({"id": id, "result": result}).to_string(),
            Err(failure) => failed(&id, &failure),
        };
        if line.len() < limits::MESSAGE_BYTES_MAX {
            state.send(line);
        } else {
            let what = "the answer is longer than a message may be";
            let failure = Error::new(ErrorKind::Unsupported, what).into();
            state.send(failed(&id, &failure));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, level: Level, message: &str) {
        let level = match level {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "err",
        };
        let line = json!({"id": self.id, "log": level, "message": message});
        self.send(line.to_string());
    }

    /// Whether anybody hears it is seen by who reads from the socket.
    fn send(&mut self, mut line: String) {
        line.push('\n');
        let mut bytes = line.as_bytes();
        while !bytes.is_empty() {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

impl TaskLog for Log {
    fn log(&self, level: Level, message: &str) {
        if message.is_empty() {
            return;
        }
        let message = one_line(message);
        let mut state = self.state();
        if state.id.is_some() {
            state.tell(level, &message);
            return;
        }
        if state.waiting.len() == limits::LOG_LINES_MAX {
            state.waiting.pop_front();
            state.dropped += 1;
        }
        state.waiting.push_back((level, message));
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

fn failed(id: &str, failure: &Failure) -> String {
    let message = one_line(&failure.message);
    json!({"id": id, "error": {"kind": failure.kind, "message": message}}).to_string()
}

/// On one line, and not too long.
fn one_line(text: &str) -> String {
    let most = text.len().min(limits::LINE_BYTES_MAX);
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
    let line = &text[..end.unwrap_or(0)];
    line.trim_end().replace(['\n', '\r'], " ")
}

/// What a kind of errors is called in a message.
fn word(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "not-found",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Source => "source",
        ErrorKind::Target => "target",
        ErrorKind::Protocol => "protocol",
        ErrorKind::Invalid => "invalid",
        ErrorKind::Cancelled => "cancelled",
        // Kinds of later versions, too.
        ErrorKind::Unavailable | _ => "unavailable",
    }
}
