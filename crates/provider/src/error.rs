//! Errors of a repository as errors of the contract.

use snapkeep_api::{Error, ErrorKind};

/// What the caller of the contract can do about a repository's error while `what` was done.
pub(crate) fn repository(what: impl Into<String>, error: snapkeep_repo::Error) -> Error {
    use snapkeep_repo::ErrorKind as Kind;
    let kind = match error.kind() {
        Kind::NotFound => ErrorKind::NotFound,
        Kind::Corrupt => ErrorKind::Corrupt,
        Kind::Version => ErrorKind::Unsupported,
        Kind::Invalid | Kind::Protected => ErrorKind::Invalid,
        Kind::Cancelled => ErrorKind::Cancelled,
        Kind::Exists | Kind::WrongKey | Kind::Full | Kind::Io | _ => ErrorKind::Target,
    };
    Error::with_source(kind, what, error)
}
