//! The report, in Markdown: only what was measured.

use std::fmt::Write as _;

use anyhow::Result;

use super::corpus::Corpus;
use super::tools::Tool;
use super::{Case, Options, Sample};
use crate::bench::files::SYSTEM;
use crate::bench::report::{machine, peak_mark, table, verdict};
use crate::bench::sample::{Medians, mib};

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

/// The others with their own settings.
const PEERS: &[Tool] = &[Tool::Restic, Tool::Borg];

pub(super) fn report(
    options: &Options,
    corpus: &Corpus,
    tools: &[Tool],
    samples: &[Sample],
    args: &[String],
) -> Result<String> {
    let medians = Medians(samples);
    let columns: Vec<_> = tools.iter().map(|tool| (*tool, tool.name())).collect();
    let rows: Vec<_> = (ROWS.iter())
        .map(|(case, title, _)| (*case, *title))
        .collect();
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
        writeln!(out, "- {}: {}", tool.name(), tool.program().version()?)?;
    }
    writeln!(out, "\n{NOTES}\n")?;
    out.push_str("Median processor seconds / median wall seconds:\n\n");
    table(&mut out, &columns, &rows, |tool, case| {
        let both = medians
            .of(tool, case, Sample::cpu)
            .zip(medians.of(tool, case, Sample::wall));
        both.map(|(cpu, wall)| format!("{cpu:.2} / {wall:.2}"))
    });
    let ours = [(Tool::Snapkeep, Tool::Snapkeep.name())];
    out.push_str("\nMedian processor seconds of QEMU for it:\n\n");
    table(&mut out, &ours, &rows, |tool, case| {
        let served = medians.of(tool, case, |sample| sample.cost.served_s);
        (served.filter(|seconds| *seconds > 0.0)).map(|seconds| format!("{seconds:.2}"))
    });
    out.push_str("\nPeak memory of the largest process, MiB:\n\n");
    table(&mut out, &columns, &rows, |tool, case| {
        medians
            .of(tool, case, Sample::peak)
            .map(|peak| format!("{peak:.0}"))
    });
    out.push_str("\nStored afterwards, MiB:\n\n");
    table(&mut out, &columns, &rows, |tool, case| {
        let size = medians
            .of(tool, case, Sample::stored_mib)
            .filter(|size| *size > 0.0);
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
snapkeep is opened with a key file, borg with an empty passphrase, restic with a password file, whose stretching is in \
every figure of its column and in the first row by itself. Every restore was compared byte for byte.";

fn conditions(options: &Options, corpus: &Corpus) -> Result<String> {
    let changed = mib(corpus.changes.iter().map(|c| c.length).sum());
    Ok(format!(
        "{} Disk: {} MiB of the files below {SYSTEM}, media and free space, from seed {}; \
         {changed:.1} MiB in {} regions changed. Rounds: {}.",
        machine()?,
        options.size_mib,
        options.seed,
        corpus.changes.len(),
        options.rounds
    ))
}

/// Ours against the best of the others, and the marks.
fn ratios(out: &mut String, medians: &Medians<'_, Tool, Case>) -> Result<()> {
    let ours = Tool::Snapkeep;
    if medians.best(PEERS, Case::Full, Sample::cpu).is_some() {
        out.push_str(
            "`snapkeep` divided by the better of restic and borg with their own settings:\n\n",
        );
        out.push_str("| | processor time | wall time |\n|---|---|---|\n");
        for (case, title, theirs) in ROWS {
            let ratio = |value| {
                let ratio = medians.ratio((ours, *case), (PEERS, *theirs), value);
                ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
            };
            let (cpu, wall) = (ratio(Sample::cpu), ratio(Sample::wall));
            writeln!(out, "| {title} | {cpu} | {wall} |")?;
        }
        out.push('\n');
    }
    for (case, mark) in MARKS {
        let Some(ratio) = medians.ratio((ours, *case), (PEERS, *case), Sample::cpu) else {
            continue;
        };
        let title = (ROWS.iter().find(|(row, ..)| row == case)).map_or("", |(_, title, _)| title);
        writeln!(
            out,
            "- {title}: at most {mark:.2} of the best peer's processor time: {} ({ratio:.2}).",
            verdict(ratio <= *mark)
        )?;
    }
    let peaks = (ROWS.iter()).filter_map(|(case, ..)| medians.of(ours, *case, Sample::peak));
    writeln!(out, "{}", peak_mark(peaks))?;
    Ok(())
}
