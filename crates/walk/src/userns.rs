//! The walker's process: how it is started, becomes the container's root user, and ends.
//!
//! It is the program itself, started anew with the arguments that make it call [`run_walker`], and
//! with nothing of its parent's but a socket as its standard input: no environment, no other
//! descriptor, no key. It is the first process of a PID namespace, so that one that was taken over
//! leaves no other behind.
//!
//! ```text
//! parent                                    walker
//! order: a user namespace, or none ───────▶ closes all it may have inherited
//!                                           unshare(CLONE_NEWUSER)
//!        ◀─────────────────────────── ready
//! writes its uid_map and gid_map
//! mapped ─────────────────────────────────▶ setgroups, setresgid, setresuid
//!                                           death signal, no new privileges, not dumpable
//!        ◀─────────────────────────── ready
//! ```
//!
//! [`run_walker`]: crate::run_walker

mod alone;
mod begin;
mod spawn;
mod words;

pub(crate) use begin::begin;
pub use spawn::{Command, Walker};

/// What the parent says first.
const NAMESPACE: u8 = b'n';
pub(crate) const NO_NAMESPACE: u8 = b'-';
/// The parent has written the map.
const MAPPED: u8 = b'm';
/// What the walker says; after "failed" comes why, up to the end.
pub(crate) const READY: u8 = b'r';
pub(crate) const FAILED: u8 = b'f';
