//! What docs/CLI.md says of the JSON objects is what comes.

use std::fs;

use serde_json::Value;

use crate::shape::{Shape, check};
use crate::{json, snapkeep, with_archive};

#[test]
fn every_object_has_the_keys_that_the_document_names() {
    let (folder, _) = with_archive();
    let repo = ["-r", "repo"];
    let run = |args: &[&str]| json(&folder, &[&repo[..], args].concat());
    let init = [
        "-r",
        "two",
        "init",
        "--no-encryption",
        "--write-recovery-kit",
        "kit2",
    ];
    check("`init`", &json(&folder, &init));
    let list = run(&["list"]);
    assert!(!list["archives"][0].is_null());
    check("`list`", &list);
    let restored = run(&["restore", "vm", "web", "--into", "all"]);
    assert!(!restored["disks"][0].is_null());
    check("`restore vm`", &restored);
    check("`verify`", &run(&["verify"]));
    let list = run(&["key", "list"]);
    assert!(!list["keys"][0].is_null());
    check("`key list`", &list);
    let keys = Shape::of("`key add`; `key change`; `key remove`; `key recovery-kit`");
    let added = run(&["key", "add", "--new-key-file", "new"]);
    keys[0].check(&added);
    keys[0].check(&run(&["key", "add-host", "a", "--new-key-file", "host"]));
    let changed = run(&[
        "--key-file",
        "new",
        "key",
        "change",
        "--new-key-file",
        "newer",
    ]);
    keys[1].check(&changed);
    let name = changed["added"]["name"].as_str().unwrap();
    keys[2].check(&run(&["key", "remove", name]));
    keys[3].check(&run(&["key", "recovery-kit", "--write", "again"]));
    let failed = snapkeep(&folder, &["-r", "gone", "list", "--json"]);
    check(
        "a failure",
        &serde_json::from_slice(&failed.stdout).unwrap(),
    );
}

#[test]
fn objects_of_containers_have_the_keys_that_the_document_names() {
    let (folder, _) = with_archive();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let repo = ["-r", "repo", "--state", "state"];
    let run = |args: &[&str]| json(&folder, &[&repo[..], args].concat());
    let backup = [
        "backup",
        "container",
        "--guest",
        "ct",
        "--directory",
        "tree",
    ];
    fs::write(tree.join("a"), "old").unwrap();
    let old = run(&backup);
    check("`backup container`", &old);
    fs::write(tree.join("a"), "newer").unwrap();
    run(&backup);
    let list = run(&["list", "--guest", "ct"]);
    check("`list`", &list);
    assert_eq!(list["archives"][0]["entries"], 2);
    let some = |verb: &str, list: &str, value: &Value| {
        assert!(!value[list][0].is_null(), "{verb}");
        check(verb, value);
    };
    some("`ls`", "entries", &run(&["ls", "ct"]));
    some("`find`", "matches", &run(&["find", "ct", "a"]));
    let old = old["archive"].as_str().unwrap();
    let diff = [&repo[..], &["diff", old, "ct", "--json"]].concat();
    let diff = snapkeep(&folder, &diff);
    assert_eq!(diff.status.code(), Some(8));
    let diff = serde_json::from_slice(&diff.stdout).unwrap();
    some("`diff`", "differences", &diff);
    // A folder that has something in it is not replaced by a file.
    fs::create_dir_all(folder.path().join("out/a/b")).unwrap();
    let extract = ["extract", "ct", "a", "--to", "out", "--overwrite", "--json"];
    let kept = [&repo[..], &extract].concat();
    let kept = snapkeep(&folder, &kept);
    assert_eq!(kept.status.code(), Some(7), "{kept:?}");
    some(
        "`extract`",
        "named",
        &serde_json::from_slice(&kept.stdout).unwrap(),
    );
    let restore = ["restore", "container", "ct"];
    let to = run(&[&restore[..], &["--to", "new"]].concat());
    check("`restore container --to`", &to);
    let tar = run(&[&restore[..], &["--tar", "tar"]].concat());
    check("`restore container --tar`", &tar);
}

#[test]
fn show_has_the_keys_of_list_and_its_own() {
    let (folder, _) = with_archive();
    let mut shown = json(&folder, &["-r", "repo", "show", "web"]);
    let mut shape = Shape::of("`show`").remove(0);
    let list = Shape::of("`list`").remove(0).0.remove("archives").unwrap();
    shape.0.extend(list.unwrap().0);
    assert!(!shown["devices"][0].is_null());
    shape.check(&shown);
    shown["devices"][0]["more"] = true.into();
    let other = std::panic::catch_unwind(|| shape.check(&shown));
    assert!(other.is_err(), "a key too many must be seen");
}
