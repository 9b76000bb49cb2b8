//! The server: exports of this process for NBD clients on the same machine.
//!
//! Every connection has one thread that reads requests and a bounded set of threads that answer
//! them, in whatever order they get done. Connections share nothing but the exports, so a client
//! that stalls or sends garbage hurts only itself. One connection has at most
//! [`ServerOptions::in_flight`] requests in work, whose data is at most
//! [`limits::MAX_CONNECTION_BYTES`].

mod answer;
mod connection;
mod listen;
mod queue;
mod status;

use std::collections::BTreeMap;
use std::error;
use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::address::Address;
use crate::error::{Errno, Error, ErrorKind, Result};
use crate::extent::{BASE_ALLOCATION, Extent};
use crate::handshake::server::Offer;
use crate::handshake::{BlockSizes, ExportFacts};
use crate::limits;
use crate::stream::Stream;
use crate::wire::transmit;

use listen::Listener;

/// A disk that the server shows to clients. Called from many threads at once.
///
/// Ranges are checked before: they lie within the export, and a read or write has at most
/// [`limits::MAX_PAYLOAD_BYTES`].
pub trait Export: Send + Sync {
    /// Bytes of the export; must not change while it is served.
    fn size(&self) -> u64;

    /// Whether clients may only read. A read-only export gets no call that changes it.
    fn is_read_only(&self) -> bool {
        true
    }

    /// Whether [`trim`](Self::trim) is worth asking for.
    fn can_trim(&self) -> bool {
        false
    }

    /// Fills the whole buffer or fails; never invents bytes.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ExportError>;

    /// Writes the whole buffer or fails.
    fn write_at(&self, offset: u64, buffer: &[u8]) -> Result<(), ExportError> {
        let what = format!(
            "writing {} bytes at {offset} of an export that is read-only",
            buffer.len()
        );
        Err(ExportError::new(Errno::Permission, what))
    }

    /// Makes a range read as zeroes; `may_punch` allows a hole. The default writes zeroes.
    fn write_zeroes(&self, offset: u64, length: u64, may_punch: bool) -> Result<(), ExportError> {
        let _ = may_punch;
        let zeroes = vec![0; limits::PAYLOAD_STEP_BYTES];
        let mut done = 0;
        while done < length {
            let part =
                usize::try_from(length - done).map_or(zeroes.len(), |left| left.min(zeroes.len()));
            self.write_at(offset + done, &zeroes[..part])?;
            done += u64::try_from(part).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Takes note that a range is not needed any more. Called only if [`can_trim`](Self::can_trim).
    fn trim(&self, offset: u64, length: u64) -> Result<(), ExportError> {
        let what =
            format!("trimming {length} bytes at {offset} of an export that cannot be trimmed");
        Err(ExportError::new(Errno::NotSupported, what))
    }

    /// Makes every write and trim that has returned durable.
    fn flush(&self) -> Result<(), ExportError> {
        Ok(())
    }

    /// The full names of the metadata contexts that [`extents`](Self::extents) answers for; must
    /// not change while it is served.
    fn contexts(&self) -> Vec<String> {
        vec![BASE_ALLOCATION.to_owned()]
    }

    /// The extents of one context: contiguous from `offset` on, none empty, at least up to
    /// `offset + length`. Called often (`qemu-img` asks twice for every extent), so answer from
    /// memory.
    fn extents(&self, context: &str, offset: u64, length: u64) -> Result<Vec<Extent>, ExportError>;
}

/// Why an export could not do what a client asked; the client gets both parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportError {
    /// The number for the client.
    pub errno: Errno,
    /// What happened, for the log and for clients that show messages.
    pub message: String,
}

impl ExportError {
    /// Of these parts.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self {
            errno,
            message: message.into(),
        }
    }
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.errno)
    }
}

impl error::Error for ExportError {}

/// Where a server's remarks go: one line each, without a newline. Called from any thread.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// How to serve.
#[derive(Clone)]
pub struct ServerOptions {
    /// Connections at once, 1 to [`limits::MAX_SERVER_CONNECTIONS`]; more are closed as they come.
    pub max_connections: usize,
    /// Requests of one connection in work at once, [`limits::MIN_SERVER_IN_FLIGHT`] to
    /// [`limits::MAX_SERVER_IN_FLIGHT`].
    pub in_flight: usize,
    /// How long a client may take for its handshake; [`limits::HANDSHAKE_TIMEOUT`] by default.
    /// Afterwards it may be silent for ever. More than nothing, at most [`limits::MAX_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// How long [`Server::stop`] lets clients take their answers; [`limits::STOP_GRACE`] by default,
    /// at most [`limits::MAX_TIMEOUT`].
    pub stop_grace: Duration,
    /// In `base:allocation`, holes shorter than this are reported as data: every extent costs a
    /// client such as `qemu-img` two round trips, and reading some zeroes is cheaper.
    pub coalesce_bytes: u64,
    /// What goes wrong with clients and exports; nothing is logged without it.
    pub log: Option<Log>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 32,
            in_flight: limits::MIN_SERVER_IN_FLIGHT,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            stop_grace: limits::STOP_GRACE,
            coalesce_bytes: 1024 * 1024,
            log: None,
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("max_connections", &self.max_connections)
            .field("in_flight", &self.in_flight)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("stop_grace", &self.stop_grace)
            .field("coalesce_bytes", &self.coalesce_bytes)
            .finish_non_exhaustive()
    }
}

/// A running server. Stops when dropped.
pub struct Server {
    shared: Arc<Shared>,
    /// Written to once, to wake the accepting thread.
    waker: UnixStream,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads of a server have in common.
struct Shared {
    /// Where it listens.
    address: Address,
    exports: BTreeMap<String, Arc<dyn Export>>,
    options: ServerOptions,
    stopping: AtomicBool,
    connections: Mutex<BTreeMap<u64, Running>>,
    /// Notified whenever a connection has ended.
    ended: Condvar,
}

/// A connection that is being served.
struct Running {
    /// To end it from outside; `None` once it has ended.
    stream: Option<Stream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to serve. For a TCP port of 0, [`address`](Self::address) tells the one that was taken.
    ///
    /// A Unix socket gets mode 0600. A socket file that nobody listens on is replaced; if somebody
    /// does, or if the file is no socket, this fails with [`ErrorKind::Io`].
    pub fn bind(
        address: Address,
        exports: BTreeMap<String, Arc<dyn Export>>,
        options: ServerOptions,
    ) -> Result<Self> {
        options.check()?;
        check_exports(&exports)?;
        address.check()?;
        let (listener, address) = Listener::bind(address)?;
        let doing = format!("starting the NBD server at {address}");
        let failed = |error| Error::io(ErrorKind::Io, doing.clone(), error);
        let (waker, woken) = UnixStream::pair().map_err(failed)?;
        let stopping = AtomicBool::new(false);
        let shared = Arc::new(Shared {
            address,
            exports,
            options,
            stopping,
            connections: Mutex::default(),
            ended: Condvar::new(),
        });
        let accepting = {
            let shared = Arc::clone(&shared);
            let run = move || listen::accept(&listener, &woken, &shared);
            thread::Builder::new()
                .name("nbd-accept".to_owned())
                .spawn(run)
                .map_err(failed)?
        };
        Ok(Self {
            shared,
            waker,
            accepting: Mutex::new(Some(accepting)),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// Takes no more requests, answers those that have come, ends every connection, and removes the
    /// socket. Clients that do not take their answers within [`ServerOptions::stop_grace`] do
    /// without, but an export that is being called is waited for. Must not be called from an export.
    /// Later calls do nothing.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // A waker that cannot take one more byte has been written to before.
        (&self.waker).write_all(&[0]).ok();
        let accepting = self
            .accepting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        join(accepting);
        // No connection is added any more.
        let mut running = self.shared.finish();
        for stream in running
            .values()
            .filter_map(|running| running.stream.as_ref())
        {
            stream.shutdown();
        }
        for connection in running.values_mut() {
            join(connection.thread.take());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exports: Vec<_> = self.shared.exports.keys().collect();
        f.debug_struct("Server")
            .field("address", self.address())
            .field("exports", &exports)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Logs what goes wrong at this address, with a client or an export.
    fn log(&self, who: &str, what: &str) {
        if let Some(log) = &self.options.log {
            log(&format!("NBD server at {}: {who}: {what}", self.address));
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Lets every connection answer what it has read, within the grace; returns all of them.
    fn finish(&self) -> BTreeMap<u64, Running> {
        let connections = self.connections();
        for stream in connections.values().filter_map(|one| one.stream.as_ref()) {
            stream.shutdown_reading();
        }
        let are_left = |connections: &mut BTreeMap<u64, Running>| {
            connections.values().any(|one| one.stream.is_some())
        };
        let grace = self.options.stop_grace;
        let (mut connections, _) = self
            .ended
            .wait_timeout_while(connections, grace, are_left)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *connections)
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        // Nothing that runs under the lock leaves the map half changed.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What clients are told about the exports.
    fn offers(&self) -> BTreeMap<String, Offer> {
        let offer = |export: &dyn Export| {
            let mut flags = transmit::HAS_FLAGS | transmit::CAN_MULTI_CONN;
            if export.is_read_only() {
                flags |= transmit::READ_ONLY;
            } else {
                flags |= transmit::SEND_FLUSH | transmit::SEND_FUA | transmit::SEND_WRITE_ZEROES;
                if export.can_trim() {
                    flags |= transmit::SEND_TRIM;
                }
            }
            let facts = ExportFacts {
                size: export.size(),
                flags,
                blocks: BlockSizes::DEFAULT,
            };
            Offer {
                facts,
                contexts: export.contexts(),
            }
        };
        self.exports
            .iter()
            .map(|(name, export)| (name.clone(), offer(export.as_ref())))
            .collect()
    }
}

impl ServerOptions {
    fn check(&self) -> Result<()> {
        let within = !self.handshake_timeout.is_zero()
            && self.handshake_timeout <= limits::MAX_TIMEOUT
            && self.stop_grace <= limits::MAX_TIMEOUT
            && (1..=limits::MAX_SERVER_CONNECTIONS).contains(&self.max_connections)
            && (limits::MIN_SERVER_IN_FLIGHT..=limits::MAX_SERVER_IN_FLIGHT)
                .contains(&self.in_flight);
        if within {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!("an NBD server cannot run with {self:?}"),
        ))
    }
}

fn check_exports(exports: &BTreeMap<String, Arc<dyn Export>>) -> Result<()> {
    let sound = |text: &str| text.len() <= limits::MAX_STRING_BYTES && !text.contains('\0');
    for (name, export) in exports {
        let contexts = export.contexts();
        let sound_contexts = contexts.len() <= limits::MAX_CONTEXTS
            && contexts
                .iter()
                .all(|context| sound(context) && context.contains(':'));
        if !sound(name) || !sound_contexts {
            let message = format!(
                "the NBD export {name:?} or one of its metadata contexts has an impossible name"
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    }
    if exports.len() > limits::MAX_EXPORTS_LISTED {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{} NBD exports are too many", exports.len()),
        ));
    }
    Ok(())
}

fn join(thread: Option<JoinHandle<()>>) {
    // The panic of a thread was reported where it happened; there is nothing left to clean up.
    if let Some(thread) = thread {
        thread.join().ok();
    }
}
