//! Client and server against each other, against the real tools, and against peers that lie.

#![expect(
    clippy::print_stderr,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "a test fails by panicking, tells what it skips, and lists its cases in one table"
)]

mod fake;
mod hostile_clients;
mod lies_about_data;
mod lies_about_exports;
mod memory;
mod our_server;
mod parting_clients;
mod raw;
mod raw_client;
mod real_clients;
mod real_servers;
mod sessions;
mod stopping;
mod tools;
