//! `cargo xtask fuzz [TARGET] [--seconds N] [--seed N]`: bytes that a peer could send, for a while.
//!
//! The search is the example `fuzz` of `crates/fuzz`, built with the checks for overflows.

use anyhow::Result;

use crate::shell;

pub(crate) fn run(args: &[String]) -> Result<()> {
    let search = ["run", "--quiet", "--locked", "--package", "snapkeep-fuzz"];
    shell::run(
        shell::cargo()
            .args(search)
            .args(["--example", "fuzz", "--"])
            .args(args),
    )
}
