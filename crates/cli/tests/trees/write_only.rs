//! A host that may only write, through the real program, on a repository with archives of its owner.

use std::path::Path;

use serde_json::Value;

use crate::Lab;
use crate::support::{json, json_of, ran, sh, text, wait_until_settled};

/// A repository of an owner's key file that has an archive, and a host's key to it.
fn lab() -> (Lab, String) {
    let lab =
        Lab::new("mkdir etc; echo one > etc/one; seq 200000 > etc/large; echo name: a > conf");
    let folder = lab.folder();
    let old = lab.back_up("old", "etc");
    owner(
        folder,
        &["key", "add-host", "node-a", "--new-key-file", "host.key"],
    );
    // What lies open opens all; the owner goes on with a key file.
    let added = json(folder, &["key", "add", "--new-key-file", "owner.key"]);
    assert_eq!(added["added"]["kind"], "key-file");
    let keys = json(folder, &["key", "list"]);
    let open = (keys["keys"].as_array().unwrap().iter())
        .find(|key| key["kind"] == "open")
        .unwrap();
    let name = open["name"].as_str().unwrap();
    json(folder, &["--key-file", "owner.key", "key", "remove", name]);
    ran(folder, &["list"], 6);
    (lab, old)
}

#[track_caller]
fn owner(folder: &Path, args: &[&str]) -> Value {
    json(folder, args)
}

#[track_caller]
fn by_host(folder: &Path, args: &[&str]) -> Value {
    json(folder, &[&["--key-file", "host.key"], args].concat())
}

#[track_caller]
fn by_owner(folder: &Path, args: &[&str]) -> Value {
    json(folder, &[&["--key-file", "owner.key"], args].concat())
}

const BACKUP: [&str; 8] = [
    "backup",
    "container",
    "--guest",
    "web",
    "--directory",
    "etc",
    "--guest-config",
    "conf",
];

#[test]
fn it_backs_up_and_keeps_facts_and_its_owner_restores() {
    let (lab, old) = lab();
    let folder = lab.folder();
    wait_until_settled();
    let first = by_host(folder, &BACKUP);
    assert_eq!(
        first["new_bytes"], 0,
        "the owner's archive has all of it: {first}"
    );
    wait_until_settled();
    sh(folder, "echo two > etc/two");
    let second = by_host(folder, &BACKUP);
    assert_eq!(
        second["read_bytes"], 4,
        "what is unchanged is not read: {second}"
    );
    let archive = second["archive"].as_str().unwrap();
    let listed = by_host(folder, &["list"]);
    assert_eq!(listed["archives"].as_array().unwrap().len(), 3);
    by_host(folder, &["note", archive, "by node-a"]);
    by_host(folder, &["protect", archive]);
    by_host(folder, &["forget", first["archive"].as_str().unwrap()]);
    let shown = by_host(folder, &["show", archive]);
    assert_eq!(shown["guest_config_bytes"], 8, "{shown}");
    by_owner(folder, &["restore", "container", archive, "--to", "new"]);
    sh(folder, "diff -r etc new");
    by_owner(folder, &["restore", "container", &old, "--to", "older"]);
    sh(folder, "rm etc/two; diff -r etc older");
    let shown = ran(
        folder,
        &["--key-file", "owner.key", "show", archive, "--guest-config"],
        0,
    );
    assert_eq!(shown.stdout, b"name: a\n");
    assert_eq!(
        by_owner(folder, &["verify"])["damage"],
        Value::Array(Vec::new())
    );
}

#[test]
fn it_is_refused_what_would_read_and_nothing_is_left_of_that() {
    let (lab, old) = lab();
    let folder = lab.folder();
    let new = by_host(folder, &BACKUP);
    let new = new["archive"].as_str().unwrap();
    sh(folder, "mkdir at");
    let before = sh(folder, "ls; find repo state -type f | sort");
    for archive in [&old[..], new] {
        for verb in [
            &["restore", "container", archive, "--to", "out"][..],
            &["restore", "container", archive, "--tar", "out.tar"],
            &["restore", "vm", archive, "--into", "out"],
            &["nbd", "serve", archive, "--socket", "out.sock"],
            &["extract", archive, "one", "--to", "out"],
            &["mount", "at"],
            &["mount", "--archive", archive, "at"],
            &["ls", archive],
            &["find", "web", "*"],
            &["diff", &old, archive],
            &["verify"],
            &["key", "add", "--new-key-file", "out.key"],
            &["key", "add-host", "node-b", "--new-key-file", "out.key"],
            &["key", "remove", "0000000000000000"],
        ] {
            let failed = json_of(folder, &[&["--key-file", "host.key"], verb].concat(), 6);
            let said = failed["error"]["message"].as_str().unwrap();
            assert!(said.contains("this key may only write"), "{verb:?}: {said}");
        }
    }
    for verb in [&["show", new, "--guest-config"][..], &["cat", new, "one"]] {
        let said = ran(folder, &[&["--key-file", "host.key"], verb].concat(), 6);
        assert!(said.stdout.is_empty(), "{said:?}");
    }
    assert_eq!(sh(folder, "ls; find repo state -type f | sort"), before);
}

#[test]
fn its_key_is_listed_with_its_name_and_revoked_by_it() {
    let (lab, _) = lab();
    let folder = lab.folder();
    let said = text(folder, &["--key-file", "host.key", "key", "list"]);
    let line = said.lines().find(|line| line.contains("writer")).unwrap();
    assert!(line.ends_with("writer  node-a  (in use)"), "{line}");
    let name = line.split(' ').next().unwrap();
    by_owner(folder, &["key", "remove", name]);
    ran(folder, &["--key-file", "host.key", "list"], 6);
    ran(
        folder,
        &[&["--key-file", "host.key"], &BACKUP[..]].concat(),
        6,
    );
    by_owner(folder, &["list"]);
}
