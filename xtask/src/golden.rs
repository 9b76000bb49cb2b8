//! `cargo xtask golden`: the golden repositories of `crates/repo/tests/golden/`.
//!
//! `--remake` makes them anew; that is only right while the format is a draft, or where a new
//! repository is added. `--exhaustive` changes each of their bytes and restores. The example `golden` of `snapkeep-repo` does the work.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::shell::{Scratch, cargo, root, run as run_command};

const FOLDER: &str = "crates/repo/tests/golden";

/// Changes the repositories, or every byte of a copy in memory.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args {
        [flag] if flag == "--remake" => remake(),
        [flag] if flag == "--exhaustive" => run_command(example().arg("exhaustive")),
        _ => bail!("the argument is --remake or --exhaustive"),
    }
}

/// Makes them in a folder of our own, then puts them in the place of the old.
fn remake() -> Result<()> {
    let scratch = Scratch::new("golden")?;
    run_command(example().arg("remake").arg(scratch.path()))?;
    let target = root().join(FOLDER);
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| format!("cannot remove {FOLDER}"))?;
    }
    let mut copy = std::process::Command::new("cp");
    run_command(copy.arg("-rT").arg(scratch.path()).arg(&target))
}

fn example() -> std::process::Command {
    let mut command = cargo();
    command.args(["run", "--locked", "--package", "snapkeep-repo"]);
    command.args(["--example", "golden", "--"]);
    command
}
