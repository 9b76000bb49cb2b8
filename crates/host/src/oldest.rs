//! The oldest QEMU that is backed up. `cargo xtask setup` compiles this file too, so that it brings
//! no QEMU that the host would refuse.

/// The major version of the first release whose NBD server is safe with iothreads.
pub(crate) const OLDEST_MAJOR: u64 = 9;
