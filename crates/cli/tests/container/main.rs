//! Real containers of LXC, backed up while they run and restored by the program.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

mod killed;
mod lab;
mod modes;
mod read;
#[path = "../support/mod.rs"]
mod support;
