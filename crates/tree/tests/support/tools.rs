//! Running the real tools.

use std::process::{Command, Stdio};

/// Whether the tools are here; a skip is told, and is a failure where there must be none.
pub(crate) fn are_here(test: &str, names: &[&str]) -> bool {
    names.iter().all(|name| {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("command -v {name}")])
            .env("PATH", path());
        let found = command.stdout(Stdio::null()).status();
        let there = found.is_ok_and(|status| status.success());
        if !there {
            let ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!ci, "{test} needs {name}");
            eprintln!("SKIP: {test}: needs {name}");
        }
        there
    })
}

/// Whether this is root with all that root may do on a machine of its own: owners, devices, mounts,
/// inode flags. A container may not allow it, so that skip is no failure.
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

/// Runs a line of shell in a folder to its end; returns what it prints.
#[track_caller]
pub(crate) fn sh(folder: &std::path::Path, line: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", &format!("set -euo pipefail; {line}")])
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("PATH", path())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn path() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}
