//! `cargo xtask drill`: what docs/guides/recovery.md shows really brings everything back.
//!
//! A repository with a virtual machine and a container is made; then all is gone but the repository
//! and its recovery kit. The guide's block marked `console drill` is played as the tour of README.md
//! is, in an empty environment with a home of its own: first by the program just built, then by the
//! reader in Python alone. What it restored is compared with what was backed up.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup;
use crate::shell::{Scratch, build_programs, root, run as run_command};
use crate::tour;

const GUIDE: &str = "docs/guides/recovery.md";

pub(crate) fn run(_args: &[String]) -> Result<()> {
    let text = std::fs::read_to_string(root().join(GUIDE))
        .with_context(|| format!("could not read {GUIDE}"))?;
    let session = tour::session(&text, "drill")?
        .with_context(|| format!("{GUIDE} has no block marked `console drill`"))?;
    setup::for_tests()?;
    let programs = build_programs()?;
    let folder = Scratch::new("drill")?;
    script(folder.path(), &programs, include_str!("drill/prepare.sh"))?;
    let empty = folder.path().join("empty");
    tour::play(&session, &mut bash(&empty, &programs))?;
    script(folder.path(), &programs, include_str!("drill/compare.sh"))?;
    println!(
        "drill: {} commands brought everything back from the repository and its recovery kit",
        session.len()
    );
    Ok(())
}

/// A shell that knows nothing of this machine's user.
fn bash(folder: &Path, programs: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", format!("{programs}:{path}"))
        .env("HOME", folder.join("home"))
        .env("SNAPKEEP_SOURCE", root());
    command
}

fn script(folder: &Path, programs: &str, text: &str) -> Result<()> {
    run_command(bash(folder, programs).args(["-c", text]))
}
