//! `cargo xtask bench`: what a backup costs, beside other tools, in one run.
//!
//! Every tool does the same in turn, several rounds, and medians are compared: figures of other
//! days or machines say little. What was restored is compared with its source. A report has only
//! what its run measured.

pub(crate) mod disk;
mod files;
pub(crate) mod measure;
mod programs;
pub(crate) mod random;
mod report;
mod s3;
mod sample;
mod trees;

use std::process::Command;

use anyhow::Result;

use crate::shell::run as run_command;

/// `disk`, `trees` and `s3` say what is measured; without one of them it is a disk.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args.split_first() {
        Some((what, rest)) if what == "trees" => trees::run(rest),
        Some((what, rest)) if what == "s3" => s3::run(rest),
        Some((what, rest)) if what == "disk" => disk::run(rest),
        _ => disk::run(args),
    }
}

/// Waits until what others wrote is on the disk, so that nobody pays for it.
fn settle() -> Result<()> {
    run_command(&mut Command::new("sync"))
}
