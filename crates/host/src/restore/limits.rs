//! Bounds of a restore.

use std::time::Duration;

/// Threads that read and write at once.
pub(super) const WORKERS_MAX: usize = 64;
/// The first bytes of a block device, written last: until then there is no partition table nor
/// boot sector that could make half a disk look like a whole one.
pub(super) const HEAD: u64 = 1 << 20;
/// Bytes of a block device that one system call zeroes, so that a restore can be cancelled
/// between two.
pub(super) const ZERO_STEP: u64 = 1 << 30;
/// Zeroes are punched only in multiples of this; what lies around them is written. No logical
/// block of a device is larger.
pub(super) const ZERO_ALIGN: u64 = 64 << 10;
/// Requests that `qemu-img` has under way.
pub(super) const CONVERT_REQUESTS: &str = "16";
/// What is kept of the words of `qemu-img`, in bytes.
pub(super) const WORDS_MAX: u64 = 16 << 10;
/// Time between two looks at whether `qemu-img` has ended or is to end.
pub(super) const WAIT_STEP: Duration = Duration::from_millis(20);
/// The longest name of an image format.
pub(super) const FORMAT_MAX: usize = 32;
