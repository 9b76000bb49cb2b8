//! `cargo xtask bench disk`: what a backup of a disk costs, beside other tools.
//!
//! What was restored is compared byte for byte.

pub(crate) mod corpus;
mod export;
pub(crate) mod guest;
mod report;
pub(crate) mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::measure::Cost;
use super::report::keep;
use super::{sample, settle};
use crate::shell::{Scratch, build_release, root, run as run_command};
use corpus::Corpus;
use guest::Guest;
use tools::{Repository, Source, Tool};

/// What was asked for.
#[derive(Debug)]
struct Options {
    size_mib: u64,
    rounds: usize,
    seed: u64,
    only_ours: bool,
    report: PathBuf,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Open,
    Full,
    Unchanged,
    Changed,
    Dirty,
    Restore,
    Verify,
}

type Sample = sample::Sample<Tool, Case>;

pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    crate::setup::for_tests()?;
    let programs = build_release()?;
    let mut tools = Vec::new();
    for tool in Tool::ALL {
        match tool.program().missing() {
            _ if options.only_ours && !tool.is_ours() => {}
            Some(program) => println!("SKIP: {}: needs {program}", tool.name()),
            None => tools.push(tool),
        }
    }
    let scratch = Scratch::new("bench")?;
    println!("making a disk of {} MiB", options.size_mib);
    let size = options.size_mib << 20;
    let corpus = Corpus::make(scratch.path(), options.seed, size)?;
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        println!("round {round} of {}", options.rounds);
        let folder = scratch.path().join(format!("round-{round}"));
        one_round(&tools, &programs, &corpus, &folder, &mut samples)?;
        std::fs::remove_dir_all(&folder)?;
    }
    let text = report::report(&options, &corpus, &tools, &samples, args)?;
    keep(&text, &options.report)
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        size_mib: 2048,
        rounds: 3,
        seed: 1,
        only_ours: false,
        report: root().join("docs/benchmarks/disk.md"),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--only-ours" {
            options.only_ours = true;
            continue;
        }
        let value = args
            .next()
            .with_context(|| format!("{arg} needs a value"))?;
        match arg.as_str() {
            "--size-mib" => options.size_mib = value.parse()?,
            "--rounds" => options.rounds = value.parse()?,
            "--seed" => options.seed = value.parse()?,
            "--report" => options.report = value.into(),
            _ => bail!(
                "{arg} is unknown; there are --size-mib, --rounds, --seed, --report and --only-ours"
            ),
        }
    }
    ensure!(options.size_mib >= 64, "the disk has at least 64 MiB");
    ensure!(options.rounds >= 1, "there is at least one round");
    Ok(options)
}

/// Every case once for every tool, the tools in turn within each case.
fn one_round(
    tools: &[Tool],
    programs: &Path,
    corpus: &Corpus,
    folder: &Path,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    let size = corpus.size;
    let [first, second] = [&corpus.first, &corpus.second].map(|raw| Source { raw, size });
    let mut record = |tool: Tool, case, cost: Cost, stored| {
        println!(
            "  {case:?} {}: {:.2} CPU s, {:.2} s, {:.0} MiB",
            tool.name(),
            cost.cpu_s,
            cost.wall_s,
            cost.peak_mib
        );
        samples.push(Sample {
            tool,
            case,
            cost,
            stored,
        });
    };
    let mut all = Vec::new();
    for tool in tools {
        let made = Repository::create(*tool, programs, folder.join(format!("{tool:?}")))?;
        record(*tool, Case::Open, made.open()?, made.stored()?);
        all.push((*tool, made));
    }
    for case in [Case::Full, Case::Unchanged] {
        for (tool, repository) in &mut all {
            settle()?;
            let cost = repository.back_up(first)?;
            record(*tool, case, cost, repository.stored()?);
        }
    }
    for (tool, repository) in &mut all {
        if *tool == Tool::Snapkeep {
            let mut copy = repository.copy(folder.join("copy"))?;
            let cost = back_up_dirty(&mut copy, corpus, &folder.join("disk.raw"))?;
            record(*tool, Case::Dirty, cost, copy.stored()?);
            check_restored(&copy, second, &folder.join("restored"))?;
            copy.remove()?;
        }
        settle()?;
        let cost = repository.back_up(second)?;
        record(*tool, Case::Changed, cost, repository.stored()?);
    }
    for (tool, repository) in &all {
        settle()?;
        let cost = check_restored(repository, second, &folder.join("restored"))?;
        if *tool != Tool::SnapkeepFile {
            record(*tool, Case::Restore, cost, 0);
            settle()?;
            record(*tool, Case::Verify, repository.verify()?, 0);
        }
    }
    Ok(())
}

/// A guest's disk is backed up, changed and backed up again: the cost of the last.
fn back_up_dirty(repository: &mut Repository<'_>, corpus: &Corpus, disk: &Path) -> Result<Cost> {
    run_command(Command::new("cp").arg(&corpus.first).arg(disk))?;
    let mut guest = Guest::start(disk, disk.parent().context("a file has a folder")?)?;
    repository.back_up_guest(&guest, false)?;
    guest.write(&corpus.changes)?;
    settle()?;
    let cost = repository.back_up_guest(&guest, true)?;
    guest.quit()?;
    std::fs::remove_file(disk)?;
    Ok(cost)
}

/// Restores the last archive, compares it byte for byte, and removes it again.
fn check_restored(repository: &Repository<'_>, source: Source<'_>, to: &Path) -> Result<Cost> {
    let (cost, file) = repository.restore(source, to)?;
    run_command(Command::new("cmp").arg(source.raw).arg(&file))
        .context("what was restored is not what was backed up")?;
    std::fs::remove_dir_all(to)?;
    Ok(cost)
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_understood_or_refused() {
        let options = parse(&arguments("--size-mib 128 --rounds 1 --only-ours")).unwrap();
        assert_eq!((options.size_mib, options.rounds), (128, 1));
        assert!(options.only_ours);
        for wrong in [
            "--size-mib",
            "--size-mib x",
            "--rounds 0",
            "--size-mib 1",
            "--what 1",
        ] {
            assert!(parse(&arguments(wrong)).is_err(), "{wrong}");
        }
    }
}
