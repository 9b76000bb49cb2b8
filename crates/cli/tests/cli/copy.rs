//! `copy`: another repository, with other keys.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

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

#[test]
fn an_archive_that_is_forgotten_while_others_are_copied_is_skipped() {
    let (folder, _) = with_archive();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("tree")).unwrap();
    fs::write(at("tree/file"), "bytes").unwrap();
    let backup = [
        "backup",
        "container",
        "--guest",
        "zoo",
        "--directory",
        "tree",
    ];
    let base = ["-r", "repo", "--state", "state"];
    run(&folder, &[&base[..], &backup].concat());
    fs::write(at("words"), "words").unwrap();
    let init = ["-r", "other", "--passphrase-file", "words", "init"];
    run(
        &folder,
        &[&init[..], &["--write-recovery-kit", "kit2"]].concat(),
    );
    let list = run(&folder, &["-r", "repo", "list"]);
    let archives = list["archives"].as_array().unwrap();
    let names: Vec<&str> = (archives.iter())
        .map(|archive| archive["archive"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // The archives are chosen when the target's passphrase is asked for.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let copy = ["-r", "repo", "copy", "--to", "other", "--all"];
    let child = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
        .args([&copy[..], &["--to-passphrase-file", "pipe", "--json"]].concat())
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = fs::File::options().write(true).open(at("pipe")).unwrap();
    let gone = names.iter().min().unwrap();
    run(&folder, &["-r", "repo", "forget", gone]);
    pipe.write_all(b"words").unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(gone) && said.contains("forgotten"), "{said}");
    let copied: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(copied["archives"].as_array().unwrap().len(), 1, "{copied}");
    assert_eq!(copied["archives"][0]["skipped"], false, "{copied}");
}

#[test]
fn of_copies_at_once_to_one_target_each_ends_well_with_all_archives() {
    let (folder, _) = with_archive();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("tree")).unwrap();
    for guest in ["one", "two", "three"] {
        fs::write(at("tree/file"), guest.repeat(100_000)).unwrap();
        let backup = ["-r", "repo", "--state", "state", "backup", "container"];
        let what = ["--directory", "tree", "--guest", guest];
        run(&folder, &[&backup[..], &what].concat());
    }
    let init = ["-r", "other", "init", "--no-encryption"];
    run(
        &folder,
        &[&init[..], &["--write-recovery-kit", "kit2"]].concat(),
    );
    let copies: Vec<_> = (0..4)
        .map(|_| {
            Command::new(env!("CARGO_BIN_EXE_snapkeep"))
                .args(["-r", "repo", "copy", "--to", "other", "--all", "--json"])
                .current_dir(folder.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for copy in copies {
        let output = copy.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let copied: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(copied["archives"].as_array().unwrap().len(), 4, "{copied}");
    }
    let list = run(&folder, &["-r", "other", "list"]);
    assert_eq!(list["archives"].as_array().unwrap().len(), 4, "{list}");
    let found = run(&folder, &["-r", "other", "verify"]);
    assert_eq!(found["damage"], Value::Array(Vec::new()));
}
