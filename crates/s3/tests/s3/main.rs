//! The storage against a real server of S3, and against what may happen on the way to it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::format_push_string,
    reason = "a test fails by panicking and tells what it skips"
)]

mod absent;
mod endpoint;
mod faults;
mod interrupted;
mod lists;
mod locks;
mod pages;
mod reaching;
mod refusals;
mod renewals;
mod repository;
mod storage;
mod support;
