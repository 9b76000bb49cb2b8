//! Every bound of what is done with a tree, in bytes unless said otherwise.

/// Entries that are first asked of a folder at once; the reader may hold all of each.
pub(crate) const PAGE_ENTRIES_MIN: usize = 32;
/// The most entries that are asked of a folder at once.
pub(crate) const PAGE_ENTRIES_MAX: usize = 1024;
/// What a listing may take in memory for the next one to have more entries; beyond, it has fewer.
pub(crate) const PAGE_BYTES: usize = 256 << 10;
/// Listed entries that are kept while what is below one of them is visited; beyond, they are
/// listed once more.
pub(crate) const LISTED_BYTES_MAX: usize = 8 << 20;
/// Paths of a selection.
pub(crate) const SELECTED_MAX: usize = 65_536;
/// Paths of files that are remembered because the first of their names is not selected.
pub(crate) const FIRST_NAMES_BYTES_MAX: usize = 64 << 20;

/// Runs of data of one file in a tar archive. Beyond, the smallest holes are written as zeroes.
pub(crate) const RUNS_MAX: usize = 1 << 17;
/// Content that is read at once.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
/// A file from this size on is written by several threads.
pub(crate) const SPLIT_BYTES: u64 = 32 << 20;
/// Data of such a file that a thread takes at once.
pub(crate) const CLAIM_BYTES: u64 = 4 << 20;
/// Entries between two places where reading of a tar archive can begin.
pub(crate) const CHECKPOINT_ENTRIES: u64 = 1024;
/// All those places together; beyond, every second one is given up.
pub(crate) const CHECKPOINTS_BYTES_MAX: usize = 8 << 20;
/// Readers of one tar archive that are kept where they stopped.
pub(crate) const CURSORS_MAX: usize = 8;

/// Problems that are kept with their paths; all are counted.
pub(crate) const PROBLEMS_MAX: usize = 1000;
/// All their paths and reasons.
pub(crate) const PROBLEMS_BYTES_MAX: usize = 4 << 20;
/// Threads that write files.
pub(crate) const WORKERS_MAX: usize = 32;
/// Entries that wait for a thread; each may keep a folder open.
pub(crate) const QUEUE_ENTRIES: usize = 256;
/// Small files that a thread is woken for.
pub(crate) const WAKE_ENTRIES: usize = 16;
/// What all entries that wait may take in memory.
pub(crate) const QUEUE_BYTES: usize = 16 << 20;
/// The innermost folders that stay open.
pub(crate) const OPEN_FOLDERS: usize = 32;
/// Of those further out, each so many levels one stays open.
pub(crate) const OPEN_FOLDERS_STEP: usize = 64;
/// Folders that may be open, also those whose entries wait; a process may open 1024 files.
pub(crate) const OPEN_FOLDERS_MAX: usize = 500;
/// The folders above an entry, with their extended attributes.
pub(crate) const FOLDERS_BYTES_MAX: usize = 64 << 20;
/// Paths that are remembered until the end of an extraction: what has inode flags to set, and what
/// could not be made.
pub(crate) const REMEMBERED_BYTES_MAX: usize = 64 << 20;
/// Part of a path that is opened with one call; Linux takes 4096 bytes with the zero.
pub(crate) const PATH_PIECE: usize = 4000;
