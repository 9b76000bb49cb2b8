//! What the tests need of the machine.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes; only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that is gone with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Whether something can be mounted here, and the tools are; a skip is told.
pub(crate) fn can_mount(test: &str, tools: &[&str]) -> bool {
    let fuse = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    let there = |tool: &&&str| Command::new(tool).arg("--version").output().is_ok();
    let missing = match tools.iter().find(|tool| !there(tool)) {
        None if fuse => return true,
        Some(tool) if fuse => tool,
        _ => "root and /dev/fuse",
    };
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "{test} needs {missing}");
    eprintln!("SKIP: {test}: needs {missing}");
    false
}

/// Whether this is root with all users that there are. A container may not allow it, so that skip is
/// no failure.
pub(crate) fn has_all_users(test: &str) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let has = map.split_whitespace().eq(["0", "0", "4294967295"]);
    if !has {
        eprintln!("SKIP: {test}: needs the users of a whole machine");
    }
    has
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to its good end; what it prints.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What becomes a bash that runs a line in a folder.
pub(crate) fn bash(mut command: Command, folder: &Path, line: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(["-c", &format!("set -euo pipefail; {line}")])
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .current_dir(folder);
    command
}

/// Runs a line of shell in a folder to its good end; what it prints.
#[track_caller]
pub(crate) fn sh(folder: &Path, line: &str) -> String {
    output(&mut bash(Command::new("bash"), folder, line))
}
