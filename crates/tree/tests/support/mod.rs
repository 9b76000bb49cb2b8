//! Trees for tests: in memory, and in folders, with every kind of entry.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

pub(crate) mod facts;
pub(crate) mod memory;
pub(crate) mod plant;
pub(crate) mod scan;
pub(crate) mod tools;
