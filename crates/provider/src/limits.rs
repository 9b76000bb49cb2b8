//! Every bound of the provider.

use std::time::Duration;

/// How far the clock may be behind the time of a guest's newest archive: so long a backup waits
/// at most. Above it one of two clocks is wrong, and waiting would only hide that.
pub(crate) const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(10);

/// The most threads of one backup.
pub(crate) const WORKERS_MAX: usize = 64;

/// Dirty regions are no finer than this on average, in bytes, below one lowest node of a map: no
/// bitmap of QEMU is, nor is what its NBD server tells of a disk. The regions wait in memory.
pub(crate) const REGION_MEAN_MIN: u64 = 512;
