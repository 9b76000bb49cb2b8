//! The command line of Snapkeep.

mod args;
mod report;
mod secrets;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match verbs::run(&args::Args::parse()) {
        Ok(code) => code,
        Err(error) => report::failure(&error),
    }
}
