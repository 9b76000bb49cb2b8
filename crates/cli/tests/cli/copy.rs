//! `copy`: another repository, with other keys.

use std::fs;

use serde_json::Value;

use crate::shape::check;
use crate::{fails, json as run, with_archive};

#[test]
fn an_archive_is_copied_to_a_repository_with_another_key_and_restored_from_it() {
    let (folder, bytes) = with_archive();
    let init = [
        "-r",
        "other",
        "init",
        "--new-key-file",
        "key",
        "--write-recovery-kit",
        "kit2",
    ];
    run(&folder, &init);
    let note = ["-r", "repo", "note", "web", "travels"];
    run(&folder, &note);
    let copy = ["-r", "repo", "copy", "--to", "other"];
    fails(&folder, &[&copy[..], &["web"]].concat(), 6, &["other"]);
    let copy = [&copy[..], &["--to-key-file", "key"]].concat();
    fails(&folder, &copy, 2, &[]);
    fails(
        &folder,
        &[&copy[..], &["--guest", "db"]].concat(),
        5,
        &["db"],
    );
    let copied = run(&folder, &[&copy[..], &["web"]].concat());
    check("`copy`", &copied);
    assert_eq!(copied["archives"][0]["skipped"], false);
    for which in [
        &["--all"][..],
        &["--guest", "web"],
        &["--all", "--newest", "1"],
    ] {
        let again = run(&folder, &[&copy[..], which].concat());
        assert_eq!(again["archives"][0]["skipped"], true, "{again}");
        assert_eq!(again["archives"].as_array().map(Vec::len), Some(1));
    }
    let other = ["-r", "other", "--key-file", "key"];
    let list = run(&folder, &[&other[..], &["list"]].concat());
    assert_eq!(
        list["archives"][0]["archive"],
        copied["archives"][0]["archive"]
    );
    assert_eq!(list["archives"][0]["notes"], "travels");
    run(
        &folder,
        &[&other[..], &["restore", "vm", "web", "--to", "disk"]].concat(),
    );
    assert!(fs::read(folder.path().join("disk")).unwrap() == bytes);
    let found = run(&folder, &[&other[..], &["verify"]].concat());
    assert_eq!(found["damage"], Value::Array(Vec::new()));
    let itself = ["-r", "repo", "copy", "--to", "repo", "--all"];
    fails(&folder, &itself, 1, &["itself"]);
}
