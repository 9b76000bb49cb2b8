//! The one error of this crate, and the error numbers of the protocol.
//!
//! A message names the export and the socket and says what was being done; a system error is its
//! source and is not repeated in it.

use std::error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why an operation failed. Cheap to clone.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    errno: Option<Errno>,
    message: String,
    source: Option<io::Error>,
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is wrong: out of range, not aligned, a malformed address. Fix the caller.
    Invalid,
    /// The server has no such export.
    NotFound,
    /// The peer does not speak or allow what this needs: no `NBD_OPT_GO`, TLS only, no such metadata
    /// context, a read-only export.
    Unsupported,
    /// Nobody answers at the socket, or the connection was lost. Connecting again may help.
    Unavailable,
    /// The peer was silent for longer than the time-out.
    Timeout,
    /// The server answered this request with an error number ([`Error::errno`]); the connection is
    /// still good.
    Refused,
    /// The peer broke the protocol; nothing it sent is to be trusted, the connection is closed.
    Protocol,
    /// The system refused something local: binding a socket, starting a thread.
    Io,
}

/// The error numbers of the protocol (proto.md, "Error values").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Errno {
    /// Operation not permitted.
    Permission,
    /// Input/output error.
    Io,
    /// Cannot allocate memory.
    NoMemory,
    /// Invalid argument; also what a client makes of any number it does not know.
    Invalid,
    /// No space left on device.
    NoSpace,
    /// Value too large.
    Overflow,
    /// Operation not supported.
    NotSupported,
    /// The server is being shut down.
    Shutdown,
}

impl Error {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The number a server gave, if it answered with an error.
    pub fn errno(&self) -> Option<Errno> {
        self.0.errno
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Fault::new(kind, message).into_error(None)
    }

    pub(crate) fn io(kind: ErrorKind, message: impl Into<String>, source: io::Error) -> Self {
        Fault {
            source: Some(source),
            ..Fault::new(kind, message)
        }
        .into_error(None)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("errno", &self.0.errno)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

impl Errno {
    /// The number on the wire.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::Permission => 1,
            Self::Io => 5,
            Self::NoMemory => 12,
            Self::Invalid => 22,
            Self::NoSpace => 28,
            Self::Overflow => 75,
            Self::NotSupported => 95,
            Self::Shutdown => 108,
        }
    }

    /// The error of a number other than zero; one that the protocol does not define counts as
    /// [`Errno::Invalid`], as proto.md asks of clients.
    pub fn from_wire(number: u32) -> Self {
        match number {
            1 => Self::Permission,
            5 => Self::Io,
            12 => Self::NoMemory,
            28 => Self::NoSpace,
            75 => Self::Overflow,
            95 => Self::NotSupported,
            108 => Self::Shutdown,
            _ => Self::Invalid,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permission => "operation not permitted (EPERM)",
            Self::Io => "input/output error (EIO)",
            Self::NoMemory => "cannot allocate memory (ENOMEM)",
            Self::Invalid => "invalid argument (EINVAL)",
            Self::NoSpace => "no space left on device (ENOSPC)",
            Self::Overflow => "value too large (EOVERFLOW)",
            Self::NotSupported => "operation not supported (ENOTSUP)",
            Self::Shutdown => "server is shutting down (ESHUTDOWN)",
        })
    }
}

/// What went wrong inside a protocol machine or on a socket, before it is known which export and
/// which operation that concerns.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) errno: Option<Errno>,
    pub(crate) message: String,
    pub(crate) source: Option<io::Error>,
}

impl Fault {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            errno: None,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, message)
    }

    /// A failed system call on a connected socket whose time-out is `limit`.
    pub(crate) fn socket(source: io::Error, doing: &str, limit: Duration) -> Self {
        use io::ErrorKind as Io;
        if matches!(source.kind(), Io::WouldBlock | Io::TimedOut) {
            return Self::new(
                ErrorKind::Timeout,
                format!("the peer was silent or too slow for {limit:?} while {doing}"),
            );
        }
        Self::lost(source, doing)
    }

    /// A failed system call on a connected socket without a time-out.
    pub(crate) fn lost(source: io::Error, doing: &str) -> Self {
        let message = format!("the connection failed while {doing}");
        Self {
            source: Some(source),
            ..Self::new(ErrorKind::Unavailable, message)
        }
    }

    pub(crate) fn closed(doing: &str) -> Self {
        Self::new(
            ErrorKind::Unavailable,
            format!("the peer closed the connection while {doing}"),
        )
    }

    /// Makes the public error, with what was being done to what in front.
    pub(crate) fn into_error(self, doing: Option<&str>) -> Error {
        let Self {
            kind,
            errno,
            message,
            source,
        } = self;
        let message = match doing {
            Some(doing) => format!("{doing}: {message}"),
            None => message,
        };
        Error(Arc::new(Inner {
            kind,
            errno,
            message,
            source,
        }))
    }
}
