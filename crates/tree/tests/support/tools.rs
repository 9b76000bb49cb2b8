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
        has(test, name, found.is_ok_and(|status| status.success()))
    })
}

/// Whether this is root, which many things need.
pub(crate) fn is_root(test: &str) -> bool {
    has(test, "root", rustix::process::geteuid().is_root())
}

/// Tells of a skip if something is missing.
pub(crate) fn has(test: &str, what: &str, there: bool) -> bool {
    if !there {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!ci, "{test} needs {what}");
        eprintln!("SKIP: {test}: needs {what}");
    }
    there
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
