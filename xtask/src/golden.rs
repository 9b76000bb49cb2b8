//! `cargo xtask golden`: the golden repositories of `crates/repo/tests/golden/`.
//!
//! `--remake` makes the two anew that have always the same bytes; that is only right where a newer
//! library compresses otherwise, or one is added. `--release` adds the one of this version, which later versions must read;
//! what is there is never made again. `--exhaustive` changes each byte of the two and restores. The
//! example `golden` of `snapkeep-repo` does the work.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::shell::{Scratch, cargo, root, run as run_command};

/// What `--remake` makes.
const MADE: [&str; 6] = [
    "encrypted",
    "expected.json",
    "key-file",
    "open",
    "passphrase",
    "recovery-kit",
];

/// Changes the repositories, or every byte of a copy in memory.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args {
        [flag] if flag == "--remake" => remake(),
        [flag] if flag == "--release" => release(),
        [flag] if flag == "--exhaustive" => run_command(example().arg("exhaustive")),
        _ => anyhow::bail!("the argument is --remake, --release or --exhaustive"),
    }
}

fn folder() -> PathBuf {
    root().join("crates/repo/tests/golden")
}

/// Makes them in a folder of our own, then puts them in the place of the old.
fn remake() -> Result<()> {
    let scratch = Scratch::new("golden")?;
    run_command(example().arg("remake").arg(scratch.path()))?;
    for name in MADE {
        let old = folder().join(name);
        let removed = if old.is_dir() {
            fs::remove_dir_all(&old)
        } else {
            fs::remove_file(&old)
        };
        removed.with_context(|| format!("cannot remove {}", old.display()))?;
    }
    copy(scratch.path(), &folder())
}

fn release() -> Result<()> {
    let place = folder().join("released").join(env!("CARGO_PKG_VERSION"));
    ensure!(
        !place.exists(),
        "{} is there; what a version wrote is not made again",
        place.display()
    );
    let scratch = Scratch::new("release")?;
    run_command(example().arg("release").arg(scratch.path()))?;
    fs::create_dir_all(&place)?;
    copy(scratch.path(), &place)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = std::process::Command::new("cp");
    run_command(copy.arg("-rT").arg(from).arg(to))
}

fn example() -> std::process::Command {
    let mut command = cargo();
    command.args(["run", "--locked", "--package", "snapkeep-repo"]);
    command.args(["--example", "golden", "--"]);
    command
}
