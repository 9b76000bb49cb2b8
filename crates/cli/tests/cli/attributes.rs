//! Notes, protection, forgetting and what a verification found.

use std::fs;

use serde_json::{Value, json};
use snapkeep_api::UnixTime;
use tempfile::TempDir;

use crate::shape::check;
use crate::{back_up, fails, json as run_json, snapkeep, with_archive};

const REPO: [&str; 2] = ["-r", "repo"];

fn run(folder: &TempDir, args: &[&str]) -> Value {
    run_json(folder, &[&REPO[..], args].concat())
}

fn refused(folder: &TempDir, args: &[&str], code: i32, names: &[&str]) {
    fails(folder, &[&REPO[..], args].concat(), code, names);
}

/// The one archive's name.
fn archive(folder: &TempDir) -> String {
    let list = run(folder, &["list"]);
    list["archives"][0]["archive"].as_str().unwrap().to_owned()
}

#[test]
fn notes_are_shown_until_they_are_removed() {
    let (folder, _) = with_archive();
    let noted = run(&folder, &["note", "web", "before the update\nsecond"]);
    check("`note`", &noted);
    assert_eq!(noted["notes"], "before the update\nsecond");
    let list = snapkeep(&folder, &["-r", "repo", "list"]);
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains(": before the update\n"), "{list}");
    fs::write(folder.path().join("text"), "aus der Datei é").unwrap();
    run(&folder, &["note", "web", "--file", "text"]);
    let shown = run(&folder, &["show", "web"]);
    assert_eq!(shown["notes"], "aus der Datei é");
    run(&folder, &["note", "web", "--remove"]);
    assert_eq!(run(&folder, &["show", "web"])["notes"], Value::Null);
}

#[test]
fn notes_that_cannot_be_kept_are_refused() {
    let (folder, _) = with_archive();
    fs::write(folder.path().join("odd"), [b'a', 0xff]).unwrap();
    refused(
        &folder,
        &["note", "web", "--file", "odd"],
        2,
        &["odd", "UTF-8"],
    );
    fs::write(folder.path().join("long"), "x".repeat(65_537)).unwrap();
    refused(
        &folder,
        &["note", "web", "--file", "long"],
        1,
        &["main/vm/web/"],
    );
    refused(&folder, &["note", "web", "--file", "gone"], 1, &["gone"]);
    refused(&folder, &["note", "web"], 2, &["--remove"]);
    refused(&folder, &["note", "other", "text"], 5, &["other"]);
    assert_eq!(run(&folder, &["show", "web"])["notes"], Value::Null);
}

#[test]
fn control_characters_in_notes_do_not_reach_the_terminal() {
    let (folder, _) = with_archive();
    run(&folder, &["note", "web", "a\u{1b}[2Jb\u{7}"]);
    for verb in [&["list"][..], &["show", "web"]] {
        let out = snapkeep(&folder, &[&REPO[..], verb].concat());
        let out = String::from_utf8(out.stdout).unwrap();
        assert!(out.contains("[2Jb") && !out.contains('\u{1b}'), "{out:?}");
    }
}

#[test]
fn a_protected_archive_is_not_forgotten() {
    let (folder, _) = with_archive();
    let name = archive(&folder);
    let protected = run(&folder, &["protect", "web"]);
    check("`protect`, `unprotect`", &protected);
    assert_eq!(protected, json!({"archives": [name], "protected": true}));
    refused(
        &folder,
        &["forget", &name],
        1,
        &[&name, "protected", "unprotect"],
    );
    assert_eq!(run(&folder, &["show", "web"])["protected"], true);
    run(&folder, &["unprotect", &name]);
    run(&folder, &["forget", &name]);
    assert_eq!(run(&folder, &["list"])["archives"], json!([]));
}

#[test]
fn a_forgotten_archive_can_be_taken_back() {
    let (folder, bytes) = with_archive();
    let name = archive(&folder);
    refused(&folder, &["forget", "web"], 5, &["web"]);
    let forgotten = run(&folder, &["forget", &name]);
    check("`forget`", &forgotten);
    assert_eq!(forgotten, json!({"archives": [name], "forgotten": true}));
    assert_eq!(run(&folder, &["list"])["archives"], json!([]));
    let restore = ["restore", "vm", &name, "--to", "disk"];
    refused(&folder, &restore, 5, &["forgotten", "forget --undo"]);
    refused(&folder, &["show", "web"], 5, &["web"]);
    let archives = &run(&folder, &["list", "--forgotten"])["archives"];
    assert_eq!(archives[0]["archive"], *name);
    run(&folder, &["list", "--forgotten", "--guest", "web"]);
    run(&folder, &["forget", "--undo", &name]);
    assert_eq!(
        run(&folder, &["list", "--forgotten"])["archives"],
        json!([])
    );
    refused(
        &folder,
        &["list", "--forgotten", "--guest", "web"],
        5,
        &["no forgotten archive of guest web"],
    );
    run(&folder, &restore);
    assert!(fs::read(folder.path().join("disk")).unwrap() == bytes);
}

#[test]
fn an_archive_that_was_forgotten_for_its_damage_raises_no_alarm_any_more() {
    let (folder, _) = with_archive();
    let name = archive(&folder);
    back_up(&folder, "web", UnixTime(100), b"");
    let record = folder.path().join("repo/snapshots").join(&name);
    let mut bytes = fs::read(&record).unwrap();
    bytes[60] ^= 1;
    fs::write(&record, bytes).unwrap();
    let code = |args: &[&str]| snapkeep(&folder, &[&REPO[..], args].concat()).status.code();
    let verbs = [
        &["list"][..],
        &["verify"],
        &["verify", "--metadata"],
        &["repair"],
        &["forget", "--keep-last", "5", "--all-guests"],
    ];
    for verb in verbs {
        assert_eq!(code(verb), Some(3), "{verb:?}");
    }
    run(&folder, &["forget", "--damaged", &name]);
    for verb in verbs {
        let output = snapkeep(&folder, &[&REPO[..], verb].concat());
        assert_eq!(output.status.code(), Some(0), "{verb:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("warning") && !said.contains(&name), "{said}");
    }
    let forgotten = run(&folder, &["list", "--forgotten"]);
    assert_eq!(forgotten["damaged"][0]["archive"], *name);
    // Whoever asks for it by its name is told.
    assert_eq!(code(&["verify", &name]), Some(3));
    run(&folder, &["forget", "--damaged", "--undo", &name]);
    assert_eq!(code(&["verify"]), Some(3));
}

#[test]
fn what_is_not_forgotten_because_of_a_damaged_record_or_without_one_says_how_it_is() {
    let (folder, _) = with_archive();
    let name = archive(&folder);
    let whole = "is not damaged: forget it as others, without --damaged";
    refused(&folder, &["forget", "--damaged", &name], 1, &[&name, whole]);
    run(&folder, &["protect", &name]);
    let record = folder.path().join("repo/snapshots").join(&name);
    let mut bytes = fs::read(&record).unwrap();
    bytes[60] ^= 1;
    fs::write(&record, bytes).unwrap();
    let damaged = "nothing was forgotten: `snapkeep forget --damaged`";
    refused(&folder, &["forget", &name], 3, &[&name, damaged]);
    let protected = "is not forgotten, for it is protected";
    let forget = ["forget", "--damaged", &name];
    refused(
        &folder,
        &forget,
        1,
        &[&name, protected, "--unprotect besides"],
    );
    run(&folder, &[&forget[..], &["--unprotect"]].concat());
}

#[test]
fn of_several_archives_none_is_forgotten_if_one_is_not_there() {
    let (folder, _) = with_archive();
    let name = archive(&folder);
    let other = "main/vm/web/2001-01-01T00:00:00Z-0123456789abcdef";
    refused(&folder, &["forget", &name, other], 5, &[other]);
    assert_eq!(archive(&folder), name);
}

#[test]
fn what_a_verification_found_is_shown_with_the_archive() {
    let (folder, _) = with_archive();
    assert_eq!(run(&folder, &["show", "web"])["verification"], Value::Null);
    run(&folder, &["verify"]);
    let shown = run(&folder, &["show", "web"]);
    check("`list`", &run(&folder, &["list"]));
    assert_eq!(shown["verification"]["damaged"], false);
    // Whatever holds the disk's data.
    let packs = folder.path().join("repo/packs");
    for pack in walk(&packs) {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[100] ^= 1;
        fs::write(&pack, bytes).unwrap();
    }
    let found = snapkeep(&folder, &["-r", "repo", "verify"]);
    assert_eq!(found.status.code(), Some(3));
    let shown = run(&folder, &["show", "web"]);
    assert_eq!(shown["verification"]["damaged"], true);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn a_log_that_was_not_kept_is_not_shown() {
    let (folder, _) = with_archive();
    refused(&folder, &["show", "web", "--log"], 5, &["no log"]);
}
