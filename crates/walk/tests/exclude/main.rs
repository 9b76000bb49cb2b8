//! What is excluded from a tree: as documented, as other tools do it, and as properties.

#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and tells what it skips"
)]

mod documented;
mod peers;
mod properties;
mod spec;
mod tree;
