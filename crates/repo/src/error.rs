//! The error of the repository: a kind for the caller, a message for the human, a source for the log.

use std::error;
use std::fmt;
use std::sync::Arc;

/// The repository's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file, snapshot or chunk is not there.
    NotFound,
    /// The place itself in which files would be is not there, such as a bucket: that says nothing
    /// of any file.
    NoStorage,
    /// It is there already.
    Exists,
    /// Stored bytes are not what was written.
    Corrupt,
    /// The passphrase, key file or recovery kit does not open this repository.
    WrongKey,
    /// A format version or feature that this program does not know.
    Version,
    /// The storage has no room left.
    Full,
    /// Reading or writing the storage failed.
    Io,
    /// The storage does not allow it: credentials, permissions, a budget that is used up.
    Denied,
    /// The storage keeps the file from being removed until a time that was set when it was put.
    Locked,
    /// Somebody asked for the end.
    Cancelled,
    /// The archive is protected, or may be.
    Protected,
    /// A pruning was at work meanwhile: what an archive relies on was pruned while it was made, and
    /// made again, it is whole; or another pruning did what this one was to, and the next goes on.
    Swept,
    /// A name, option or size that cannot be used.
    Invalid,
}

/// An error of the repository.
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn error::Error + Send + Sync>>,
}

impl ErrorKind {
    /// Whether such an error says nothing of what is stored: the storage did not answer, was not
    /// allowed to, or was not asked.
    pub(crate) fn is_of_storage(self) -> bool {
        match self {
            Self::NoStorage
            | Self::Full
            | Self::Io
            | Self::Denied
            | Self::Locked
            | Self::Cancelled
            | Self::Invalid => true,
            Self::NotFound
            | Self::Exists
            | Self::Corrupt
            | Self::WrongKey
            | Self::Version
            | Self::Protected
            | Self::Swept => false,
        }
    }
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

    /// An error of the storage, about the object and the deed that the message names.
    pub fn io(message: impl Into<String>, error: std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::NotFound {
            ErrorKind::NotFound
        } else if is_full(&error) {
            ErrorKind::Full
        } else {
            ErrorKind::Io
        };
        Self::with_source(kind, message, error)
    }

    /// The object that the message names does not hold what was written.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
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

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
