//! The programs that the demo runs, and what ends it early.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::qemu::DEVICE;
use crate::shell::{capture, run};

/// Signals do not end the demo at once, so that it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(super) fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&flag))
                .context("could not watch for signals")?;
        }
        Ok(Self(flag))
    }

    pub(super) fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::SeqCst), "interrupted");
        Ok(())
    }
}

/// The program, with a repository of its own.
#[derive(Debug)]
pub(super) struct Snapkeep {
    program: PathBuf,
    folder: PathBuf,
}

impl Snapkeep {
    /// Makes an encrypted repository in `folder`.
    pub(super) fn new(programs: &Path, folder: &Path) -> Result<Self> {
        let snapkeep = Self {
            program: programs.join("snapkeep"),
            folder: folder.to_owned(),
        };
        let keys = ["--new-key-file", "key", "--write-recovery-kit", "kit"];
        let mut init = snapkeep.bare();
        capture(init.args(["--repository", "repo", "init"]).args(keys))?;
        Ok(snapkeep)
    }

    /// The program in its folder, with no setting but those it is given.
    fn bare(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).env_clear();
        command.args(["--quiet", "--config", "/dev/null"]);
        command
    }

    fn command(&self) -> Command {
        let mut command = self.bare();
        command.args(["--repository", "repo", "--key-file", "key"]);
        command
    }

    /// Starts a backup of the guest whose monitor this is.
    pub(super) fn back_up(&self, monitor: &Path) -> Result<Running> {
        let mut command = self.command();
        command.args(["--json", "backup", "vm", "--guest", "demo", "--fleecing"]);
        command.arg(&self.folder).arg("--qmp").arg(monitor);
        Running::start(&mut command)
    }

    /// What the program says of the whole repository after it has read it.
    pub(super) fn verify(&self) -> Result<String> {
        Ok(capture(self.command().arg("verify"))?.trim().to_owned())
    }

    /// Lets qemu-img make a raw image of an archive's disk.
    pub(super) fn restore(&self, archive: &str, image: &Path) -> Result<()> {
        let mut command = self.command();
        command.args(["--json", "nbd", "serve", archive]);
        let mut server = Running::start(command.args(["--socket", "nbd.socket"]))?;
        let serving = server.first_line()?;
        let uri = serving["exports"][0]["uri"].as_str();
        let uri = uri.with_context(|| format!("snapkeep serves no {DEVICE}"))?;
        let convert = ["convert", "-f", "raw", "-O", "raw", uri];
        run(Command::new("qemu-img").args(convert).arg(image))?;
        server.end()
    }
}

/// A process that prints one JSON object; killed when it is dropped before its end.
#[derive(Debug)]
pub(super) struct Running {
    process: Child,
    start: Instant,
    took: Option<Duration>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let start = Instant::now();
        let process = (command.stdin(Stdio::null()).stdout(Stdio::piped()))
            .spawn()
            .with_context(|| format!("could not start {}", command.get_program().display()))?;
        Ok(Self {
            process,
            start,
            took: None,
        })
    }

    pub(super) fn has_ended(&mut self) -> Result<bool> {
        let ended = self.process.try_wait().context("could not wait")?.is_some();
        if ended {
            self.took.get_or_insert(self.start.elapsed());
        }
        Ok(ended)
    }

    /// What it printed, and how long it took; waits for its end.
    pub(super) fn report(mut self) -> Result<(Value, Duration)> {
        let mut text = String::new();
        let stdout = self.process.stdout.as_mut();
        (stdout.context("no standard output")?)
            .read_to_string(&mut text)
            .context("could not read what snapkeep prints")?;
        let status = self.process.wait().context("could not wait")?;
        let took = self.took.unwrap_or_else(|| self.start.elapsed());
        ensure!(status.success(), "snapkeep failed: {status}");
        let report = serde_json::from_str(&text).context("snapkeep printed no JSON")?;
        Ok((report, took))
    }

    fn first_line(&mut self) -> Result<Value> {
        let stdout = self.process.stdout.as_mut();
        let mut line = String::new();
        BufReader::new(stdout.context("no standard output")?)
            .read_line(&mut line)
            .context("could not read what snapkeep prints")?;
        serde_json::from_str(&line).context("snapkeep printed no JSON")
    }

    /// Ends what serves until it is told to end.
    fn end(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.process), Signal::TERM)
            .context("could not end snapkeep")?;
        let status = self.process.wait().context("could not wait")?;
        if !status.success() {
            bail!("snapkeep nbd serve failed: {status}");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = matches!(self.process.try_wait(), Ok(Some(_)));
        if !ended
            && let Err(error) = self
                .process
                .kill()
                .and_then(|()| self.process.wait().map(drop))
        {
            eprintln!("warning: snapkeep may still run: {error}");
        }
    }
}
