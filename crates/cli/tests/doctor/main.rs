//! `doctor`: what killed programs left is found and healed, and nothing else is touched.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod files;
mod guest;
mod mounts;
mod others;
#[path = "../support/mod.rs"]
mod support;
mod vm;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::shape::Shape;

/// Runs the doctor where this test alone is; its exit code, and what it found.
#[track_caller]
fn doctor(folder: &Path, more: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = command(folder, more).arg("--json").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Value> = (text.lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for finding in &found {
        Shape::of("`doctor`")[0].check(finding);
    }
    (output.status.code(), found)
}

/// It looks at nothing of the machine.
fn command(folder: &Path, more: &[&str]) -> Command {
    std::fs::create_dir_all(folder.join("fleecing")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_snapkeep"));
    command.args(["--state", "state", "doctor", "--mounts", "."]);
    for (flag, folder) in [("--fleecing", "fleecing"), ("--run-folder", "run")] {
        if !more.contains(&flag) {
            command.args([flag, folder]);
        }
    }
    command
        .args(more)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap_or_default())
        .stdin(Stdio::null());
    command
}

/// What was found, if it is one thing.
#[track_caller]
fn one(found: &[Value]) -> &Value {
    assert_eq!(found.len(), 1, "{found:?}");
    &found[0]
}
