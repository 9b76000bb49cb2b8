//! The bridge over a socket pair, with the provider in memory.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    reason = "it is a test, with values of JSON"
)]

mod calls;
mod containers;
mod killed;
mod mapped;
mod order;
mod peer;
mod restores;
mod tools;
mod vms;
mod walker;
