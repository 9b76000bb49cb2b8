//! An `init` that is interrupted, and the one after it.

use std::fs;
use std::process::{Command, Stdio};

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
