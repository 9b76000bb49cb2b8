//! `cargo xtask drill`: what docs/guides/recovery.md shows really brings everything back.
//!
//! A repository with a virtual machine and a container is made, and a copy of it in a bucket of S3; then
//! all is gone but each of them and its recovery kit. The guide's blocks marked `console drill` and
//! `console drill-s3` are played as the tour of README.md is, in empty environments with a home of
//! their own: first by the program just built, then by the reader in Python alone. What they restored is
//! compared with what was backed up.

mod bucket;

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
    let session = |mark| {
        tour::session(&text, mark)?
            .with_context(|| format!("{GUIDE} has no block marked `console {mark}`"))
    };
    let (local, in_bucket) = (session("drill")?, session("drill-s3")?);
    setup::for_tests()?;
    let programs = build_programs()?;
    let folder = Scratch::new("drill")?;
    let server = bucket::start(folder.path())?;
    let prepare = include_str!("drill/prepare.sh");
    let mut prepared = bash(folder.path(), &programs);
    if let Some(server) = &server {
        server.tell(&mut prepared).env("BUCKET", bucket::PLACE);
    }
    run_command(prepared.args(["-c", prepare]))?;
    tour::play(&local, &mut bash(&folder.path().join("empty"), &programs))?;
    let mut commands = local.len();
    if let Some(server) = &server {
        let mut bash = bash(&folder.path().join("bucket"), &programs);
        tour::play(&in_bucket, server.tell(&mut bash))?;
        commands += in_bucket.len();
    }
    let compare = include_str!("drill/compare.sh");
    run_command(bash(folder.path(), &programs).args(["-c", compare]))?;
    println!(
        "drill: {commands} commands brought everything back from repositories and their recovery kits"
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
        .env("SNAPKEEP_STATE", folder.join("home/state"))
        .env("SNAPKEEP_SOURCE", root());
    command
}
