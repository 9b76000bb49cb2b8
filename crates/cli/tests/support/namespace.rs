//! A user namespace, such as a container's.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{in_environment, output, wait_until};

/// The host's user that is root in it.
pub(crate) const FIRST: u32 = 100_000;
/// The map, as the program takes it.
pub(crate) const IDMAP: &str = "0:100000:65536";

/// Lives as long as this value: a process that reads until its input ends.
pub(crate) struct Namespace(Child);

impl Namespace {
    pub(crate) fn new() -> Self {
        let holder = Command::new("unshare")
            .args(["--user", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let namespace = Self(holder);
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        wait_until("a user namespace", || {
            fs::read_link(namespace.file("ns/user")).is_ok_and(|other| other != own)
        });
        for map in ["uid_map", "gid_map"] {
            fs::write(namespace.file(map), format!("0 {FIRST} 65536")).unwrap();
        }
        namespace
    }

    /// The process in it.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// What becomes a program of the host, run by its root user, who may not come to where it lies.
    pub(crate) fn program(&self, program: &str, args: &[&str]) -> Command {
        let line = "exec 9< \"$0\"; exec nsenter --user=\"$1\" --setuid 0 --setgid 0 /proc/self/fd/9 \"${@:2}\"";
        let mut command = Command::new("bash");
        command.args(["-c", line, program, &self.file("ns/user")]);
        command.args(args);
        command
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }

    /// A line of shell that its root user runs in a folder.
    pub(crate) fn shell(&self, folder: &Path, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--user={}", self.file("ns/user")))
            .args(["--setuid", "0", "--setgid", "0", "bash"]);
        in_environment(command, folder, line)
    }

    /// Runs a line of shell as its root user in a folder to its good end; what it prints.
    #[track_caller]
    pub(crate) fn sh(&self, folder: &Path, line: &str) -> Vec<u8> {
        output(&mut self.shell(folder, line))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
