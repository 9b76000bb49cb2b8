//! The conversation: one thread reads and watches, the other makes one call after the other.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{any, io, net, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::Value;
use snapkeep_api::{Error, ErrorKind, Result};

use crate::backend::Backend;
use crate::call::Call;
use crate::interrupt::Interrupt;
use crate::log::{Failure, Log};
use crate::message::{Lines, Message, Received};
use crate::process::Process;
use crate::session::Session;

/// Serves one child's whole life over this socket. Returns when the socket is at its end, or the
/// process that `hello` named is gone, and everything is torn down: nothing is mounted any more, and
/// what was not committed is gone.
///
/// The caller ignores `SIGTERM`, `SIGINT`, `SIGHUP` and `SIGPIPE`: a terminal sends them to whole
/// groups of processes, and it is for the other end to say when this one ends.
pub fn serve(socket: UnixStream, backend: Arc<dyn Backend>) -> Result<()> {
    let failed = |e: io::Error| {
        let what = "the conversation cannot begin";
        Error::with_source(ErrorKind::Protocol, what, e)
    };
    let (wake, woken) = UnixStream::pair().map_err(failed)?;
    wake.set_nonblocking(true).map_err(failed)?;
    woken.set_nonblocking(true).map_err(failed)?;
    let log = Arc::new(Log::new(socket.try_clone().map_err(failed)?));
    let ours = socket.try_clone().map_err(failed)?;
    let shared = Arc::new(Shared {
        inbox: Mutex::default(),
        filled: Condvar::new(),
        wake,
        starter: OnceLock::new(),
        interrupt: Arc::default(),
    });
    let reader = Reader {
        socket,
        woken,
        shared: Arc::clone(&shared),
        lines: Lines::new(),
    };
    let reading = thread::Builder::new().name("reader".to_owned());
    let reading = reading.spawn(move || reader.run()).map_err(failed)?;
    let mut session = Session::new(backend, Arc::clone(&log), Arc::clone(&shared.interrupt));
    while let Some(next) = shared.next() {
        if !converse(&mut session, &shared, &log, next) {
            break;
        }
    }
    // The reader sees this as the end, too.
    ours.shutdown(net::Shutdown::Both).ok();
    shared.interrupt.cancel();
    session.end();
    reading.join().map_err(|_| {
        let what = "the reader of the conversation ended in a panic, which is a bug";
        Error::new(ErrorKind::Protocol, what)
    })
}

/// Makes a call; whether the conversation goes on.
fn converse(session: &mut Session, shared: &Shared, log: &Log, next: Result<Vec<u8>>) -> bool {
    let message = match next.and_then(|line| Message::parse(&line)) {
        Ok(message) => message,
        // Whose call it was is not known, so that whoever made it would wait for ever.
        Err(error) => {
            log.begin(String::new());
            log.answer(Err(error.into()));
            return false;
        }
    };
    log.begin(message.id);
    let is_hello = message.call == "hello";
    shared.begin(match message.call.as_str() {
        "hello" => Running::Nothing,
        "backup_container" => Running::Container,
        _ => Running::Call,
    });
    let result = answer(session, &message.call, message.args);
    if is_hello
        && result.is_ok()
        && let Some(starter) = session.starter()
    {
        shared.starter.get_or_init(|| starter);
        shared.wake();
    }
    // Before the answer is there: the next call is one that nobody interrupted.
    shared.end();
    log.answer(result);
    true
}

fn answer(session: &mut Session, call: &str, args: Value) -> Result<Value, Failure> {
    let run = AssertUnwindSafe(|| session.call(Call::parse(call, args)?));
    let result = match catch_unwind(run) {
        Ok(result) => result.map_err(Failure::from),
        Err(panic) => Err(Failure::panicked(said(&*panic))),
    };
    match result {
        // Its caller would end the whole job.
        Err(failure) if call == "backup_handle_log_file" => {
            session.warn(&format!("the task log is not kept: {}", failure.message()));
            Ok(Value::Null)
        }
        result => result,
    }
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("nothing")
}

/// What the two threads share.
struct Shared {
    inbox: Mutex<Inbox>,
    filled: Condvar,
    wake: UnixStream,
    /// Once `hello` named it.
    starter: OnceLock<Arc<Process>>,
    interrupt: Arc<Interrupt>,
}

#[derive(Default)]
struct Inbox {
    next: Option<Next>,
    running: Running,
}

/// What runs while another line comes, which says that nobody waits for it any more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Running {
    /// Nothing, or what is left alone.
    #[default]
    Nothing,
    /// A call of which the name is not known yet.
    Unknown,
    /// The backup of a container. A process of its own waits for it; once that is killed, its
    /// caller goes on with the guest's end, and the other guests are not concerned.
    Container,
    /// Any other call: its caller was interrupted, and all is to end.
    Call,
}

enum Next {
    Line(Vec<u8>),
    /// What came is no line.
    Broken(Error),
    End,
}

impl Shared {
    /// The next line; `None` at the end.
    fn next(&self) -> Option<Result<Vec<u8>>> {
        let mut inbox = self.inbox();
        loop {
            match inbox.next.take() {
                Some(Next::End) => return None,
                Some(Next::Line(line)) => {
                    inbox.running = Running::Unknown;
                    drop(inbox);
                    self.wake();
                    return Some(Ok(line));
                }
                Some(Next::Broken(error)) => return Some(Err(error)),
                None => {
                    let waited = self.filled.wait(inbox);
                    inbox = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// The line that came last is this call. Another one may have come since.
    fn begin(&self, running: Running) {
        let mut inbox = self.inbox();
        self.interrupt.begin();
        inbox.running = running;
        if inbox.next.is_some() {
            self.interrupt_what_runs(running);
        }
    }

    fn end(&self) {
        self.inbox().running = Running::Nothing;
    }

    fn interrupt_what_runs(&self, running: Running) {
        match running {
            Running::Nothing | Running::Unknown => {}
            Running::Container => self.interrupt.cancel_part(),
            Running::Call => self.interrupt.cancel(),
        }
    }

    /// Has the reader look at everything again.
    fn wake(&self) {
        // If there is no room, it is awake already.
        io::Write::write(&mut &self.wake, &[0]).ok();
    }

    fn put(&self, next: Next) {
        let mut inbox = self.inbox();
        match next {
            Next::Line(_) => self.interrupt_what_runs(inbox.running),
            Next::Broken(_) | Next::End => self.interrupt.cancel(),
        }
        inbox.next = Some(next);
        drop(inbox);
        self.filled.notify_one();
    }

    fn is_full(&self) -> bool {
        self.inbox().next.is_some()
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one line ahead, and sees the end of the socket and of the starter also while a call runs.
struct Reader {
    socket: UnixStream,
    woken: UnixStream,
    shared: Arc<Shared>,
    lines: Lines,
}

impl Reader {
    fn run(mut self) {
        while self.step() {}
    }

    /// Whether it goes on.
    fn step(&mut self) -> bool {
        let full = self.shared.is_full();
        let mut received = if full {
            Received::Part
        } else {
            self.lines.take()
        };
        if received == Received::Part {
            let Some(readable) = self.wait(full) else {
                return false;
            };
            if full || !readable {
                return true;
            }
            received = match self.lines.receive(&self.socket) {
                Ok(received) => received,
                Err(_) => return false,
            };
        }
        match received {
            Received::Line(line) => self.shared.put(Next::Line(line)),
            Received::Part => {}
            Received::End => return false,
            Received::TooLong => {
                let what = "what came is longer than a message may be";
                self.shared
                    .put(Next::Broken(Error::new(ErrorKind::Protocol, what)));
                // The worker shuts the socket down when it has said so. Until then nothing is read.
                while self.wait(true).is_some() {}
                return false;
            }
        }
        true
    }

    /// Waits for something; whether the socket can be read. `None` is the end of the socket or of the
    /// starter. What is in the socket stays there while a line waits for the worker.
    fn wait(&self, full: bool) -> Option<bool> {
        let wanted = if full {
            PollFlags::RDHUP
        } else {
            PollFlags::IN
        };
        let mut all = vec![
            PollFd::new(&self.socket, wanted),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        if let Some(starter) = self.shared.starter.get() {
            all.push(PollFd::from_borrowed_fd(starter.as_fd(), PollFlags::IN));
        }
        match poll(&mut all, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Some(false),
            Err(_) => return None,
        }
        let seen: Vec<PollFlags> = all.iter().map(PollFd::revents).collect();
        if seen.get(2).is_some_and(|flags| !flags.is_empty()) {
            return None;
        }
        if !seen[1].is_empty() {
            // However many there are, one look is enough.
            io::Read::read(&mut &self.woken, &mut [0; 64]).ok();
        }
        if full {
            return seen[0].is_empty().then_some(false);
        }
        Some(!seen[0].is_empty())
    }
}

/// However it ends, the worker must see it.
impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.put(Next::End);
        // Whoever writes to a caller that does not read is to stop.
        self.socket.shutdown(net::Shutdown::Both).ok();
    }
}
