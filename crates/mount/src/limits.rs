//! How much of anything there may be, in bytes unless said otherwise.

use std::time::Duration;

/// The longest read that the kernel may ask for, and how far it reads ahead.
pub(crate) const READ_MAX: u32 = 1 << 20;
/// How many entries of a folder are asked for at a time.
pub(crate) const BATCH: usize = 128;
/// Extended attributes that one open folder keeps of its batch; of more, only the first entries
/// are kept and the others are asked for again.
pub(crate) const BATCH_XATTRS: usize = 1 << 20;
/// How many places of an open folder are remembered, to go back to.
pub(crate) const MARKS_MAX: usize = 128;
/// How many folders may be open at once.
pub(crate) const OPEN_FOLDERS_MAX: usize = 4096;
/// Extended attributes that are kept with an inode; more are read again when they are asked for.
pub(crate) const XATTRS_KEPT: usize = 1024;
/// Files that are shorter are told as if they had no holes (by `st_blocks`, not by `lseek`).
pub(crate) const HOLES_FROM: u64 = 64 << 10;
/// How many runs of data are added up for a file's `st_blocks`; what follows counts as data.
pub(crate) const RUNS_COUNTED: usize = 1024;
/// How many other numbers are tried for an inode whose number is taken.
pub(crate) const NUMBERS_TRIED: u64 = 4;
/// How many entries' problems are told.
pub(crate) const PROBLEMS_MAX: usize = 1000;
/// How many names of a path are shown in a message.
pub(crate) const SHOWN_NAMES_MAX: usize = 64;
/// The fewest and the most threads that answer the kernel.
pub(crate) const THREADS: (usize, usize) = (4, 16);
/// How many read-aheads the kernel may have waiting.
pub(crate) const BACKGROUND_MAX: u16 = 32;
/// The list of mounts that the kernel gives.
pub(crate) const MOUNTS_MAX: u64 = 16 << 20;
/// How long the program behind a mount may take to say that it is there.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(5);
