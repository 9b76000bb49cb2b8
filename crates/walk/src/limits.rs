//! Every bound of the walk.

use std::time::Duration;

use snapkeep_api::tree::limits::{LINK_PATH_MAX, NAME_MAX, XATTRS_BYTES_MAX, XATTRS_MAX};

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

// The stream.

/// The length and the kind of a message.
pub(crate) const HEADER_BYTES: usize = 5;

/// The longest message that tells an entry: its extended attributes, where a hard link leads to,
/// and the lengths of all that.
pub(crate) const TOLD_BYTES_MAX: usize = XATTRS_BYTES_MAX + 8 * XATTRS_MAX + LINK_PATH_MAX + 1024;

/// The longest message with a file's content.
pub(crate) const DATA_BYTES_MAX: usize = 1 << 20;

/// The most entries of one question.
pub(crate) const BATCH_MAX: usize = 1024;

/// The longest question.
pub(crate) const BATCH_BYTES_MAX: usize = BATCH_MAX * (NAME_MAX + 64);

/// The longest reason, in bytes.
pub(crate) const WHY_BYTES_MAX: usize = 4096;

/// The longest message about a problem, the reason of a loss and the like.
pub(crate) const TEXT_BYTES_MAX: usize = WHY_BYTES_MAX + NAME_MAX + 16;

/// The most sources: a container has a root and at most 256 mount points.
pub(crate) const SOURCES_MAX: usize = 512;

/// The longest path of the directory or of a source: the kernel takes no longer one in a call.
pub(crate) const SOURCE_BYTES_MAX: usize = 4095;

/// The longest request: all its patterns and sources.
pub(crate) const REQUEST_BYTES_MAX: usize =
    PATTERNS_MAX * (PATTERN_BYTES_MAX + 4) + SOURCES_MAX * (SOURCE_BYTES_MAX + 4) + 8192;

/// The most entries with several names that are remembered, on either side: what is more is told as
/// entries of their own. 9 bytes for each in the privileged process.
pub(crate) const LINKED_MAX: usize = 1 << 20;

/// How long a walker may say nothing unless the caller knows better.
pub(crate) const HANG: Duration = Duration::from_secs(600);

/// How long a walker may say that it lives and nothing else: as long as it says so by itself while
/// the kernel writes out what is dirty, and some time for what comes then.
pub(crate) const IDLE: Duration = Duration::from_secs(SYNC.as_secs() + HANG.as_secs());

/// How often a wait looks whether it was cancelled.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// What is received at once, and so the least room for it.
pub(crate) const RECEIVE_BYTES: usize = 256 << 10;

// The walker.

/// What is sent at once, if there is so much.
pub(crate) const SEND_BYTES: usize = 512 << 10;

/// Below this much room the buffer is sent before more of a file is read.
pub(crate) const READ_BYTES_MIN: usize = 64 << 10;

/// All first names of entries with several names, in bytes.
pub(crate) const LINKED_BYTES_MAX: usize = 64 << 20;

/// The names of one folder, with a zero each: two million ordinary ones. A larger folder is left out.
pub(crate) const NAMES_BYTES_MAX: usize = 128 << 20;

/// The names of all folders above an entry that are still to be looked at.
pub(crate) const NAMES_BYTES_ALL_MAX: usize = 256 << 20;

/// The folders above an entry whose descriptors are kept.
pub(crate) const OPEN_FOLDERS: usize = 64;

/// How often the walker says that it lives if it has nothing else to say.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// For how long it says so; then its silence is that of a file system that hangs.
pub(crate) const SYNC: Duration = Duration::from_secs(3600);

/// The names of all extended attributes of an entry (`XATTR_LIST_MAX` of Linux), and one byte, so
/// that more is noticed.
pub(crate) const XATTR_NAMES_BYTES: usize = 65_537;

/// How often an open is tried again that the kernel gave up because others rename.
pub(crate) const OPEN_TRIES: usize = 1000;

/// What the kernel lists at once, in bytes.
pub(crate) const LISTED_BYTES: usize = 32 << 10;

// The walker's process.

/// The longest ID map: the kernel takes less than a page.
pub(crate) const MAP_BYTES_MAX: usize = 4095;

/// How long a walker may take until it is ready.
pub(crate) const START: Duration = Duration::from_secs(60);

/// How long a walker that hung up may take to end.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a killed walker is waited for.
pub(crate) const REAP: Duration = Duration::from_secs(10);
