//! Real mounts, read by the real tools. They take root and `/dev/fuse`.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

mod damage;
mod ends;
mod files;
mod folders;
mod memory;
mod refusals;
mod scan;
mod tools;
mod tree;
mod users;
