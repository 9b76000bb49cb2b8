//! Every bound of a search.

/// Largest input that is tried: room for several of the longest messages.
pub(crate) const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Inputs that one search for failures remembers.
pub(crate) const POOL_MAX: usize = 20_000;

/// Inputs that are kept for one target.
pub(crate) const CORPUS_FILES_MAX: usize = 256;
