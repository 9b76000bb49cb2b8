//! The report, in Markdown: only what was measured.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Case, Options, Outcome, Sample};
use crate::bench::programs::Program;
use crate::bench::report::{machine, peak_mark, table, verdict};
use crate::bench::sample::{Medians, mib};

const ROWS: &[(Case, &str)] = &[
    (Case::Full, "full backup"),
    (Case::Unchanged, "the unchanged tree"),
    (Case::Changed, "1 % of the files changed"),
    (Case::Restore, "restore into an empty folder"),
];

/// Who ours is held against: the programs that encrypt, store what is equal once, and know what
/// is unchanged.
const PEERS: &[Program] = &[Program::Restic, Program::Borg, Program::Rustic];

/// The most of the best peer's processor time that a full backup may take.
const FULL_MARK: f64 = 0.5;
/// How many times faster than the best peer the backup of an unchanged tree is.
const UNCHANGED_MARK: f64 = 3.0;

const NOTES: &str = "Processor time is user and system time of the tool and all its children, as wait4(2) tells it; \
memory is the largest resident set of any one process of the tool, not the sum of its processes. \
`snapkeep` is `snapkeep backup container --change-detection metadata`; restic, borg (`repokey-blake2`) and rustic have the \
settings they come with, so that everybody compresses in its own way and reads no file again whose size, times and inode are as \
before. All but tar encrypt. snapkeep is opened with a key file, borg with an empty passphrase, restic and rustic with a password file, \
whose stretching is in every figure of theirs. `tar and zstd` is `tar --xattrs --acls | zstd -1 -T2`. What was to be read was read once \
before each measurement, the tree for a backup and the repository for a restore, and is in the page cache as far as it has room. \
Every restore was compared with the tree by `rsync -n -aHAX --checksum --delete`: content, kind, owner, mode, time, hard links, \
ACLs, extended attributes.";

pub(super) fn title(case: Case) -> &'static str {
    (ROWS.iter().find(|(row, _)| *row == case)).map_or("", |(_, title)| title)
}

pub(super) fn report(
    options: &Options,
    outcomes: &[Outcome],
    tools: &[Program],
    missing: &[Program],
    args: &[String],
) -> Result<String> {
    let mut out = String::from("# Backups of file trees, side by side\n\n");
    let command: Vec<&str> = args.iter().map(String::as_str).collect();
    let command = format!("cargo xtask bench trees {}", command.join(" "));
    writeln!(out, "Made by `{}`.\n", command.trim_end())?;
    if options.dev {
        out.push_str("**snapkeep is the unoptimised build: its figures mean nothing.**\n\n");
    }
    writeln!(
        out,
        "{} Seed: {}. Rounds: {}.\n",
        machine()?,
        options.seed,
        options.rounds
    )?;
    for tool in tools {
        writeln!(out, "- {}: {}", tool.name(), tool.version()?)?;
    }
    for tool in missing {
        writeln!(
            out,
            "- {}: left out, for it is not installed; {}",
            tool.name(),
            how_to_get(*tool)
        )?;
    }
    writeln!(out, "\n{NOTES}")?;
    for outcome in outcomes {
        section(&mut out, outcome, tools)?;
    }
    Ok(out)
}

fn how_to_get(tool: Program) -> &'static str {
    if tool == Program::Rustic {
        "`cargo install rustic-rs --version 0.11.4 --locked --no-default-features` installs it"
    } else {
        "`cargo xtask setup --bench` installs it"
    }
}

fn section(out: &mut String, outcome: &Outcome, tools: &[Program]) -> Result<()> {
    let tree = &outcome.tree;
    writeln!(
        out,
        "\n## {}\n\n{}: {} entries, {} of them files, {:.0} MiB. {}\n",
        tree.title,
        tree.origin,
        tree.entries,
        tree.files,
        mib(tree.bytes),
        changed(outcome)
    )?;
    let medians = Medians(&outcome.samples);
    let columns: Vec<_> = tools.iter().map(|tool| (*tool, tool.name())).collect();
    out.push_str("Median processor seconds / median wall seconds:\n\n");
    table(out, &columns, ROWS, |tool, case| {
        let wall = medians.of(tool, case, Sample::wall)?;
        let cpu = medians.of(tool, case, Sample::cpu)?;
        Some(format!("{cpu:.2} / {wall:.2}"))
    });
    out.push_str("\nPeak memory of the largest process, MiB:\n\n");
    table(out, &columns, ROWS, |tool, case| {
        let peak = medians.of(tool, case, Sample::peak)?;
        Some(format!("{peak:.0}"))
    });
    out.push_str("\nStored afterwards, MiB:\n\n");
    table(out, &columns, ROWS, |tool, case| {
        let stored = medians.of(tool, case, Sample::stored_mib);
        let stored = stored.filter(|_| case != Case::Restore)?;
        Some(format!("{stored:.1}"))
    });
    ratios(out, medians)?;
    out.push('\n');
    for (tool, text) in &outcome.failures {
        writeln!(
            out,
            "- {}: FAILED and was left out from there on: {}",
            tool.name(),
            one_line(text)
        )?;
    }
    for (tool, text) in &outcome.differences {
        let who = tool.name();
        writeln!(
            out,
            "- {who}: what was restored DIFFERS: `{}`",
            one_line(text)
        )?;
    }
    for mark in marks(medians) {
        writeln!(out, "{mark}")?;
    }
    Ok(())
}

/// How the tree changed, round by round.
fn changed(outcome: &Outcome) -> String {
    let rounds = outcome.changes.iter().map(|round| {
        format!(
            "{} changed, {} removed, {} new",
            round.changed, round.removed, round.added
        )
    });
    format!(
        "Files that differ, by round: {}.",
        rounds.collect::<Vec<_>>().join("; ")
    )
}

/// Text of a program, for one line of Markdown.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 400;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LONGEST).collect()
}

/// Ours against the best of the peers, and against tar.
fn ratios(out: &mut String, medians: Medians<'_, Program, Case>) -> Result<()> {
    let ours = Program::Snapkeep;
    if medians.best(PEERS, Case::Full, Sample::cpu).is_none() {
        return Ok(());
    }
    out.push_str("\n`snapkeep` divided by the best of restic, borg and rustic, each figure by itself; and by tar and zstd:\n\n");
    out.push_str("| | processor time | wall time | stored | processor time, tar | wall time, tar |\n|---|---|---|---|---|---|\n");
    for (case, title) in ROWS {
        let ratio = |others: &[Program], value| {
            let ratio = medians.ratio((ours, *case), (others, *case), value);
            let ratio = ratio.filter(|ratio| ratio.is_finite());
            ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
        };
        let tar = &[Program::Tar];
        let cells = [
            ratio(PEERS, Sample::cpu),
            ratio(PEERS, Sample::wall),
            ratio(PEERS, Sample::stored_mib),
            ratio(tar, Sample::cpu),
            ratio(tar, Sample::wall),
        ];
        writeln!(out, "| {title} | {} |", cells.join(" | "))?;
    }
    Ok(())
}

/// Whether the marks were met, a line each.
fn marks(medians: Medians<'_, Program, Case>) -> Vec<String> {
    let ours = Program::Snapkeep;
    let mut lines = Vec::new();
    let best = medians.best(PEERS, Case::Full, Sample::cpu);
    let mine = medians.of(ours, Case::Full, Sample::cpu);
    if let Some(((peer, theirs), mine)) = best.zip(mine) {
        let stored = medians.ratio(
            (ours, Case::Full),
            (&[peer], Case::Full),
            Sample::stored_mib,
        );
        let (cpu, stored) = (mine / theirs, stored.unwrap_or(f64::NAN));
        lines.push(format!(
            "- full backup: at most {FULL_MARK:.2} of the processor time of the best peer, {}, and no larger a \
             repository than its: {} ({cpu:.2}; {stored:.2} of its size).",
            peer.name(),
            verdict(cpu <= FULL_MARK && stored <= 1.0)
        ));
    }
    let unchanged = (ours, Case::Unchanged);
    if let Some(ratio) = medians.ratio(unchanged, (PEERS, Case::Unchanged), Sample::wall) {
        let faster = ratio.recip();
        lines.push(format!(
            "- the unchanged tree: at least {UNCHANGED_MARK:.0} times faster than the best peer, by the clock: {} ({faster:.1}).",
            verdict(faster >= UNCHANGED_MARK)
        ));
    }
    let peaks = ROWS
        .iter()
        .map(|(case, _)| medians.of(ours, *case, Sample::peak));
    match peaks.collect::<Option<Vec<_>>>() {
        Some(peaks) => lines.push(peak_mark(peaks.into_iter())),
        None => lines.push("- NOT MEASURED: not every step of snapkeep was.".to_owned()),
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{Case, Medians, Program, Sample, marks};
    use crate::bench::measure::Cost;

    fn sample(tool: Program, case: Case, cpu_s: f64, wall_s: f64, stored: u64) -> Sample {
        let cost = Cost {
            wall_s,
            cpu_s,
            served_s: 0.0,
            peak_mib: 250.0,
        };
        Sample {
            tool,
            case,
            cost,
            stored,
        }
    }

    /// Two peers, and ours with these figures of a full backup and of the unchanged tree.
    fn judged(cpu: f64, stored: u64, unchanged: f64) -> Vec<String> {
        let samples = [
            sample(Program::Restic, Case::Full, 20.0, 1.0, 90 << 20),
            sample(Program::Borg, Case::Full, 10.0, 1.0, 100 << 20),
            sample(Program::Tar, Case::Full, 1.0, 1.0, 1),
            sample(Program::Restic, Case::Unchanged, 1.0, 3.0, 0),
            sample(Program::Borg, Case::Unchanged, 9.0, 6.0, 0),
            sample(Program::Snapkeep, Case::Full, cpu, 1.0, stored),
            sample(Program::Snapkeep, Case::Unchanged, 1.0, unchanged, 0),
            sample(Program::Snapkeep, Case::Changed, 1.0, 1.0, 0),
            sample(Program::Snapkeep, Case::Restore, 1.0, 1.0, 0),
        ];
        marks(Medians(&samples))
    }

    fn met(lines: &[String]) -> Vec<bool> {
        lines.iter().map(|line| line.contains(": met (")).collect()
    }

    #[test]
    fn marks_are_held_against_the_best_peer_and_not_against_tar() {
        assert_eq!(met(&judged(5.0, 100 << 20, 1.0)), [true, true, true]);
        assert_eq!(met(&judged(5.1, 100 << 20, 1.0)), [false, true, true]);
        assert_eq!(met(&judged(5.0, 101 << 20, 1.0)), [false, true, true]);
        assert_eq!(met(&judged(5.0, 100 << 20, 1.1)), [true, false, true]);
    }

    #[test]
    fn what_was_not_measured_meets_no_mark() {
        let peer = [sample(Program::Borg, Case::Full, 10.0, 1.0, 1)];
        let lines = marks(Medians(&peer));
        assert_eq!(met(&lines), [false]);
        assert!(lines[0].contains("NOT MEASURED"));
    }
}
