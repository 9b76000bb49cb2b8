//! All printing: results on standard output, everything else on standard error.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Code, advice};
use crate::place;
use crate::units::human;

/// A verb's result: one JSON object, or lines for people.
pub(crate) trait Report: Serialize {
    fn lines(&self) -> Vec<String>;
}

/// Prints a result.
pub(crate) fn result(report: &impl Report, json: bool) -> Result<()> {
    if json {
        let mut text = serde_json::to_string(report).context("cannot encode the result")?;
        // After the result's own parts, in their order.
        if let Some(usage) = usage_told()
            && text.ends_with('}')
        {
            text.pop();
            let comma = if text.ends_with('{') { "" } else { "," };
            text = format!("{text}{comma}\"requests\":{usage}}}");
        }
        return bytes(format!("{text}\n").as_bytes());
    }
    let mut text = report.lines().join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    bytes(text.as_bytes())
}

/// What was asked of a bucket until now, as part of a result.
fn usage_told() -> Option<Value> {
    let usage = place::usage_so_far()?;
    Some(json!({
        "put": usage.puts, "get": usage.gets, "head": usage.heads, "list": usage.lists,
        "delete": usage.deletes, "sent_bytes": usage.sent, "received_bytes": usage.received,
    }))
}

/// The same for people, at the end of a run.
pub(crate) fn usage(quiet: bool) {
    if let Some(usage) = place::usage_so_far().filter(|_| !quiet) {
        remark(&format!(
            "{} requests: {} put, {} get, {} head, {} list, {} delete; sent {}, received {}",
            usage.requests(),
            usage.puts,
            usage.gets,
            usage.heads,
            usage.lists,
            usage.deletes,
            human(usage.sent),
            human(usage.received)
        ));
    }
}

/// Bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    // Whoever reads may have seen enough.
    closed(out.write_all(bytes).and_then(|()| out.flush())).map(drop)
}

/// Standard output for much that comes piece by piece.
pub(crate) struct Output {
    out: BufWriter<io::StdoutLock<'static>>,
    /// Whether whoever reads has seen enough.
    closed: bool,
}

impl Output {
    pub(crate) fn open() -> Self {
        let out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
        Self { out, closed: false }
    }

    /// Writes on; false if nobody reads any more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<bool> {
        if !self.closed {
            let written = self.out.write_all(bytes);
            self.closed = closed(written)?;
        }
        Ok(!self.closed)
    }

    /// Writes what waits to be written.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.closed {
            let flushed = self.out.flush();
            self.closed = closed(flushed)?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub(crate) fn end(mut self) -> Result<()> {
        self.flush()
    }
}

/// Whether nobody reads what was to be written.
fn closed(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(e) => Err(e).context("cannot write to standard output"),
    }
}

/// A list that is printed while it is found: lines, or one JSON object with what the list is of
/// and the list. A failure in the middle leaves that object unfinished.
pub(crate) struct Listing {
    output: Output,
    json: bool,
    empty: bool,
}

impl Listing {
    /// Begins `{KEY: VALUE, …, LIST: [`.
    pub(crate) fn start(json: bool, of: &[(&str, &str)], list: &str) -> Result<Self> {
        let mut output = Output::open();
        if json {
            let pairs = of
                .iter()
                .map(|(key, value)| format!("{}:{},", json!(key), json!(value)));
            let pairs: String = pairs.collect();
            output.write(format!("{{{pairs}{}:[", json!(list)).as_bytes())?;
        }
        Ok(Self {
            output,
            json,
            empty: true,
        })
    }

    /// One more; false if nobody reads any more.
    pub(crate) fn item(
        &mut self,
        item: &impl Serialize,
        line: impl FnOnce() -> String,
    ) -> Result<bool> {
        if !self.json {
            return self.output.write(format!("{}\n", line()).as_bytes());
        }
        let text = serde_json::to_string(item).context("cannot encode the result")?;
        let comma = if self.empty { "" } else { "," };
        self.empty = false;
        self.output.write(format!("{comma}{text}").as_bytes())
    }

    /// That was all.
    pub(crate) fn end(mut self) -> Result<()> {
        if self.json {
            self.output.write(b"]}\n")?;
        }
        self.output.end()
    }
}

/// A failure, its causes on the same line; with `json` an object on standard output, too.
pub(crate) fn failure(error: &anyhow::Error, json: bool) -> ExitCode {
    let code = Code::of(error);
    let message = format!("{error:#}").replace('\n', " ");
    remark(&message);
    if let Some(advice) = advice(error) {
        remark(advice);
    }
    if json {
        let mut object = json!({"error": {"code": code.word(), "message": message}});
        if let Some(usage) = usage_told() {
            object["requests"] = usage;
        }
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
