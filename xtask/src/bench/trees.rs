//! `cargo xtask bench trees`: what backups of file trees cost, beside other tools.
//!
//! A round of a tree: a full backup, one of the unchanged tree, one after a hundredth of the files
//! changed, and a restore, by each tool in turn. The next round begins with the changed tree and
//! empty repositories. A tool that fails is out, and the others go on.

mod change;
mod report;
mod source;
mod tools;
mod words;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::measure::Cost;
use super::programs::Program;
use super::random::Random;
use super::{report::keep, sample, settle};
use crate::shell::{Scratch, build_for_users, build_programs, root};
use change::{Changes, change};
use source::Tree;
use tools::{Repository, differences, warm};
use words::Words;

/// tmpfs, as statfs(2) names it.
const TMPFS: i64 = 0x0102_1994;

/// What was asked for.
#[derive(Debug)]
struct Options {
    /// Entries of the system tree at most; 0: all.
    system_entries: usize,
    small_files: usize,
    rounds: usize,
    seed: u64,
    only_ours: bool,
    /// Measure the unoptimised build, to try the benchmark itself.
    dev: bool,
    report: PathBuf,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Full,
    Unchanged,
    Changed,
    Restore,
}

type Sample = sample::Sample<Program, Case>;

/// What became of one tree.
#[derive(Debug)]
struct Outcome {
    tree: Tree,
    /// Of each round.
    changes: Vec<Changes>,
    samples: Vec<Sample>,
    /// Who failed, and how.
    failures: Vec<(Program, String)>,
    /// Who restored something else, and what.
    differences: Vec<(Program, String)>,
}

pub(super) fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    let scratch = Scratch::new("bench")?;
    ensure_believed(scratch.path())?;
    ensure!(
        rustix::process::geteuid().is_root(),
        "only root can restore the owners of files: run it as root"
    );
    crate::setup::for_tests()?;
    let programs = if options.dev {
        build_programs()?.into()
    } else {
        build_for_users()?
    };
    let asked = tools::ALL.into_iter();
    let asked = asked.filter(|tool| !options.only_ours || *tool == Program::Snapkeep);
    let (there, missing): (Vec<_>, Vec<_>) = asked.partition(|tool| tool.missing().is_none());
    for tool in &missing {
        let program = tool.missing().unwrap_or_default();
        println!("SKIP: {}: needs {program}", tool.name());
    }
    let mut random = Random(options.seed);
    let words = Words::gather(&mut random)?;
    let mut outcomes = Vec::new();
    for name in ["system", "small"] {
        println!("making the tree {name}");
        let folder = scratch.path().join(name);
        let tree = match name {
            "system" => source::system(folder, options.system_entries)?,
            _ => source::small(folder, options.small_files, &words, &mut random)?,
        };
        let mut outcome = Outcome {
            tree,
            changes: Vec::new(),
            samples: Vec::new(),
            failures: Vec::new(),
            differences: Vec::new(),
        };
        for round in 1..=options.rounds {
            println!("{name}: round {round} of {}", options.rounds);
            let folder = scratch.path().join(format!("round-{round}"));
            outcome.one_round(&there, &programs, &folder, &words, &mut random)?;
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::remove_dir_all(&outcome.tree.folder)?;
        outcomes.push(outcome);
    }
    let text = report::report(&options, &outcomes, &there, &missing, args)?;
    keep(&text, &options.report)?;
    let ours: Vec<String> = outcomes.iter().flat_map(Outcome::of_ours).collect();
    ensure!(ours.is_empty(), "snapkeep failed: {}", ours.join("; "));
    Ok(())
}

/// A file on tmpfs can change without its times, so that metadata says nothing there and every
/// file is read again: that would be no measurement of an unchanged tree.
fn ensure_believed(folder: &Path) -> Result<()> {
    let found = rustix::fs::statfs(folder).context("could not ask for the file system")?;
    ensure!(
        found.f_type != TMPFS,
        "{} is on a tmpfs, where a file can change without its times: let TMPDIR name a folder on a disk",
        folder.display()
    );
    Ok(())
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options {
        system_entries: 0,
        small_files: 500_000,
        rounds: 3,
        seed: 1,
        only_ours: false,
        dev: false,
        report: root().join("docs/benchmarks/trees.md"),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--only-ours" => options.only_ours = true,
            "--dev" => options.dev = true,
            _ => {
                let value = (args.next()).with_context(|| format!("{arg} needs a value"))?;
                match arg.as_str() {
                    "--system-entries" => options.system_entries = value.parse()?,
                    "--small-files" => options.small_files = value.parse()?,
                    "--rounds" => options.rounds = value.parse()?,
                    "--seed" => options.seed = value.parse()?,
                    "--report" => options.report = value.into(),
                    _ => bail!(
                        "{arg} is unknown; there are --system-entries, --small-files, --rounds, \
                         --seed, --report, --only-ours and --dev"
                    ),
                }
            }
        }
    }
    ensure!(options.small_files >= 1, "there is at least one small file");
    ensure!(options.rounds >= 1, "there is at least one round");
    Ok(options)
}

impl Outcome {
    /// Every case once for every tool that did not fail yet, the tools in turn within each case.
    fn one_round(
        &mut self,
        tools: &[Program],
        programs: &Path,
        folder: &Path,
        words: &Words,
        random: &mut Random,
    ) -> Result<()> {
        let mut all = Vec::new();
        for tool in tools {
            if self.failures.iter().any(|(failed, _)| failed == tool) {
                continue;
            }
            match Repository::create(*tool, programs, folder.join(format!("{tool:?}"))) {
                Ok(made) => all.push((*tool, made)),
                Err(error) => self.fail(*tool, "a new repository", &error),
            }
        }
        for case in [Case::Full, Case::Unchanged, Case::Changed] {
            if case == Case::Changed {
                let done = change(&self.tree.folder, words, random)?;
                self.changes.push(done);
            }
            self.each(case, &mut all, |repository, tree| {
                warm(tree)?;
                settle()?;
                let done = (repository.back_up(tree)?, repository.stored()?);
                // Without, it was another full backup, made for the restore.
                let counts = case == Case::Full || repository.is_incremental();
                Ok(counts.then_some(done))
            });
        }
        // What was restored otherwise is known only outside of the measurement.
        let mut found = Vec::new();
        let to = folder.join("restored");
        self.each(Case::Restore, &mut all, |repository, tree| {
            warm(&repository.folder())?;
            settle()?;
            let restored = repository.restore(tree, &to);
            let done = restored.and_then(|(cost, top)| {
                found.push((repository.program(), differences(tree, &top)?));
                Ok(Some((cost, 0)))
            });
            std::fs::remove_dir_all(&to)?;
            done
        });
        for (tool, lines) in found {
            if let Some(first) = lines.first() {
                let text = format!("{} entries, the first: {first}", lines.len());
                println!("  {} restored otherwise: {text}", tool.name());
                // The same again in the next round says no more.
                if self.differences.iter().all(|(other, _)| *other != tool) {
                    self.differences.push((tool, text));
                }
            }
        }
        Ok(())
    }

    /// Runs a case for each tool; one that fails is taken out.
    fn each<'a>(
        &mut self,
        case: Case,
        all: &mut Vec<(Program, Repository<'a>)>,
        mut work: impl FnMut(&mut Repository<'a>, &Path) -> Result<Option<(Cost, u64)>>,
    ) {
        let folder = self.tree.folder.clone();
        all.retain_mut(|(tool, repository)| {
            match work(repository, &folder) {
                Ok(Some((cost, stored))) => self.record(*tool, case, cost, stored),
                Ok(None) => {}
                Err(error) => {
                    self.fail(*tool, report::title(case), &error);
                    return false;
                }
            }
            true
        });
    }

    fn record(&mut self, tool: Program, case: Case, cost: Cost, stored: u64) {
        let sample = Sample {
            tool,
            case,
            cost,
            stored,
        };
        println!(
            "  {case:?} {}: {:.2} CPU s, {:.2} s, {:.0} MiB",
            tool.name(),
            cost.cpu_s,
            cost.wall_s,
            cost.peak_mib
        );
        self.samples.push(sample);
    }

    fn fail(&mut self, tool: Program, what: &str, error: &anyhow::Error) {
        let text = format!("{what}: {error:#}");
        println!("  FAILED: {}: {text}", tool.name());
        self.failures.push((tool, text));
    }

    /// What went wrong with ours: a restore of something else is a failure too.
    fn of_ours(&self) -> impl Iterator<Item = String> {
        let all = self.failures.iter().chain(&self.differences);
        let ours = all.filter(|(tool, _)| *tool == Program::Snapkeep);
        ours.map(|(_, text)| format!("{}: {text}", self.tree.title))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_understood_or_refused() {
        let text = "--system-entries 3000 --small-files 2000 --only-ours --seed 7 --report a/b.md";
        let options = parse(&arguments(text)).unwrap();
        assert_eq!((options.system_entries, options.small_files), (3000, 2000));
        assert_eq!((options.rounds, options.seed), (3, 7));
        assert!(options.only_ours && !options.dev);
        assert_eq!(options.report.to_str(), Some("a/b.md"));
        for wrong in [
            "--small-files",
            "--small-files 0",
            "--system-entries -1",
            "--rounds 0",
            "--size-mib 64",
            "trees",
        ] {
            assert!(parse(&arguments(wrong)).is_err(), "{wrong}");
        }
    }
}
