//! Running the real tools, in such a way that nobody has to wait until they can be used.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Whether the tools are here; a skip is told, and is a failure where there must be none.
pub(crate) fn are_here(test: &str, names: &[&str]) -> bool {
    for name in names {
        if Command::new(name).arg("--version").output().is_err() {
            let ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!ci, "{test} needs {name}");
            eprintln!("SKIP: {test}: needs {name}");
            return false;
        }
    }
    true
}

/// Longer than any tool takes; only a test that fails waits so long.
const TOOL_LIMIT: Duration = Duration::from_secs(60);

/// Runs a tool to its end; returns what it prints. One that does not end is killed, and the test
/// fails.
#[track_caller]
pub(crate) fn run(name: &str, arguments: &[&str]) -> String {
    let child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    let waiting = thread::spawn(move || {
        let output = child.wait_with_output();
        // Nobody listens any more once the limit is over.
        ended.send(()).ok();
        output
    });
    let in_time = end.recv_timeout(TOOL_LIMIT).is_ok();
    if !in_time {
        kill_process(pid, Signal::KILL).ok();
    }
    let output = waiting.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        in_time,
        "{name} {arguments:?} has not ended after {TOOL_LIMIT:?} and was killed: {said}"
    );
    assert!(output.status.success(), "{name} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A server that has put itself into the background; ends when dropped.
pub(crate) struct Daemon(Pid);

impl Daemon {
    /// Starts a tool that is told to write its process ID into this file.
    #[track_caller]
    pub(crate) fn start(name: &str, arguments: &[&str], pid_file: &str) -> Self {
        // What stays in the background must not hold our pipes open.
        let status = Command::new(name)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{name} {arguments:?}: {status}");
        let pid = fs::read_to_string(pid_file).unwrap();
        Self(Pid::from_raw(pid.trim().parse().unwrap()).unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill_process(self.0, Signal::KILL).ok();
    }
}

/// An nbdkit; ends when dropped.
pub(crate) struct Nbdkit(Child);

impl Nbdkit {
    /// Hands it a socket that already listens: clients that come before it is ready just wait for
    /// it. (When it puts itself into the background, its socket and its PID file come later.)
    #[track_caller]
    pub(crate) fn start(arguments: &[&str], socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec nbdkit \"$@\" 3<&0 </dev/null";
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(arguments)
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Nbdkit {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A connection to QEMU's monitor.
pub(crate) struct Monitor(BufReader<UnixStream>);

impl Monitor {
    pub(crate) fn connect(path: &Path) -> Self {
        let mut monitor = Self(BufReader::new(UnixStream::connect(path).unwrap()));
        monitor.line();
        monitor.run("qmp_capabilities", "{}");
        monitor
    }

    /// Runs a command that must succeed; events in between do not matter.
    #[track_caller]
    pub(crate) fn run(&mut self, command: &str, arguments: &str) {
        let line = format!("{{\"execute\":\"{command}\",\"arguments\":{arguments}}}\n");
        self.0.get_mut().write_all(line.as_bytes()).unwrap();
        loop {
            let answer = self.line();
            assert!(
                !answer.contains("\"error\""),
                "{command} {arguments}: {answer}"
            );
            if answer.contains("\"return\"") {
                return;
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the monitor is gone");
        line
    }
}
