//! Every bound of the conversation with a class.

use std::time::Duration;

/// The longest message of the driver, with its newline, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How much is received at once, in bytes.
pub(crate) const RECEIVE_BYTES: usize = 64 << 10;

/// The most messages of one call before its end: lines of the log and dirty regions.
pub(crate) const MESSAGES_MAX: usize = 1 << 20;

/// The most that is kept of what a process writes, in bytes: its last.
pub(crate) const OUTPUT_BYTES_MAX: usize = 4 << 10;

/// The longest text of an error that is told, in bytes.
pub(crate) const ERROR_BYTES_MAX: usize = 2 << 10;

/// How long a driver may take to end by itself once the conversation is over.
pub(crate) const END: Duration = Duration::from_secs(15);

/// How long the last words of a process that has ended are waited for: others may have its output.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// The most volumes that a class may say are in an archive.
pub(crate) const VOLUMES_MAX: usize = 512;

/// The deepest value that a class may return.
pub(crate) const VALUE_DEPTH_MAX: usize = 16;
