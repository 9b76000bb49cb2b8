//! Every bound of the provider.

use std::time::Duration;

/// How far the clock may be behind the time of a guest's newest archive: so long a backup waits
/// at most. Above it one of two clocks is wrong, and waiting would only hide that.
pub(crate) const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(10);

/// Bytes that an archive keeps of the log of its backup.
pub(crate) const TASK_LOG_KEPT: usize = snapkeep_repo::limits::TASK_LOG_MAX;

/// So soon a backup sees that it is to end while it waits for its source.
pub(crate) const CANCEL_SEEN: Duration = Duration::from_millis(100);

/// The most threads of one backup.
pub(crate) const WORKERS_MAX: usize = 64;

/// How many of a guest's newest archives are tried, to find one to compare its files with.
pub(crate) const BASES_TRIED_MAX: usize = 8;

/// A file's times are this many seconds older than its backup, or it is read again by the next: file
/// systems take their times from a clock that ticks up to two seconds late.
pub(crate) const SETTLED_SECONDS: i64 = 2;

/// Bytes of a file's content that are asked for at once.
pub(crate) const CONTENT_BYTES: usize = 1 << 20;

/// Bytes of an audited file that are compared at once.
pub(crate) const AUDIT_BYTES: usize = 256 << 10;

/// Random bytes that are drawn at once to choose files to audit, two for each.
pub(crate) const DICE_BYTES: usize = 512;

/// How many problems of each kind are told; the others are counted only.
pub(crate) const PROBLEMS_TOLD_MAX: u64 = 200;

/// Bytes of a path in a message.
pub(crate) const PATH_TOLD_MAX: usize = 4096;

/// Bytes of a walk's words in a message.
pub(crate) const REASON_TOLD_MAX: usize = 1024;

/// Dirty regions are no finer than this on average, in bytes, below one lowest node of a map: no
/// bitmap of QEMU is, nor is what its NBD server tells of a disk. The regions wait in memory.
pub(crate) const REGION_MEAN_MIN: u64 = 512;

/// How far ahead of the clock an archive's time may be and still count when others are forgotten.
/// What is further ahead was made by a clock that is wrong, or forged.
pub(crate) const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(300);

/// The largest number in a duration of a retention policy.
pub(crate) const AGE_NUMBER_MAX: u16 = 9999;
