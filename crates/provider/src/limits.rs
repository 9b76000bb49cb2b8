//! Every bound of the provider.

use std::time::Duration;

/// How far the clock may be behind the time of a guest's newest archive: so long a backup waits
/// at most. Above it one of two clocks is wrong, and waiting would only hide that.
pub(crate) const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(10);
