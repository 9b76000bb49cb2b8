//! What an error means to a caller: its exit code, and its word in JSON.

use std::process::ExitCode;

use anyhow::Error;

/// Exit codes; `docs/CLI.md` is their definition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Code {
    /// It could not be done.
    Failed = 1,
    /// The command line or the configuration cannot be used.
    Usage = 2,
    /// Stored bytes are not what was written.
    Damaged = 3,
    /// A signal ended it.
    Cancelled = 4,
    /// A repository, archive, guest, disk or file is not there.
    NotFound = 5,
    /// The key does not open the repository, or the program is too old for it.
    Locked = 6,
    /// It was done, but not all could be read, or written.
    Partial = 7,
    /// What was compared is different.
    Different = 8,
    /// `doctor` found what is still there.
    Left = 9,
}

impl Code {
    /// Its word in JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Damaged => "damaged",
            Self::Cancelled => "cancelled",
            Self::NotFound => "not-found",
            Self::Locked => "locked",
            Self::Partial => "partial",
            Self::Different => "different",
            Self::Left => "left",
        }
    }

    /// What an error means: what the command line itself found, however deep; otherwise the first
    /// in its chain that says so.
    pub(crate) fn of(error: &Error) -> Self {
        let own = (error.chain()).find_map(|cause| cause.downcast_ref::<Fault>());
        let library = |cause: &(dyn std::error::Error + 'static)| {
            if let Some(error) = cause.downcast_ref::<snapkeep_api::Error>() {
                return Some(of_contract(error.kind()));
            }
            (cause.downcast_ref::<snapkeep_repo::Error>()).map(|error| of_repository(error.kind()))
        };
        own.map(|fault| fault.code)
            .or_else(|| error.chain().find_map(library))
            .unwrap_or(Self::Failed)
    }
}

/// What to do about a repository's storage that is full, if that is the error.
pub(crate) fn advice(error: &Error) -> Option<&'static str> {
    let mut causes = error.chain();
    let full = causes.any(|cause| {
        (cause.downcast_ref::<snapkeep_repo::Error>())
            .is_some_and(|error| error.kind() == snapkeep_repo::ErrorKind::Full)
    });
    full.then_some(
        "the storage of the repository is full. Nothing that was stored before is harmed: all archives \
         can be listed and restored. Make room there (remove other files, or a reserve that is kept \
         for this) and do it again. `snapkeep forget` and then `snapkeep prune` free room too, and \
         need a little themselves, 128 KiB at least",
    )
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

fn of_contract(kind: snapkeep_api::ErrorKind) -> Code {
    use snapkeep_api::ErrorKind as Kind;
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::Corrupt => Code::Damaged,
        Kind::Cancelled => Code::Cancelled,
        Kind::Unsupported
        | Kind::Unavailable
        | Kind::Source
        | Kind::Target
        | Kind::Protocol
        | Kind::Invalid
        | _ => Code::Failed,
    }
}

fn of_repository(kind: snapkeep_repo::ErrorKind) -> Code {
    use snapkeep_repo::ErrorKind as Kind;
    match kind {
        Kind::NotFound | Kind::NoStorage => Code::NotFound,
        Kind::Corrupt => Code::Damaged,
        Kind::WrongKey | Kind::Version => Code::Locked,
        Kind::Cancelled => Code::Cancelled,
        Kind::Exists | Kind::Full | Kind::Io | Kind::Invalid | _ => Code::Failed,
    }
}

/// A failure that the command line itself found.
#[derive(Debug)]
pub(crate) struct Fault {
    code: Code,
    message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// An error with a code.
pub(crate) fn fault(code: Code, message: impl Into<String>) -> Error {
    let message = message.into();
    Error::new(Fault { code, message })
}

/// Wrong usage or configuration.
pub(crate) fn usage(message: impl Into<String>) -> Error {
    fault(Code::Usage, message)
}
