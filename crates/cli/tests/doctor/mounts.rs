//! Mounts whose program was killed, and those of programs that live.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Disk, Running, has_rights, init, json, program, sh, skip};
use crate::{doctor, one};

/// A folder with an archive that is mounted at `mnt`.
fn mounted(test: &str) -> Option<(Disk, Running)> {
    if !has_rights(test) {
        return None;
    }
    if !Path::new("/dev/fuse").exists() {
        skip(test, "/dev/fuse");
        return None;
    }
    let disk = Disk::new();
    init(disk.path());
    sh(disk.path(), "mkdir tree mnt; echo content > tree/file");
    let backup = ["backup", "container", "--guest", "web"];
    json(
        disk.path(),
        &[&backup[..], &["--directory", "tree"]].concat(),
    );
    let mount = ["mount", "mnt", "--archive", "web"];
    let running = Running::start(program(disk.path(), &mount), "mounted ");
    Some((disk, running))
}

#[test]
fn a_mount_whose_program_was_killed_is_found_and_removed() {
    let Some((disk, running)) = mounted("a_mount_whose_program_was_killed_is_found_and_removed")
    else {
        return;
    };
    running.signal(Signal::KILL);
    assert_eq!(running.ended(), None);
    let (code, found) = doctor(disk.path(), &[]);
    assert_eq!((code, &one(&found)["state"]), (Some(9), &"stale".into()));
    assert_eq!(one(&found)["finding"], "mount");
    let at = disk.path().join("mnt");
    assert_eq!(one(&found)["where"], at.to_str().unwrap());
    assert!(fs::read_dir(&at).is_err());
    let (code, found) = doctor(disk.path(), &["--heal"]);
    assert_eq!((code, &one(&found)["healed"]), (Some(0), &true.into()));
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    assert_eq!(doctor(disk.path(), &[]), (Some(0), vec![]));
}

#[test]
fn a_mount_that_is_served_is_told_and_stays_and_one_that_stands_still_ends_no_wait() {
    let test = "a_mount_that_is_served_is_told_and_stays_and_one_that_stands_still_ends_no_wait";
    let Some((disk, running)) = mounted(test) else {
        return;
    };
    let (code, found) = doctor(disk.path(), &["--heal"]);
    assert_eq!((code, &one(&found)["state"]), (Some(0), &"in use".into()));
    running.signal(Signal::STOP);
    let (code, found) = doctor(disk.path(), &["--heal"]);
    running.signal(Signal::CONT);
    assert_eq!(code, Some(9), "{found:?}");
    assert_eq!(one(&found)["state"], "could not look");
    assert_eq!(one(&found)["healed"], Value::Null);
    let read = fs::read(disk.path().join("mnt/file")).unwrap();
    assert_eq!(read, b"content\n");
}
