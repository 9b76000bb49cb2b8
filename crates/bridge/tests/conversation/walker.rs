//! A container's user namespace, and its walker: this program again.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::tools::{Running, bash, output, wait_until};

/// Set where this program is a walker.
const WALKS: &str = "SNAPKEEP_TEST_WALKS";
/// The host's user that is root in the namespace, and how many there are.
pub(crate) const FIRST: u32 = 100_000;
const COUNT: u32 = 65_536;

/// Lives as long as this value: a process that reads until its input ends. Its maps are written from
/// outside, as root.
pub(crate) struct Namespace(Running);

impl Namespace {
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare");
        holder.args(["--user", "cat"]).stdin(Stdio::piped());
        let namespace = Self(Running(holder.stdout(Stdio::null()).spawn().unwrap()));
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        wait_until("a user namespace", || {
            fs::read_link(namespace.file("ns/user")).is_ok_and(|other| other != own)
        });
        for map in ["uid_map", "gid_map"] {
            fs::write(namespace.file(map), format!("0 {FIRST} {COUNT}")).unwrap();
        }
        namespace
    }

    /// The process in it.
    pub(crate) fn id(&self) -> u32 {
        self.0.0.id()
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.id())
    }

    /// What becomes a command of its root user.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--user={}", self.file("ns/user")))
            .args(["--setuid", "0", "--setgid", "0"]);
        command
    }

    /// Runs a line of shell as its root user in a folder to its good end; what it prints.
    #[track_caller]
    pub(crate) fn sh(&self, folder: &Path, line: &str) -> String {
        let mut command = self.enter();
        command.arg("bash");
        output(&mut bash(command, folder, line))
    }

    /// The same, with a file to read from.
    #[track_caller]
    pub(crate) fn sh_with(&self, folder: &Path, line: &str, input: File) {
        let mut command = self.enter();
        command.arg("bash");
        let ran = bash(command, folder, line).stdin(input).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{line}: {said}");
    }

    /// Starts a walker as its root user.
    pub(crate) fn walk(&self, socket: UnixStream) -> Running {
        // Its root user may not come to where this program is.
        start(
            socket,
            &format!(
                "exec 9< \"$0\"; exec nsenter --user={} --setuid 0 --setgid 0 /proc/self/fd/9",
                self.file("ns/user")
            ),
        )
    }
}

/// Starts a walker that is the host's root user.
pub(crate) fn walk(socket: UnixStream) -> Running {
    start(socket, "exec \"$0\"")
}

fn start(socket: UnixStream, line: &str) -> Running {
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg(format!(
            "{line} --exact walker::the_walker --test-threads=1 --nocapture"
        ))
        .arg(std::env::current_exe().unwrap())
        .env(WALKS, "1")
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

/// No test: what a walker does.
#[test]
fn the_walker() {
    if std::env::var_os(WALKS).is_some() {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        assert_eq!(snapkeep_walk::run_walker(socket), 0);
    }
}
