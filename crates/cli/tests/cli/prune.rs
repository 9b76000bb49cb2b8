//! Pruning, as it is asked for and told.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shape::check;
use crate::{fails, json as run_json, snapkeep, with_archive};

const AT_ONCE: [&str; 5] = ["-r", "repo", "prune", "--any-grace", "--grace=0s"];

fn prune(folder: &TempDir, more: &[&str]) -> Value {
    run_json(folder, &[&AT_ONCE[..], more].concat())
}

fn packs(folder: &TempDir) -> usize {
    let folders = fs::read_dir(folder.path().join("repo/packs")).unwrap();
    let files = |folder: fs::DirEntry| fs::read_dir(folder.path()).unwrap().count();
    folders.map(|folder| files(folder.unwrap())).sum()
}

fn forget(folder: &TempDir) -> String {
    let list = run_json(folder, &["-r", "repo", "list"]);
    let name = list["archives"][0]["archive"].as_str().unwrap().to_owned();
    run_json(folder, &["-r", "repo", "forget", &name]);
    name
}

#[test]
fn what_was_deleted_is_told_although_nothing_more_is_condemned_unasked() {
    let (folder, _) = with_archive();
    forget(&folder);
    prune(&folder, &["--confirm"]);
    let source = folder.path().join("files");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), vec![7; 300_000]).unwrap();
    let backup = ["-r", "repo", "--state", "state", "backup", "container"];
    let backup = [&backup[..], &["--guest", "box", "--directory", "files"]].concat();
    run_json(&folder, &backup);
    forget(&folder);
    let output = snapkeep(&folder, &[&AT_ONCE[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    check("`prune`", &told);
    assert_eq!(told["deleted"]["archives"], 1, "{told}");
    let why = told["refused"].as_str().unwrap();
    assert!(why.contains("--confirm"), "{told}");
}

#[test]
fn what_was_forgotten_is_condemned_and_then_deleted() {
    let (folder, _) = with_archive();
    let before = packs(&folder);
    assert!(before > 0);
    let name = forget(&folder);
    fails(&folder, &AT_ONCE, 1, &["more than half", "--confirm"]);
    let told = prune(&folder, &["--dry-run"]);
    check("`prune`", &told);
    let condemned = prune(&folder, &["--confirm"]);
    check("`prune`", &condemned);
    assert_eq!(condemned["condemned"], told["condemned"]);
    assert_eq!(condemned["condemned"]["packs"], before);
    assert_eq!(condemned["waiting"]["packs"], before);
    assert_eq!(condemned["deleted"], Value::Null);
    assert_eq!(packs(&folder), before);
    run_json(&folder, &["-r", "repo", "forget", "--undo", &name]);
    run_json(&folder, &["-r", "repo", "forget", &name]);
    // With the usual grace period it would still wait.
    let waits = run_json(&folder, &["-r", "repo", "prune"]);
    check("`prune`", &waits);
    assert_eq!(
        (&waits["deleted"], &waits["condemned"]),
        (&Value::Null, &Value::Null)
    );
    let output = snapkeep(&folder, &[&AT_ONCE[..], &["--confirm"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("deleted 1 archive and"), "{text}");
    assert_eq!(packs(&folder), 0);
    let undo = ["-r", "repo", "forget", "--undo", &name];
    fails(&folder, &undo, 5, &["there is no archive"]);
    let verified = run_json(&folder, &["-r", "repo", "verify"]);
    assert_eq!(
        (&verified["archives"], &verified["damage"]),
        (&json!(0), &json!([]))
    );
}

#[test]
fn a_grace_period_that_is_too_short_is_refused() {
    let (folder, bytes) = with_archive();
    let short = ["-r", "repo", "prune", "--grace=59m"];
    fails(&folder, &short, 2, &["3540 seconds", "at least 1 hour"]);
    fails(&folder, &["-r", "repo", "prune", "--grace=24"], 2, &["24h"]);
    let done = run_json(&folder, &["-r", "repo", "prune", "--grace=1h"]);
    assert_eq!(done["condemned"]["packs"], 0);
    run_json(
        &folder,
        &["-r", "repo", "restore", "vm", "web", "--to", "disk"],
    );
    assert!(fs::read(folder.path().join("disk")).unwrap() == bytes);
}
