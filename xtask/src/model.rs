//! `cargo xtask model [--traces]`: the protocol of many writers and prunings, in larger universes
//! than `cargo xtask test` has time for.
//!
//! The model is a test of `snapkeep-repo`, `crates/repo/tests/protocol/`. With `--traces` it prints
//! for each rule of the protocol the shortest way to a loss if that rule is left out.

use anyhow::{Result, bail};

use crate::shell;

pub(crate) fn run(args: &[String]) -> Result<()> {
    let asked = match args {
        [] => "large",
        [flag] if flag == "--traces" => "large traces",
        _ => bail!("the argument is --traces"),
    };
    let test = ["test", "--locked", "--package", "snapkeep-repo", "--test"];
    shell::run(
        shell::cargo()
            .args(test)
            .args(["protocol", "--", "--nocapture", "--test-threads", "1"])
            .env("SNAPKEEP_MODEL", asked),
    )
}
