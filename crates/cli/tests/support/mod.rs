//! What the tests with whole file trees share: the program, the usual tools, and what they may need.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![expect(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

pub(crate) mod namespace;
pub(crate) mod shape;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything takes; only a test that fails waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Whether the tools are here; a skip is told, and is a failure where there must be none.
pub(crate) fn are_here(test: &str, names: &[&str]) -> bool {
    names.iter().all(|name| {
        let mut command = shell(Path::new("/"), &format!("command -v {name}"));
        let there = command.stdout(Stdio::null()).status().unwrap().success();
        if !there {
            skip(test, name);
        }
        there
    })
}

/// Tells that a test is skipped; fails where there must be no skip.
pub(crate) fn skip(test: &str, what: &str) {
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{test} needs {what}");
    eprintln!("SKIP: {test}: needs {what}");
}

/// Whether this is root with all that root may do on a machine of its own. A container may not allow
/// it, so that skip is no failure.
pub(crate) fn has_rights(test: &str) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = rights.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    // CAP_LINUX_IMMUTABLE, CAP_SYS_ADMIN, CAP_MKNOD.
    let wanted = 1 << 9 | 1 << 21 | 1 << 27;
    let all_users = read("/proc/self/uid_map")
        .split_whitespace()
        .eq(["0", "0", "4294967295"]);
    let has = all_users && rights.is_some_and(|rights| rights & wanted == wanted);
    if !has {
        eprintln!("SKIP: file_trees::{test}: needs the rights of root");
    }
    has
}

/// A line of shell in a folder.
pub(crate) fn shell(folder: &Path, line: &str) -> Command {
    in_environment(Command::new("bash"), folder, line)
}

/// What becomes a bash that runs a line in a folder.
pub(crate) fn in_environment(mut command: Command, folder: &Path, line: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(["-c", &format!("set -euo pipefail; {line}")])
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Runs it to its good end; what it prints.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}

/// Runs a line of shell in a folder to its good end; what it prints.
#[track_caller]
pub(crate) fn sh(folder: &Path, line: &str) -> String {
    String::from_utf8_lossy(&output(&mut shell(folder, line))).into_owned()
}

/// The program, in a folder, with its state in that.
pub(crate) fn program(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapkeep"));
    command
        .args(["-r", "repo", "--state", "state"])
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .stdin(Stdio::null());
    command
}

/// Runs the program; its exit code, output and errors.
#[track_caller]
pub(crate) fn ran(folder: &Path, args: &[&str], code: i32) -> Output {
    let output = program(folder, args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    output
}

/// Runs the program to this exit code; its JSON object.
#[track_caller]
pub(crate) fn json_of(folder: &Path, args: &[&str], code: i32) -> Value {
    let output = ran(folder, &[args, &["--json"]].concat(), code);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs the program to its good end; its JSON object.
#[track_caller]
pub(crate) fn json(folder: &Path, args: &[&str]) -> Value {
    json_of(folder, args, 0)
}

/// Runs the program to its good end; what it prints.
#[track_caller]
pub(crate) fn text(folder: &Path, args: &[&str]) -> String {
    String::from_utf8_lossy(&ran(folder, args, 0).stdout).into_owned()
}

/// Makes the repository that the program uses in this folder.
pub(crate) fn init(folder: &Path) {
    let kit = ["--no-encryption", "--write-recovery-kit", "kit"];
    json(folder, &[&["init"], &kit[..]].concat());
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until what was made so far is old enough to be believed: a backup believes no file that
/// was changed within two seconds before its start.
pub(crate) fn wait_until_settled() {
    let made = Instant::now();
    let old = Duration::from_secs(3);
    wait_until("files are old enough", || made.elapsed() >= old);
}

/// A folder on a disk: a file system in memory may not take all that is planted. It is gone with
/// the test, whatever was made in it.
pub(crate) struct Disk(TempDir);

impl Disk {
    pub(crate) fn new() -> Self {
        const TMPFS: i64 = 0x0102_1994;
        let usual = std::env::temp_dir();
        let kind = rustix::fs::statfs(&usual).unwrap().f_type;
        let folder = if kind == TMPFS {
            Path::new("/var/tmp")
        } else {
            &usual
        };
        Self(tempfile::tempdir_in(folder).unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A file system that somebody still uses is left as soon as nobody does.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = self.path().to_str().unwrap();
        let mut ours: Vec<_> = (mounts.lines())
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|at| at.starts_with(own))
            .collect();
        ours.reverse();
        for at in ours {
            Command::new("umount").args(["-l", at]).status().ok();
        }
        shell(self.path(), "chattr -R -f -i -a . || true")
            .stderr(Stdio::null())
            .status()
            .ok();
    }
}

/// The program at work, on a mount for one; killed when dropped.
pub(crate) struct Running {
    child: std::process::Child,
}

impl Running {
    /// Starts it.
    pub(crate) fn of(command: &mut Command) -> Self {
        let child = command.spawn().unwrap();
        Self { child }
    }

    /// Starts it, and waits until its standard output begins with this.
    #[track_caller]
    pub(crate) fn start(command: Command, begins: &str) -> Self {
        let (running, line) = Self::told(command);
        assert!(line.starts_with(begins), "{line}");
        running
    }

    /// Starts it, and waits for the first line of its standard output.
    #[track_caller]
    pub(crate) fn told(mut command: Command) -> (Self, String) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let running = Self { child };
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        // What comes later is read away, so that it never stops there.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        (running, line)
    }

    /// Whether it has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; its exit code.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Option<i32> {
        let mut status = None;
        wait_until("its end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
