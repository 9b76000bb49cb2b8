//! What the reports of all benchmarks have in common.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell::capture;

/// A mark that was reached or not, in a report's words.
pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// The most memory, in MiB.
const PEAK_MARK: f64 = 300.0;

/// The line about the mark for memory, of each case's peak.
pub(crate) fn peak_mark(peaks: impl Iterator<Item = f64>) -> String {
    let most = peaks.fold(0.0, f64::max);
    let verdict = verdict(most <= PEAK_MARK);
    format!("- peak memory at most {PEAK_MARK:.0} MiB: {verdict} ({most:.0}).")
}

/// The machine of this run.
pub(crate) fn machine() -> Result<String> {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = (processor.lines())
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
        .unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    let kernel = capture(Command::new("uname").args(["-sr"]))?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    Ok(format!(
        "Machine: {processor}, {cores} cores, {}; load averages at the end {}.",
        kernel.trim(),
        load.join(" ")
    ))
}

/// A table with a row for each case that has a value for any tool.
pub(crate) fn table<T: Copy, C: Copy>(
    out: &mut String,
    tools: &[(T, &str)],
    rows: &[(C, &str)],
    cell: impl Fn(T, C) -> Option<String>,
) {
    let mut line = |cells: Vec<String>| {
        out.push_str("| ");
        out.push_str(&cells.join(" | "));
        out.push_str(" |\n");
    };
    let names = tools.iter().map(|(_, name)| (*name).to_owned());
    line(std::iter::once(String::new()).chain(names).collect());
    line(vec!["---".to_owned(); tools.len() + 1]);
    for (case, title) in rows {
        let cells: Vec<_> = tools.iter().map(|(tool, _)| cell(*tool, *case)).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells
                .into_iter()
                .map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
            line(std::iter::once((*title).to_owned()).chain(cells).collect());
        }
    }
}

/// Prints the report and keeps it.
pub(crate) fn keep(text: &str, file: &Path) -> Result<()> {
    println!("{text}");
    std::fs::create_dir_all(file.parent().context("the report has no folder")?)?;
    std::fs::write(file, text).with_context(|| format!("could not write {}", file.display()))?;
    println!("written to {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn a_table_has_a_dash_for_a_missing_value_and_no_row_without_values() {
        let mut out = String::new();
        let cell = |tool, case| (case == 1 && tool == 'a').then(|| "5".to_owned());
        table(
            &mut out,
            &[('a', "A"), ('b', "B")],
            &[(1, "one"), (2, "two")],
            cell,
        );
        assert_eq!(out, "|  | A | B |\n| --- | --- | --- |\n| one | 5 | – |\n");
    }
}
