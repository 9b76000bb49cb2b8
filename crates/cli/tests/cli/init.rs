//! An `init` that is interrupted, and the one after it.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::{fails, json};

const INIT: [&str; 7] = [
    "-r",
    "repo",
    "--passphrase-file",
    "pass",
    "init",
    "--write-recovery-kit",
    "kit",
];

#[test]
fn a_signal_cancels_an_init_and_the_next_one_succeeds() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("pass"), "words\n").unwrap();
    let kit = folder.path().join("kit");
    let mut child = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
        .args(INIT)
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its place is taken before the passphrase is stretched, which takes much longer than this.
    while !kit.exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert!(!kit.exists());
    assert!(!folder.path().join("repo/config").exists());
    json(&folder, &INIT);
    json(
        &folder,
        &["-r", "repo", "--passphrase-file", "pass", "list"],
    );
}

#[test]
fn a_repository_is_not_made_in_another_one() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("pass"), "words\n").unwrap();
    json(&folder, &INIT);
    for within in ["repo/sub", "repo/packs/sub"] {
        let mut init = INIT;
        init[1] = within;
        init[6] = "kit2";
        fails(&folder, &init, 1, &[within, "it lies in that of"]);
        assert!(!folder.path().join("kit2").exists());
    }
}

#[test]
fn what_a_killed_init_left_is_no_repository_and_what_else_is_there_is_somebodys() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("pass"), "words\n").unwrap();
    json(&folder, &INIT);
    // As if it had been killed after the key and before the file that makes it a repository.
    fs::remove_file(at("repo/config")).unwrap();
    fs::remove_file(at("kit")).unwrap();
    fs::write(at("repo/.put-1-1"), "half").unwrap();
    fs::write(at("repo/keys/notes"), "mine").unwrap();
    fails(&folder, &INIT, 1, &["repo", "not empty"]);
    assert!(!at("kit").exists());
    fs::remove_file(at("repo/keys/notes")).unwrap();
    json(&folder, &INIT);
    for opener in [["--passphrase-file", "pass"], ["--recovery-kit", "kit"]] {
        json(&folder, &[&["-r", "repo"], &opener[..], &["list"]].concat());
    }
}

/// A file that only its owner can read.
fn secret(path: &Path, text: &str) {
    let mut file = (File::options().write(true).create_new(true))
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn the_same_init_goes_on_after_one_that_was_killed_and_no_other_file_is_overwritten() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let init = [
        "init",
        "--new-key-file",
        "key",
        "--write-recovery-kit",
        "kit",
    ];
    let init = |repository: &'static str| [&["-r", repository][..], &init].concat();
    // As if it had been killed when the places of both secrets were taken.
    secret(&at("kit"), "");
    secret(&at("key"), "");
    json(&folder, &init("one"));
    let opens = |repository: &str| {
        for opener in [["--key-file", "key"], ["--recovery-kit", "kit"]] {
            json(
                &folder,
                &[&["-r", repository], &opener[..], &["list"]].concat(),
            );
        }
    };
    opens("one");
    // What is used stays.
    let (key, kit) = (fs::read(at("key")).unwrap(), fs::read(at("kit")).unwrap());
    fails(&folder, &init("two"), 1, &["kit", "not overwritten"]);
    fs::remove_file(at("kit")).unwrap();
    fails(&folder, &init("two"), 1, &["key", "not overwritten"]);
    assert_eq!(fs::read(at("key")).unwrap(), key);
    assert!(!at("kit").exists());
    // As if it had been killed when the key was written.
    secret(&at("kit"), "");
    json(&folder, &init("two"));
    assert_eq!(fs::read(at("key")).unwrap(), key);
    opens("two");
    assert_ne!(fs::read(at("kit")).unwrap(), kit);
    // An empty file that others can read, or that a program holds, is none of these.
    fs::remove_file(at("key")).unwrap();
    fs::write(at("kit"), "").unwrap();
    fs::set_permissions(at("kit"), Permissions::from_mode(0o644)).unwrap();
    fails(&folder, &init("three"), 1, &["kit", "not overwritten"]);
    fs::set_permissions(at("kit"), Permissions::from_mode(0o600)).unwrap();
    let held = File::open(at("kit")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    fails(&folder, &init("three"), 1, &["kit", "not overwritten"]);
    assert!(at("kit").exists());
    drop(held);
    json(&folder, &init("three"));
    opens("three");
}
