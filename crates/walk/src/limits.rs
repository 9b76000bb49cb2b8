//! Every bound of the walk.

/// The longest pattern, in bytes: no path of Linux that programs name is longer.
pub(crate) const PATTERN_BYTES_MAX: usize = 4096;

/// The most parts of a pattern (what is between its slashes), so that its state is one word.
pub(crate) const PATTERN_PARTS_MAX: usize = 64;

/// The most patterns that the administrator gives.
pub(crate) const PATTERNS_MAX: usize = 1024;

/// The largest `.pxarexclude` that is used, in bytes.
pub(crate) const FILE_BYTES_MAX: usize = 64 << 10;

/// The most patterns from `.pxarexclude` files that are in force in one folder, and with them the
/// memory of each folder above: 16 bytes a pattern.
pub(crate) const FILE_PATTERNS_MAX: usize = 1024;

/// The most bytes of all those patterns. An entry costs at most this many times 256 comparisons.
pub(crate) const FILE_PATTERN_BYTES_MAX: usize = 128 << 10;

/// The most warnings about patterns of one walk; what comes after is counted.
pub(crate) const WARNINGS_MAX: usize = 100;

/// The longest part of a path or pattern that a message shows, in bytes.
pub(crate) const SHOWN_BYTES_MAX: usize = 1024;
