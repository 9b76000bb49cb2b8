//! The task log: where a provider tells what it does. The host decides where the lines go.

use std::path::Path;

use crate::{ArchiveName, GuestId};

/// Where a provider reports progress, warnings and failures that do not end the backup.
pub trait TaskLog: Send + Sync {
    /// Writes one line. An empty message is dropped.
    fn log(&self, level: Level, message: &str);
}

/// Severity of a task log line, as in the first argument of `$log_function`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// `info`
    Info,
    /// `warn`
    Warn,
    /// `err`
    Error,
}

/// A guest's task log, complete, after its backup is over (`backup_handle_log_file`).
#[derive(Debug)]
pub struct TaskLogFile<'a> {
    /// The guest.
    pub guest: &'a GuestId,
    /// Its archive, if one was committed.
    pub archive: Option<&'a ArchiveName>,
    /// The log.
    pub path: &'a Path,
}
