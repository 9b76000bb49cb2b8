//! `cargo xtask model [--traces]`: the protocol of many writers and prunings, in larger universes,
//! and the real code in more orders, than `cargo xtask test` has time for.
//!
//! They are tests of `snapkeep-repo`, `protocol` and `interleavings` in `crates/repo/tests/`. With `--traces` it prints
//! for each rule of the protocol the shortest way to a loss if that rule is left out.

use anyhow::{Result, bail};

use crate::shell;

pub(crate) fn run(args: &[String]) -> Result<()> {
    let asked = match args {
        [] => "large",
        [flag] if flag == "--traces" => "large traces",
        _ => bail!("the argument is --traces"),
    };
    let test = ["test", "--locked", "--package", "snapkeep-repo"];
    shell::run(
        shell::cargo()
            .args(test)
            .args(["--test", "protocol", "--test", "interleavings", "--"])
            .args(["--nocapture", "--test-threads", "1"])
            .env("SNAPKEEP_MODEL", asked),
    )
}
