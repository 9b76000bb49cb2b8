//! The client: one export of one server, over a few connections.
//!
//! A calling thread takes a free connection, sends a bounded number of requests and itself reads
//! the replies until none is in flight, straight into the caller's memory. So nothing is ever in
//! flight that nobody reads: a client that stopped draining its socket could stall the server's
//! guest. A connection on which the protocol or a system call failed is closed and never used again;
//! a server's error reply is no such failure.

mod connection;
mod patience;
mod pool;
mod walk;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::error::{Errno, Error, ErrorKind, Fault, Result};
use crate::extent::{Extent, extents_of};
use crate::handshake::client::{Goal, Outcome};
use crate::handshake::{Agreed, BlockSizes, ExportFacts};
use crate::limits;
use crate::stream::Stream;
use crate::transmission::replies::{Asked, Refusal};
use crate::wire::{Style, command, transmit};

use connection::{Connection, Failure, Job, Memory, Status};
use pool::Pool;
pub use walk::Extents;

/// How to use a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The export's name; empty for the server's default export.
    pub export: String,
    /// Metadata contexts to ask for, by their full names. No other is asked for: on some exports
    /// even asking for `base:allocation` makes block status fail.
    pub contexts: Vec<String>,
    /// Connections to open if the server allows several; at least 1, at most
    /// [`limits::MAX_CONNECTIONS`]. Fewer are used if it has fewer to give.
    pub connections: usize,
    /// A peer that makes no progress for so long is given up; so is one that has not completed a
    /// reply after [`limits::REPLY_TIMEOUTS`] times as long, however it dribbles. More than nothing, at
    /// most [`limits::MAX_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            export: String::new(),
            contexts: Vec::new(),
            connections: 4,
            timeout: Duration::from_secs(60),
        }
    }
}

/// A connected client. Any number of threads may use it at once; each operation has one connection
/// for itself while it lasts.
pub struct Client {
    /// Export and socket, for messages.
    name: String,
    agreed: Agreed,
    /// To end the connections from outside.
    handles: Vec<Stream>,
    pool: Pool,
}

impl Client {
    /// Connects and enters transmission.
    ///
    /// Fails with [`ErrorKind::NotFound`] if the server lacks the export, [`ErrorKind::Unsupported`]
    /// if it speaks only older handshakes or TLS, [`ErrorKind::Timeout`] if it is silent.
    pub fn connect(address: &Address, options: &ClientOptions) -> Result<Self> {
        options.check()?;
        address.check()?;
        let name = format!("export {:?} at {address}", options.export);
        let doing = format!("connecting to {name}");
        let open = |timeout| {
            let goal = Goal::Go {
                export: options.export.clone(),
                contexts: options.contexts.clone(),
            };
            match Connection::open(address, goal, timeout) {
                Ok((stream, Outcome::Transmission(agreed))) => {
                    Connection::new(stream, &agreed, options.timeout)
                        .map(|connection| (connection, agreed))
                }
                Ok((_, Outcome::Listed(_))) => {
                    Err(Fault::protocol("the handshake ended without an export"))
                }
                Err(fault) => Err(fault),
            }
            .map_err(|fault| fault.into_error(Some(&doing)))
        };
        let (first, agreed) = open(options.timeout)?;
        let mut connections = vec![first];
        let wanted = if agreed.facts.has(transmit::CAN_MULTI_CONN) {
            options.connections
        } else {
            1
        };
        while connections.len() < wanted {
            // One connection is enough to work with, so a server that has no more to give is no
            // error; one that contradicts itself is.
            match open(options.timeout.min(limits::EXTRA_CONNECTION_TIMEOUT)) {
                Ok((_, other))
                    if other.facts != agreed.facts || !same_contexts(&other, &agreed) =>
                {
                    let message = format!("{doing}: two connections describe it differently");
                    return Err(Error::new(ErrorKind::Protocol, message));
                }
                Ok((connection, _)) => connections.push(connection),
                Err(error) if error.kind() == ErrorKind::Protocol => return Err(error),
                Err(_) => break,
            }
        }
        let handles = connections.iter().map(Connection::handle);
        let handles = handles
            .collect::<Result<_, Fault>>()
            .map_err(|fault| fault.into_error(Some(&doing)))?;
        Ok(Self {
            name,
            agreed,
            handles,
            pool: Pool::new(connections),
        })
    }

    /// Bytes of the export.
    pub fn size(&self) -> u64 {
        self.facts().size
    }

    /// Whether the server refuses to change the export.
    pub fn is_read_only(&self) -> bool {
        self.facts().is_read_only()
    }

    /// Whether [`trim`](Self::trim) can work.
    pub fn can_trim(&self) -> bool {
        self.facts().has(transmit::SEND_TRIM)
    }

    /// Whether [`flush`](Self::flush) can work.
    pub fn can_flush(&self) -> bool {
        self.facts().has(transmit::SEND_FLUSH)
    }

    /// Whether [`write_zeroes`](Self::write_zeroes) can work.
    pub fn can_write_zeroes(&self) -> bool {
        self.facts().has(transmit::SEND_WRITE_ZEROES)
    }

    /// Whether the server allows several connections at once.
    pub fn can_multi_conn(&self) -> bool {
        self.facts().has(transmit::CAN_MULTI_CONN)
    }

    /// How many connections were opened: as many as were asked for, or as the server had to give.
    pub fn connections(&self) -> usize {
        self.handles.len()
    }

    /// Ends all connections, from any thread: what runs fails, and so does everything later.
    pub fn interrupt(&self) {
        for handle in &self.handles {
            handle.shutdown();
        }
    }

    /// The server's size constraints.
    pub fn block_sizes(&self) -> BlockSizes {
        self.facts().blocks
    }

    /// Whether the export has a metadata context; `false` for one that was not in
    /// [`ClientOptions::contexts`].
    pub fn has_context(&self, context: &str) -> bool {
        self.context_number(context).is_some()
    }

    /// Fills the buffer from the export.
    ///
    /// Fails with [`ErrorKind::Invalid`] if the range is not inside the export or not aligned to the
    /// minimum block, and with [`ErrorKind::Refused`] if the server answers with an error. After any
    /// error the buffer's contents are unspecified.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (length, step) = (bytes(buffer.len()), self.largest_payload());
        let memory = Memory::Fill(buffer);
        self.run(
            Job {
                command: command::READ,
                asked: Asked::Read,
                offset,
                length,
                step,
                memory,
            },
            done,
        )
    }

    /// Writes the buffer to the export. Fails as [`read_at`](Self::read_at) does; after an error any
    /// part of the range may have been written.
    pub fn write_at(&self, offset: u64, buffer: &[u8]) -> Result<()> {
        self.check_writable("writing to")?;
        let (length, step) = (bytes(buffer.len()), self.largest_payload());
        let memory = Memory::Send(buffer);
        self.run(
            Job {
                command: command::WRITE,
                asked: Asked::Effect,
                offset,
                length,
                step,
                memory,
            },
            done,
        )
    }

    /// Makes a range read as zeroes; the server may punch a hole. [`ErrorKind::Unsupported`] if the
    /// server has no such command.
    pub fn write_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        self.check_writable("zeroing")?;
        self.check_can(self.can_write_zeroes(), "write zeroes to")?;
        self.run(effect(command::WRITE_ZEROES, offset, length), done)
    }

    /// Tells the server that a range is not needed any more. [`ErrorKind::Unsupported`] if the
    /// server has no such command.
    pub fn trim(&self, offset: u64, length: u64) -> Result<()> {
        self.check_writable("trimming")?;
        self.check_can(self.can_trim(), "trim")?;
        self.run(effect(command::TRIM, offset, length), done)
    }

    /// Makes every write that has returned durable, on whichever connection it went.
    /// [`ErrorKind::Unsupported`] if the server has no such command.
    pub fn flush(&self) -> Result<()> {
        self.check_can(self.can_flush(), "flush")?;
        self.run(effect(command::FLUSH, 0, 0), done)
    }

    /// The extents of one metadata context from `offset` on, as many as the server gives in one
    /// answer: at least one, without gaps, and not past `offset + length`.
    ///
    /// Fails with [`ErrorKind::Unsupported`] if the context was not asked for or the server does not
    /// have it, and with [`ErrorKind::Invalid`] for an empty range.
    pub fn block_status(&self, context: &str, offset: u64, length: u64) -> Result<Vec<Extent>> {
        let number = self.context_number(context).ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("{} has no metadata context {context:?}", self.name),
            )
        })?;
        if length == 0 {
            let message = format!("reading the block status of no bytes of {}", self.name);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let verb = "reading the block status of";
        self.check_range(verb, offset, length)?;
        let length = match self.agreed.style {
            Style::Simple | Style::Structured => length.min(limits::MAX_COMPACT_STATUS_BYTES),
            Style::Extended => length,
        };
        let (asked, memory) = (Asked::Status, Memory::None);
        let job = Job {
            command: command::BLOCK_STATUS,
            asked,
            offset,
            length,
            step: length,
            memory,
        };
        self.run(job, |status| {
            let found = status.into_iter().find(|(id, _)| *id == number);
            extents_of(
                &found
                    .map(|(_, descriptors)| descriptors)
                    .unwrap_or_default(),
                offset,
                length,
                self.facts(),
            )
        })
    }

    /// Walks a range by repeated [`block_status`](Self::block_status) calls. The extents cover the
    /// range without gap or overlap, neighbours differ in their flags, and the walk ends with the
    /// first error.
    pub fn extents(&self, context: &str, offset: u64, length: u64) -> Extents<&Self> {
        Extents::new(self, context, offset, length)
    }

    /// [`extents`](Self::extents) of the whole export, by an iterator that keeps the client alive.
    pub fn all_extents(self: Arc<Self>, context: &str) -> Extents<Arc<Self>> {
        let size = self.size();
        Extents::new(self, context, 0, size)
    }

    /// Runs a job on a connection of its own and makes of its status what `finish` does, whose
    /// failure is one of the protocol.
    fn run<T>(&self, job: Job<'_>, finish: impl FnOnce(Status) -> Result<T, Fault>) -> Result<T> {
        let Job {
            command,
            offset,
            length,
            ..
        } = job;
        let verb = verb(command);
        self.check_range(verb, offset, length)?;
        if length == 0 && command != command::FLUSH {
            return finish(Status::new()).map_err(|fault| fault.into_error(None));
        }
        let mut lease = self.pool.take(&self.name)?;
        let doing = || self.describe(verb, offset, length);
        let result = lease.connection().run(job);
        match result.and_then(|status| finish(status).map_err(Failure::Broken)) {
            Ok(done) => Ok(done),
            Err(Failure::Refused(refusal)) => {
                let error = refused(&refusal).into_error(Some(&doing()));
                if refusal.errno == Errno::Shutdown {
                    lease.leave(error.clone());
                }
                Err(error)
            }
            Err(Failure::Broken(fault)) => {
                let error = fault.into_error(Some(&doing()));
                lease.broken(error.clone());
                Err(error)
            }
        }
    }

    fn check_range(&self, verb: &str, offset: u64, length: u64) -> Result<()> {
        let invalid = |why: &str| {
            Err(Error::new(
                ErrorKind::Invalid,
                format!("{}: {why}", self.describe(verb, offset, length)),
            ))
        };
        if offset
            .checked_add(length)
            .is_none_or(|end| end > self.size())
        {
            return invalid(&format!("the export has {} bytes", self.size()));
        }
        let minimum = u64::from(self.facts().blocks.minimum);
        if !offset.is_multiple_of(minimum) || !length.is_multiple_of(minimum) {
            return invalid(&format!("the server wants multiples of {minimum} bytes"));
        }
        Ok(())
    }

    fn check_writable(&self, verb: &str) -> Result<()> {
        if self.is_read_only() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{verb} {}: it is read-only", self.name),
            ));
        }
        Ok(())
    }

    fn check_can(&self, can: bool, what: &str) -> Result<()> {
        if can {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("the server cannot {what} {}", self.name),
        ))
    }

    fn describe(&self, verb: &str, offset: u64, length: u64) -> String {
        format!("{verb} {length} bytes at {offset} of {}", self.name)
    }

    fn context_number(&self, context: &str) -> Option<u32> {
        self.agreed
            .contexts
            .iter()
            .find(|(_, name)| name == context)
            .map(|(id, _)| *id)
    }

    /// The largest read or write of one request: a multiple of the minimum block.
    fn largest_payload(&self) -> u64 {
        let BlockSizes {
            minimum, maximum, ..
        } = self.facts().blocks;
        let most = maximum.min(limits::MAX_CLIENT_REQUEST_BYTES);
        u64::from(most - most % minimum)
    }

    fn facts(&self) -> &ExportFacts {
        &self.agreed.facts
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .field("agreed", &self.agreed)
            .finish_non_exhaustive()
    }
}

/// The names of a server's exports, in the server's order.
pub fn list_exports(address: &Address, timeout: Duration) -> Result<Vec<String>> {
    address.check()?;
    check_timeout(timeout)?;
    let doing = format!("listing the exports at {address}");
    match Connection::open(address, Goal::List, timeout) {
        Ok((_, Outcome::Listed(names))) => Ok(names),
        Ok((_, Outcome::Transmission(_))) => {
            Err(Fault::protocol("the handshake ended without a list"))
        }
        Err(fault) => Err(fault),
    }
    .map_err(|fault| fault.into_error(Some(&doing)))
}

impl ClientOptions {
    fn check(&self) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Invalid, what));
        check_timeout(self.timeout)?;
        if self.connections == 0 || self.connections > limits::MAX_CONNECTIONS {
            return invalid(format!(
                "{} NBD connections, allowed are 1 to {}",
                self.connections,
                limits::MAX_CONNECTIONS
            ));
        }
        if self.contexts.len() > limits::MAX_CONTEXTS {
            return invalid(format!(
                "more than {} NBD metadata contexts",
                limits::MAX_CONTEXTS
            ));
        }
        for (index, context) in self.contexts.iter().enumerate() {
            if !context.contains(':') || self.contexts[..index].contains(context) {
                return invalid(format!(
                    "the NBD metadata context {context:?} is malformed or given twice"
                ));
            }
        }
        let names = self.contexts.iter().chain([&self.export]);
        for name in names {
            if name.len() > limits::MAX_STRING_BYTES || name.contains('\0') {
                return invalid(format!(
                    "an NBD name of {} bytes is too long or contains NUL",
                    name.len()
                ));
            }
        }
        Ok(())
    }
}

fn check_timeout(timeout: Duration) -> Result<()> {
    if timeout.is_zero() || timeout > limits::MAX_TIMEOUT {
        let most = limits::MAX_TIMEOUT;
        let message = format!("an NBD time-out of {timeout:?}, allowed is up to {most:?}");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

fn same_contexts(one: &Agreed, other: &Agreed) -> bool {
    // The numbers are each connection's own.
    one.style == other.style
        && one.contexts.len() == other.contexts.len()
        && one
            .contexts
            .iter()
            .all(|(_, name)| other.contexts.iter().any(|(_, known)| known == name))
}

fn verb(command: u16) -> &'static str {
    match command {
        command::READ => "reading",
        command::WRITE => "writing",
        command::TRIM => "trimming",
        command::WRITE_ZEROES => "zeroing",
        command::FLUSH => "flushing",
        _ => "reading the block status of",
    }
}

/// A job whose requests and replies carry no data.
fn effect(command: u16, offset: u64, length: u64) -> Job<'static> {
    let (asked, step, memory) = (Asked::Effect, limits::MAX_CLIENT_EFFECT_BYTES, Memory::None);
    Job {
        command,
        asked,
        offset,
        length,
        step,
        memory,
    }
}

/// What to make of the status of a job that has none.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the signature is that of every way to finish a job"
)]
fn done(_: Status) -> Result<(), Fault> {
    Ok(())
}

fn refused(refusal: &Refusal) -> Fault {
    let Refusal {
        errno,
        message,
        offset,
    } = refusal;
    let at = offset.map_or_else(String::new, |offset| format!(" at {offset}"));
    let said = if message.is_empty() {
        String::new()
    } else {
        format!(" and says: {message}")
    };
    let message = format!("the server answers {errno}{at}{said}");
    Fault {
        errno: Some(*errno),
        ..Fault::new(ErrorKind::Refused, message)
    }
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).expect("memory is smaller than 2^64 bytes")
}
