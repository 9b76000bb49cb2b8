//! The report, in Markdown: only what was measured.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;

use super::corpus::Corpus;
use super::files::SYSTEM;
use super::measure::median;
use super::tools::Tool;
use super::{Case, Options, Sample};
use crate::shell::capture;

const MIB: f64 = 1_048_576.0;

/// The rows: what was done, and what ours is compared with.
const ROWS: &[(Case, &str, Case)] = &[
    (Case::Open, "open and list an empty repository", Case::Open),
    (Case::Full, "full backup", Case::Full),
    (
        Case::Unchanged,
        "the unchanged disk, read again",
        Case::Unchanged,
    ),
    (Case::Changed, "the changed disk, read again", Case::Changed),
    (
        Case::Dirty,
        "the changed disk, by dirty bitmap",
        Case::Changed,
    ),
    (Case::Restore, "restore to a file", Case::Restore),
    (Case::Verify, "verify everything", Case::Verify),
];

/// What the figures are held against: case, the most that ours may be of the best peer with its
/// own settings, in processor time.
const MARKS: &[(Case, f64)] = &[(Case::Full, 0.5), (Case::Unchanged, 1.0 / 3.0)];
/// The most memory, in MiB.
const PEAK_MARK: f64 = 300.0;

/// Medians over the rounds.
struct Medians<'a>(&'a [Sample]);

impl Medians<'_> {
    fn of(&self, tool: Tool, case: Case, value: fn(&Sample) -> f64) -> Option<f64> {
        let of_it = |sample: &&Sample| sample.tool == tool && sample.case == case;
        let mut found = self.0.iter().filter(of_it).map(value).peekable();
        found.peek()?;
        Some(median(found))
    }

    /// The least of the others' medians, among those with their own settings.
    fn best(&self, case: Case, value: fn(&Sample) -> f64) -> Option<f64> {
        let peers = [Tool::Restic, Tool::Borg].into_iter();
        peers
            .filter_map(|tool| self.of(tool, case, value))
            .reduce(f64::min)
    }
}

fn cpu(sample: &Sample) -> f64 {
    sample.cost.cpu_s
}

fn wall(sample: &Sample) -> f64 {
    sample.cost.wall_s
}

fn peak(sample: &Sample) -> f64 {
    sample.cost.peak_mib
}

#[expect(clippy::cast_precision_loss, reason = "a size to print")]
fn stored(sample: &Sample) -> f64 {
    sample.stored as f64 / MIB
}

pub(super) fn report(
    options: &Options,
    corpus: &Corpus,
    tools: &[Tool],
    samples: &[Sample],
    args: &[String],
) -> Result<String> {
    let medians = Medians(samples);
    let mut out = String::from("# Backups of one disk, side by side\n\n");
    let command = ["cargo xtask bench"]
        .into_iter()
        .chain(args.iter().map(String::as_str));
    let command: Vec<&str> = command.collect();
    writeln!(
        out,
        "Made by `{}`.\n\n{}\n",
        command.join(" "),
        conditions(options, corpus)?
    )?;
    for tool in tools {
        writeln!(out, "- {}: {}", tool.name(), tool.version()?)?;
    }
    writeln!(out, "\n{NOTES}\n")?;
    out.push_str("Median processor seconds / median wall seconds:\n\n");
    table(&mut out, tools, |tool, case| {
        let both = medians
            .of(tool, case, cpu)
            .zip(medians.of(tool, case, wall));
        both.map(|(cpu, wall)| format!("{cpu:.2} / {wall:.2}"))
    });
    out.push_str("\nMedian processor seconds of QEMU for it:\n\n");
    table(&mut out, &[Tool::Snapkeep], |tool, case| {
        let served = medians.of(tool, case, |sample| sample.cost.served_s);
        (served.filter(|seconds| *seconds > 0.0)).map(|seconds| format!("{seconds:.2}"))
    });
    out.push_str("\nPeak memory of the largest process, MiB:\n\n");
    table(&mut out, tools, |tool, case| {
        medians
            .of(tool, case, peak)
            .map(|peak| format!("{peak:.0}"))
    });
    out.push_str("\nStored afterwards, MiB:\n\n");
    table(&mut out, tools, |tool, case| {
        let size = medians.of(tool, case, stored).filter(|size| *size > 0.0);
        size.map(|size| format!("{size:.0}"))
    });
    out.push('\n');
    ratios(&mut out, &medians)?;
    Ok(out)
}

const NOTES: &str = "Processor time is user and system time of the tool and all its children. `snapkeep` is \
`snapkeep backup vm` of a QEMU that has the disk and whose guest is stopped; what QEMU itself needed for that is in a table of its own. \
`snapkeep, file handle` reads the image as the others do, through the provider in a program without \
a hypervisor around it (`crates/provider/examples/back_up.rs`). All encrypt; \
snapkeep is opened with a key file, borg with a key file and an empty passphrase, restic with a password file, whose stretching is in \
every figure of its column and in the first row by itself. Every restore was compared byte for byte.";

fn conditions(options: &Options, corpus: &Corpus) -> Result<String> {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = (processor.lines())
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    let kernel = capture(Command::new("uname").args(["-sr"]))?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    #[expect(clippy::cast_precision_loss, reason = "a size to print")]
    let changed = corpus.changes.iter().map(|c| c.length).sum::<u64>() as f64 / MIB;
    Ok(format!(
        "Machine: {processor}, {cores} cores, {}; load averages at the end {}. \
         Disk: {} MiB of the files below {SYSTEM}, media and free space, from seed {}; {changed:.1} MiB in {} regions changed. Rounds: {}.",
        kernel.trim(),
        load.join(" "),
        options.size_mib,
        options.seed,
        corpus.changes.len(),
        options.rounds
    ))
}

fn table(out: &mut String, tools: &[Tool], cell: impl Fn(Tool, Case) -> Option<String>) {
    let mut line = |cells: Vec<String>| {
        out.push_str("| ");
        out.push_str(&cells.join(" | "));
        out.push_str(" |\n");
    };
    let names = tools.iter().map(|tool| tool.name().to_owned());
    line(std::iter::once(String::new()).chain(names).collect());
    line(vec!["---".to_owned(); tools.len() + 1]);
    for (case, title, _) in ROWS {
        let cells: Vec<_> = tools.iter().map(|tool| cell(*tool, *case)).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells
                .into_iter()
                .map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
            line(std::iter::once((*title).to_owned()).chain(cells).collect());
        }
    }
}

/// Ours against the best of the others, and the marks.
fn ratios(out: &mut String, medians: &Medians<'_>) -> Result<()> {
    let ours = Tool::Snapkeep;
    if medians.best(Case::Full, cpu).is_some() {
        out.push_str(
            "`snapkeep` divided by the better of restic and borg with their own settings:\n\n",
        );
        out.push_str("| | processor time | wall time |\n|---|---|---|\n");
        for (case, title, theirs) in ROWS {
            let ratio = |value| {
                let pair = medians
                    .of(ours, *case, value)
                    .zip(medians.best(*theirs, value));
                pair.map_or_else(
                    || "–".to_owned(),
                    |(ours, theirs)| format!("{:.2}", ours / theirs),
                )
            };
            writeln!(out, "| {title} | {} | {} |", ratio(cpu), ratio(wall))?;
        }
        out.push('\n');
    }
    for (case, mark) in MARKS {
        let Some((mine, theirs)) = medians.of(ours, *case, cpu).zip(medians.best(*case, cpu))
        else {
            continue;
        };
        let title = (ROWS.iter().find(|(row, ..)| row == case)).map_or("", |(_, title, _)| title);
        let verdict = if mine <= theirs * mark {
            "met"
        } else {
            "MISSED"
        };
        writeln!(
            out,
            "- {title}: at most {mark:.2} of the best peer's processor time: {verdict} ({:.2}).",
            mine / theirs
        )?;
    }
    let most = (ROWS.iter())
        .filter_map(|(case, ..)| medians.of(ours, *case, peak))
        .fold(0.0, f64::max);
    let verdict = if most <= PEAK_MARK { "met" } else { "MISSED" };
    writeln!(
        out,
        "- peak memory at most {PEAK_MARK:.0} MiB: {verdict} ({most:.0})."
    )?;
    Ok(())
}
