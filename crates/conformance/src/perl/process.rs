//! Processes with a group and an output of their own, and an end in time.

use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::value::shown;
use crate::limits;

/// A process, and the last of what it wrote.
pub(crate) struct Process {
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    /// Told once nobody has the output any more.
    silent: Receiver<()>,
}

impl Process {
    /// Starts it. Its standard output and error are kept, the last of it.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        command
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let child = command.spawn()?;
        // The command has the other ends of the pipe.
        drop(command);
        let output = Arc::default();
        let (sender, silent) = channel();
        let kept = Arc::clone(&output);
        let keep = move || {
            keep(reader, &kept);
            // Nobody may wait for it.
            sender.send(()).ok();
        };
        let mut process = Self {
            child,
            output,
            silent,
        };
        let reading = std::thread::Builder::new().name("output".to_owned());
        if let Err(error) = reading.spawn(keep) {
            process.kill();
            return Err(error);
        }
        Ok(process)
    }

    /// Waits for its end; none if it does not come in time.
    pub(crate) fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(Some(status));
        }
        let descriptor = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        let mut waited = [PollFd::new(&descriptor, PollFlags::IN)];
        match poll(&mut waited, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => self.child.try_wait(),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends it, and what it started and did not leave to others.
    pub(crate) fn kill(&mut self) {
        // It may be gone already.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
        self.child.wait().ok();
    }

    /// The last that it wrote, on one line.
    pub(crate) fn last_words(&self) -> String {
        // Whoever else has its output keeps nobody waiting for long.
        self.silent.recv_timeout(limits::LAST_WORDS).ok();
        shown(&locked(&self.output))
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.child.id()).finish()
    }
}

fn locked(output: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the last of what comes, until nobody writes any more.
fn keep(mut from: PipeReader, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; limits::OUTPUT_BYTES_MAX];
    loop {
        let count = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let mut kept = locked(kept);
        kept.extend(buffer.iter().take(count));
        let beyond = kept.len().saturating_sub(limits::OUTPUT_BYTES_MAX);
        kept.drain(..beyond);
    }
}

/// Runs a command to its good end; otherwise why not.
pub(crate) fn run(mut command: Command, patience: Duration) -> Result<(), String> {
    command.stdin(Stdio::null());
    let mut process = Process::start(command).map_err(|e| format!("it cannot be started: {e}"))?;
    match process.wait(patience) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(format!("{status}: {}", process.last_words())),
        Ok(None) => {
            process.kill();
            Err(format!("it did not end within {} s", patience.as_secs()))
        }
        Err(error) => {
            process.kill();
            Err(format!("it cannot be waited for: {error}"))
        }
    }
}
