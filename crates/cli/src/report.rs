//! All printing: results on standard output, failures on standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one place that prints"
)]

use std::process::ExitCode;

/// A failure, its causes on the same line, and its exit code.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("snapkeep: {error:#}");
    ExitCode::FAILURE
}

/// A line for people.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// A value for programs.
pub(crate) fn json(value: &serde_json::Value) {
    println!("{value}");
}
