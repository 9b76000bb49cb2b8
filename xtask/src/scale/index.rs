//! `cargo xtask scale index [MILLIONS…]`: what the index of a repository with so many million
//! chunks and 10,000 archives costs to open, before and after it was merged into tables, to look
//! things up in, and to prune.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bench::measure::measure;
use crate::shell::{Scratch, cargo, run as run_command, target_folder};

const MILLIONS: &[&str] = &["1", "10", "50"];
const ARCHIVES: &str = "10000";
/// What is measured of each, in this order, and what it is.
const STEPS: &[(&str, &str)] = &[
    ("open", "opened, no tables"),
    ("merge", "merged into tables and opened"),
    ("open", "opened, by tables"),
    ("look", "opened, 200,000 chunks looked for"),
    (
        "prune",
        "opened, a tenth of all chunks pruned: marked, swept",
    ),
];

pub(super) fn run(millions: &[String]) -> Result<()> {
    let chosen: Vec<&str> = millions.iter().map(String::as_str).collect();
    let chosen = if chosen.is_empty() { MILLIONS } else { &chosen };
    let build = ["build", "--locked", "--release", "--package"];
    run_command(
        cargo()
            .args(build)
            .args(["snapkeep-repo", "--example", "large_index"]),
    )?;
    let program = std::path::PathBuf::from(target_folder()?).join("release/examples/large_index");
    let scratch = Scratch::new("scale-index")?;
    let mut table = String::from(
        "| million chunks | step | wall s | CPU s | peak MiB |\n|---|---|---|---|---|\n",
    );
    for millions in chosen {
        let folder = scratch.path().join(millions);
        let mut make = Command::new(&program);
        run_command(make.arg("make").arg(&folder).args([millions, ARCHIVES]))?;
        for (step, title) in STEPS {
            let mut command = Command::new(&program);
            command.arg(step).arg(&folder);
            let (cost, printed) = measure(&command, scratch.path())?;
            print!("{printed}");
            let (wall, cpu, peak) = (cost.wall_s, cost.cpu_s, cost.peak_mib);
            let costs = format!("{wall:.2} | {cpu:.2} | {peak:.0}");
            writeln!(table, "| {millions} | {title} | {costs} |")?;
        }
        std::fs::remove_dir_all(&folder).context("cannot remove what was measured")?;
    }
    println!("\n{table}");
    Ok(())
}
