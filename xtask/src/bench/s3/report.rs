//! The report, in Markdown: only what was measured.

use std::fmt::Write as _;

use anyhow::Result;

use super::tools::Tool;
use super::{Case, Options, Sample};
use crate::bench::disk::corpus::Corpus;
use crate::bench::files::SYSTEM;
use crate::bench::measure::median;
use crate::bench::report::{machine, peak_mark, table, verdict};
use crate::bench::sample::mib;

/// The rows: what was done, and what ours is compared with.
const ROWS: &[(Case, &str, Case)] = &[
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
];

/// The most that ours may take of the best of the others, by the clock.
const MARK: f64 = 0.5;

type Value = fn(&Sample) -> f64;

#[expect(clippy::cast_precision_loss, reason = "a number to print")]
fn number(count: u64) -> f64 {
    count as f64
}

/// The median of what was measured.
fn of(samples: &[Sample], tool: Tool, case: Case, value: Value) -> Option<f64> {
    let of_it = |sample: &&Sample| sample.tool == tool && sample.case == case;
    let mut found = samples.iter().filter(of_it).map(value).peekable();
    found.peek()?;
    Some(median(found))
}

/// Ours divided by the least of the others.
fn ratio(samples: &[Sample], (case, theirs): (Case, Case), value: Value) -> Option<f64> {
    let others = Tool::ALL.into_iter().filter(|tool| *tool != Tool::Snapkeep);
    let best = others
        .filter_map(|tool| of(samples, tool, theirs, value))
        .min_by(f64::total_cmp)?;
    Some(of(samples, Tool::Snapkeep, case, value)? / best)
}

pub(super) fn report(
    options: &Options,
    corpus: &Corpus,
    tools: &[Tool],
    samples: &[Sample],
    args: &[String],
) -> Result<String> {
    let columns: Vec<_> = tools.iter().map(|tool| (*tool, tool.name())).collect();
    let rows: Vec<_> = (ROWS.iter())
        .map(|(case, title, ..)| (*case, *title))
        .collect();
    let mut out =
        String::from("# Backups of one disk to a bucket that is far away, side by side\n\n");
    let command = ["cargo xtask bench s3"].into_iter();
    let command: Vec<&str> = command.chain(args.iter().map(String::as_str)).collect();
    writeln!(
        out,
        "Made by `{}`.\n\n{} Disk: {} MiB of the files below {SYSTEM}, media and free space, from seed {}; \
         {:.1} MiB in {} regions changed. Rounds: {}.\n",
        command.join(" "),
        machine()?,
        options.size_mib,
        options.seed,
        mib(corpus.changes.iter().map(|c| c.length).sum()),
        corpus.changes.len(),
        options.rounds
    )?;
    for tool in tools {
        let version = tool.program().version()?;
        writeln!(out, "- {}: {version}; {}", tool.name(), tool.settings())?;
    }
    writeln!(out, "\n{}\n", notes(options.latency_ms))?;
    out.push_str("Median processor seconds / median wall seconds:\n\n");
    table(&mut out, &columns, &rows, |tool, case| {
        let cpu = of(samples, tool, case, |sample| sample.cost.cpu_s);
        let wall = of(samples, tool, case, |sample| sample.cost.wall_s);
        let both = cpu.zip(wall);
        both.map(|(cpu, wall)| format!("{cpu:.2} / {wall:.2}"))
    });
    out.push_str("\nRequests: PUT, GET, lists, HEAD, others; connections:\n\n");
    table(&mut out, &columns, &rows, |tool, case| {
        let values: [Value; 6] = [
            |sample| number(sample.traffic.puts),
            |sample| number(sample.traffic.gets),
            |sample| number(sample.traffic.lists),
            |sample| number(sample.traffic.heads),
            |sample| number(sample.traffic.others),
            |sample| number(sample.traffic.connections),
        ];
        let values: Option<Vec<_>> = values
            .into_iter()
            .map(|value| of(samples, tool, case, value).map(|count| format!("{count:.0}")))
            .collect();
        let values = values?;
        let (connections, requests) = values.split_last()?;
        Some(format!("{}; {connections}", requests.join(" + ")))
    });
    let values: [(&str, Value); 4] = [
        (
            "Processor seconds of all else on the machine meanwhile: the server, the proxy, the guest",
            |sample| sample.others_s,
        ),
        ("MiB sent", |sample| mib(sample.traffic.sent)),
        ("MiB received", |sample| mib(sample.traffic.received)),
        ("Peak memory of the largest process, MiB", |sample| {
            sample.cost.peak_mib
        }),
    ];
    for (title, value) in values {
        writeln!(out, "\n{title}:\n")?;
        table(&mut out, &columns, &rows, |tool, case| {
            of(samples, tool, case, value).map(|found| format!("{found:.1}"))
        });
    }
    ratios(&mut out, samples)?;
    Ok(out)
}

fn notes(latency_ms: u64) -> String {
    format!(
        "The server is Ceph's gateway with its objects in memory, on the same machine, so what it needs is in every wall time. A proxy adds \
         {latency_ms} ms to each journey there and back, and to the beginning of each connection; it bounds no bandwidth. Processor time is \
         user and system time of the tool and all its children. `snapkeep` is `snapkeep backup vm` of a QEMU that has the disk and whose \
         guest is stopped. All encrypt; restic and rustic open with a password, whose stretching is in every figure of theirs. Each keeps its \
         cache from one step to the next. Bytes are those on the wire, heads of HTTP included. Every restore was compared byte for byte."
    )
}

/// Ours against the best of the others, and the marks.
fn ratios(out: &mut String, samples: &[Sample]) -> Result<()> {
    let value: [Value; 3] = [
        |sample| sample.cost.wall_s,
        |sample| sample.cost.cpu_s,
        |sample| number(sample.traffic.requests()),
    ];
    if ratio(samples, (Case::Full, Case::Full), value[0]).is_some() {
        out.push_str("\n`snapkeep` divided by the best of the others:\n\n");
        out.push_str("| | wall time | processor time | requests |\n|---|---|---|---|\n");
        for (case, title, theirs) in ROWS {
            let cells = value.map(|value| {
                let ratio = ratio(samples, (*case, *theirs), value);
                ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
            });
            writeln!(out, "| {title} | {} |", cells.join(" | "))?;
        }
    }
    out.push('\n');
    for (case, title, theirs) in ROWS {
        if let Some(ratio) = ratio(samples, (*case, *theirs), value[0]) {
            writeln!(
                out,
                "- {title}: at most {MARK:.2} of the best peer's wall time: {} ({ratio:.2}).",
                verdict(ratio <= MARK)
            )?;
        }
    }
    let peaks = (ROWS.iter()).filter_map(|(case, ..)| {
        of(samples, Tool::Snapkeep, *case, |sample| {
            sample.cost.peak_mib
        })
    });
    writeln!(out, "{}", peak_mark(peaks))?;
    Ok(())
}
