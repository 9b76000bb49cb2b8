//! The command line of Snapkeep.

mod args;
mod config;
mod durable;
mod extraction;
mod failure;
mod locks;
mod making;
mod memory;
mod paced;
mod past;
mod place;
mod progress;
mod provide;
mod report;
mod secrets;
mod session;
mod settings;
mod shelf;
mod signals;
mod trees;
mod units;
mod verbs;
mod watched;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match verbs::run(&args) {
        Ok(code) => {
            report::usage(args.common.quiet);
            code
        }
        Err(error) => {
            let code = report::failure(&error, args.common.json);
            report::usage(args.common.quiet);
            code
        }
    }
}
