//! Outside programs: each has a time limit, and its words a limit of bytes.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use super::limits::OUTPUT_BYTES_MAX;
use super::lines::shown;

/// So often is looked whether the end was asked for.
const LOOK: Duration = Duration::from_millis(200);

/// What a program that ended has said.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) output: Vec<u8>,
    said: Vec<u8>,
}

impl Ended {
    /// Why it failed, in one line.
    pub(super) fn why(&self) -> String {
        let said = if self.said.is_empty() {
            &self.output
        } else {
            &self.said
        };
        let said = shown(said.trim_ascii());
        if said.is_empty() {
            format!("it ended with {}", self.status)
        } else {
            format!("it ended with {}: {said}", self.status)
        }
    }
}

/// Runs a program to its end. If it takes longer than the limit, it is killed with its whole
/// process group.
///
/// What it started in the background is not waited for. Fails with `Unavailable`, and names the program.
pub(super) fn run(command: &mut Command, stdin: Stdio, limit: Duration) -> Result<Ended> {
    run_unless(command, stdin, limit, &Cancel::new())
}

/// The same, and it is killed, too, if the end is asked for meanwhile.
pub(super) fn run_unless(
    command: &mut Command,
    stdin: Stdio,
    limit: Duration,
    cancel: &Cancel,
) -> Result<Ended> {
    let name = shown(command.get_program().as_encoded_bytes());
    let failed = |e: io::Error| {
        let what = format!("cannot run {name}");
        Error::with_source(ErrorKind::Unavailable, what, e)
    };
    withhold_secrets(command);
    command
        .current_dir("/")
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    // The command keeps descriptors, among them a lock, as long as it is there.
    command.stdin(Stdio::null());
    let ended = attend(&mut child, Instant::now() + limit, cancel);
    if !matches!(ended, Ok(Some(_))) {
        // The group is the child's until it is waited for.
        kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
        child.wait().map_err(failed)?;
    }
    let Some((output, said)) = ended.map_err(failed)? else {
        cancel.check()?;
        let what = format!(
            "{name} has not ended after {} seconds, and was killed",
            limit.as_secs_f32()
        );
        return Err(Error::new(ErrorKind::Unavailable, what));
    };
    let status = child.wait().map_err(failed)?;
    Ok(Ended {
        status,
        output,
        said,
    })
}

/// What the environment tells this program alone, among it how to open a repository, is not for
/// others: a container that is started may inherit it.
pub(super) fn withhold_secrets(command: &mut Command) {
    let given: Vec<OsString> = command
        .get_envs()
        .map(|(name, _)| name.to_owned())
        .collect();
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"SNAPKEEP_") && !given.contains(&name) {
            command.env_remove(name);
        }
    }
}

/// Reads what a child says until it ends; `None` if it does not in time, or the end was asked for.
/// Does not wait for it.
fn attend(
    child: &mut Child,
    deadline: Instant,
    cancel: &Cancel,
) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut pipes = [
        Pipe::new(child.stdout.take().map(OwnedFd::from))?,
        Pipe::new(child.stderr.take().map(OwnedFd::from))?,
    ];
    let mut ended = false;
    while !ended {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || cancel.is_cancelled() {
            return Ok(None);
        }
        let wait = Timespec::try_from(left.min(LOOK)).map_err(io::Error::other)?;
        let mut watched = vec![PollFd::new(&end, PollFlags::IN)];
        watched.extend(
            (pipes.iter())
                .filter_map(|pipe| pipe.end.as_ref())
                .map(|end| PollFd::new(end, PollFlags::IN)),
        );
        match poll(&mut watched, Some(&wait)) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        ended = !watched[0].revents().is_empty();
        for pipe in &mut pipes {
            pipe.drain()?;
        }
    }
    let [output, said] = pipes.map(|pipe| pipe.tail);
    Ok(Some((output, said)))
}

/// A pipe that is read without waiting, of which the end is kept.
struct Pipe {
    end: Option<OwnedFd>,
    tail: Vec<u8>,
}

impl Pipe {
    fn new(end: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(end) = &end {
            let flags = rustix::fs::fcntl_getfl(end)?;
            rustix::fs::fcntl_setfl(end, flags | OFlags::NONBLOCK)?;
        }
        let tail = Vec::new();
        Ok(Self { end, tail })
    }

    /// Reads what is there, at most so much that a program that never stops talking does not
    /// keep from looking at the time.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        for _ in 0..=OUTPUT_BYTES_MAX / buffer.len() {
            let Some(end) = &self.end else {
                return Ok(());
            };
            match rustix::io::read(end.as_fd(), &mut buffer) {
                Ok(0) => self.end = None,
                Ok(count) => {
                    self.tail.extend_from_slice(&buffer[..count]);
                    let over = self.tail.len().saturating_sub(OUTPUT_BYTES_MAX);
                    self.tail.drain(..over);
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<Ended> {
        run(
            Command::new("sh").args(["-c", script]),
            Stdio::null(),
            limit,
        )
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_program_says_is_kept_from_its_end() {
        let ended = shell("echo a; echo b >&2; exit 3", LONG).unwrap();
        assert_eq!(ended.output, b"a\n");
        assert_eq!(ended.why(), "it ended with exit status: 3: b");
        let ended = shell("head -c 3000000 /dev/zero | tr '\\0' x; echo end", LONG).unwrap();
        assert_eq!(ended.output.len(), OUTPUT_BYTES_MAX);
        assert!(ended.output.ends_with(b"xend\n"));
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_with_its_children() {
        let folder = tempfile::TempDir::new().unwrap();
        let script = format!(
            "sleep 1000 & echo $! > {}/pid; cat",
            folder.path().display()
        );
        // It has no end of its own: its children would live on.
        let never = run(
            Command::new("sh").args(["-c", &script]),
            Stdio::piped(),
            Duration::from_millis(1500),
        );
        let said = never.unwrap_err().chain();
        assert!(said.contains("sh has not ended"), "{said}");
        let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        // The kill is under way; whoever adopted it takes notice of its end.
        if let Ok(end) = pidfd_open(pid, PidfdFlags::empty()) {
            let wait = Timespec::try_from(LONG).unwrap();
            let ended = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&wait));
            assert_eq!(ended, Ok(1), "{pid:?} lives");
        }
    }

    #[test]
    fn what_it_leaves_in_the_background_is_not_waited_for() {
        let ended = shell("sleep 1000 & echo $!", LONG).unwrap();
        let pid = String::from_utf8(ended.output).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    #[test]
    fn a_program_is_killed_when_the_end_is_asked_for() {
        let cancel = Cancel::new();
        cancel.cancel();
        let mut command = Command::new("sleep");
        let never = run_unless(command.arg("1000"), Stdio::null(), LONG, &cancel);
        assert_eq!(never.unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut Command::new("/no/such"), Stdio::null(), LONG).unwrap_err();
        assert!(error.chain().contains("/no/such"), "{}", error.chain());
    }
}
