//! A QEMU's monitor, as far as the demo and the benchmark need it.
//!
//! QEMU works on one command at a time, of all its monitors, and says everything in
//! the order in which it happened. So an event that comes before a reply happened
//! before that command ended, and that is how one knows when a backup began.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// How long QEMU may take to start, and for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Monitor {
    stream: BufReader<UnixStream>,
    /// The part of a message that has come.
    line: Vec<u8>,
}

impl Monitor {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("could not reach QEMU at {}", socket.display()))?;
        let mut monitor = Self {
            stream: BufReader::new(stream),
            line: Vec::new(),
        };
        let greeting = monitor.message(PATIENCE)?;
        ensure!(
            greeting.is_some_and(|message| message.get("QMP").is_some()),
            "{} does not speak QMP",
            socket.display()
        );
        monitor.execute("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Connects to a QEMU that was just started.
    pub(crate) fn of_new(socket: &Path, process: &mut Child) -> Result<Self> {
        let start = Instant::now();
        loop {
            match Self::connect(socket) {
                Ok(monitor) => return Ok(monitor),
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(error) => {
                    if let Some(status) = process.try_wait()? {
                        return Err(error.context(format!("it ended at once ({status})")));
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }

    /// Runs a command. Also gives the names of the events that came before its answer.
    pub(crate) fn execute(
        &mut self,
        command: &str,
        arguments: &Value,
    ) -> Result<(Value, Vec<String>)> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        let sent = self.stream.get_mut().write_all(line.as_bytes());
        sent.with_context(|| format!("could not send {command} to QEMU"))?;
        let mut events = Vec::new();
        loop {
            let message = self.message(PATIENCE)?;
            let message = message.with_context(|| format!("QEMU does not answer {command}"))?;
            if let Some(event) = message["event"].as_str() {
                events.push(event.to_owned());
            } else if let Some(value) = message.get("return") {
                return Ok((value.clone(), events));
            } else {
                bail!("QEMU refused {command}: {}", message["error"]["desc"]);
            }
        }
    }

    /// Asks QEMU to end, which it may do before it answers: then the connection is closed, or reset.
    pub(crate) fn quit(&mut self) -> Result<()> {
        let line = json!({"execute": "quit"}).to_string() + "\n";
        let sent = self.stream.get_mut().write_all(line.as_bytes());
        sent.context("could not send quit to QEMU")?;
        loop {
            match self.message(PATIENCE) {
                Ok(Some(_)) => {}
                Ok(None) => bail!("QEMU does not end"),
                Err(_) => return Ok(()),
            }
        }
    }

    /// The names of the events that come within this time.
    pub(crate) fn events(&mut self, time: Duration) -> Result<Vec<String>> {
        let start = Instant::now();
        let mut events = Vec::new();
        while let Some(left) = time.checked_sub(start.elapsed()) {
            if let Some(message) = self.message(left)? {
                let event = message["event"].as_str();
                events.push(event.context("QEMU sent what is no event")?.to_owned());
            }
        }
        Ok(events)
    }

    /// The next message; None when it has not come in time.
    fn message(&mut self, time: Duration) -> Result<Option<Value>> {
        // A time-out of zero would be none at all.
        let time = time.max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(time))?;
        match self.stream.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.ends_with(b"\n") => {
                let line = std::mem::take(&mut self.line);
                let message = serde_json::from_slice(&line).context("QEMU sent no JSON")?;
                Ok(Some(message))
            }
            Ok(_) => bail!("QEMU has ended"),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(e) => Err(e).context("could not read from QEMU"),
        }
    }
}

/// Ends a QEMU that may have ended already.
pub(crate) fn end(process: &mut Child) {
    if let Err(error) = process.kill().and_then(|()| process.wait()) {
        eprintln!("warning: QEMU may still run: {error}");
    }
}
