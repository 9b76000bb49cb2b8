//! The contract's error: a kind for the caller, a message for the human, a source for the log.

use std::error;
use std::fmt;
use std::sync::Arc;

/// The contract's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The archive, volume or guest is not there.
    NotFound,
    /// The provider does not do this.
    Unsupported,
    /// Worth another try later.
    Unavailable,
    /// Stored bytes are not what was written.
    Corrupt,
    /// Reading the guest failed.
    Source,
    /// Where something is kept failed: the storage of the archives, whether written or read, the
    /// target of a restore, the room for old data.
    Target,
    /// The caller broke the contract, or a peer its protocol.
    Protocol,
    /// A name, option or size that cannot be used.
    Invalid,
    /// The user, or the system that stops, asked to end it: see [`Cancel`](crate::Cancel).
    Cancelled,
}

/// An error of the contract.
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a cause. The message says what was being done, to which object.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// An error with the error that caused it.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn error::Error + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }))
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message and those of all causes, on one line.
    pub fn chain(&self) -> String {
        let mut line = self.0.message.clone();
        let mut next = error::Error::source(self);
        while let Some(cause) = next {
            line.push_str(": ");
            line.push_str(&cause.to_string());
            next = cause.source();
        }
        line.replace('\n', " ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}
