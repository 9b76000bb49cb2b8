//! Running the real tools. All of them daemonize once they can be used, so nobody waits.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

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

/// Runs a tool to its end; returns what it prints.
#[track_caller]
pub(crate) fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
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
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
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
