//! Errors of a repository as errors of the contract.

use snapkeep_api::{ArchiveName, Error, ErrorKind};
use snapkeep_repo::{Repository, SnapshotName};

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

/// The same while an archive was read: what it lacks is no damage if it was removed meanwhile.
pub(crate) fn of_archive(
    from: &Repository,
    name: &ArchiveName,
    what: impl Into<String>,
    error: snapkeep_repo::Error,
) -> Error {
    use snapkeep_repo::ErrorKind as Kind;
    let lacks = matches!(error.kind(), Kind::NotFound | Kind::Corrupt);
    if lacks && is_removed(from, name) {
        let what = format!(
            "archive {name} was removed while it was read: it had been forgotten, and was pruned"
        );
        return Error::with_source(ErrorKind::NotFound, what, error);
    }
    repository(what, error)
}

fn is_removed(from: &Repository, name: &ArchiveName) -> bool {
    let name = name.as_str().parse::<SnapshotName>();
    let there = name.and_then(|name| from.any_snapshot(&name));
    there.is_err_and(|e| e.kind() == snapkeep_repo::ErrorKind::NotFound)
}
