//! All printing: results on standard output, everything else on standard error.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;

use crate::failure::Code;

/// A verb's result: one JSON object, or lines for people.
pub(crate) trait Report: Serialize {
    fn lines(&self) -> Vec<String>;
}

/// Prints a result.
pub(crate) fn result(report: &impl Report, json: bool) -> Result<()> {
    if json {
        let text = serde_json::to_string(report).context("cannot encode the result")?;
        return bytes(format!("{text}\n").as_bytes());
    }
    let mut text = report.lines().join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    bytes(text.as_bytes())
}

/// Bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot write to standard output"),
    }
}

/// A failure, its causes on the same line; with `json` an object on standard output, too.
pub(crate) fn failure(error: &anyhow::Error, json: bool) -> ExitCode {
    let code = Code::of(error);
    let message = format!("{error:#}").replace('\n', " ");
    remark(&message);
    if json {
        let object = json!({"error": {"code": code.word(), "message": message}});
        if let Err(error) = bytes(format!("{object}\n").as_bytes()) {
            remark(&format!("{error:#}"));
        }
    }
    code.into()
}

/// A line about what goes on. Where it cannot be written, nobody reads it, and what goes on still goes on.
pub(crate) fn remark(line: &str) {
    let line = format!("snapkeep: {line}\n");
    drop(io::stderr().lock().write_all(line.as_bytes()));
}
