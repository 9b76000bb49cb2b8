//! A restore whose program is killed leaves a mount, which `doctor` removes.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{has_rights, skip};
use crate::{Caller, back_up, created};

/// What `doctor` finds in the folder alone, and its exit code.
fn doctor(folder: &TempDir, heal: &[&str]) -> (Option<i32>, Vec<Value>) {
    fs::create_dir_all(folder.path().join("fleecing")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_snapkeep"))
        .args(["--json", "--state", "state", "doctor", "--mounts", "."])
        .args(["--fleecing", "fleecing", "--run-folder", "run"])
        .args(heal)
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (output.status.code(), found.collect())
}

#[test]
fn the_mount_of_a_restore_that_was_killed_is_found_and_removed() {
    let test = "the_mount_of_a_restore_that_was_killed_is_found_and_removed";
    if !has_rights(test) {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        skip(test, "/dev/fuse");
        return;
    }
    let (folder, settings) = created();
    let mut caller = Caller::new(&folder, settings);
    let archive = back_up(&mut caller, &folder, 7);
    let volname = json!({"volname": format!("backup/{archive}")});
    caller.call("restore_vm_init", volname).unwrap();
    let volume = json!({"volname": format!("backup/{archive}"), "device": "drive-scsi0"});
    let opened = caller.call("restore_vm_volume_init", volume).unwrap();
    let image = Path::new(opened["qemu-img-path"].as_str().unwrap()).to_owned();
    let bytes = fs::read(&image).unwrap();
    assert_eq!(bytes[1 << 20], 7);

    let (code, found) = doctor(&folder, &["--heal"]);
    assert_eq!((code, found.len()), (Some(0), 1), "{found:?}");
    assert_eq!(found[0]["state"], "in use");
    assert_eq!(found[0]["owner"]["process"], caller.child.id());
    assert!(fs::read(&image).unwrap() == bytes);

    caller.child.kill().unwrap();
    caller.child.wait().unwrap();
    assert!(fs::read(&image).is_err());
    let (code, found) = doctor(&folder, &[]);
    assert_eq!((code, found.len()), (Some(9), 1), "{found:?}");
    assert_eq!(
        (&found[0]["finding"], &found[0]["state"]),
        (&json!("mount"), &json!("stale"))
    );
    assert!(fs::read_dir(image.parent().unwrap()).is_err());
    let (code, found) = doctor(&folder, &["--heal"]);
    assert_eq!(
        (code, &found[0]["healed"]),
        (Some(0), &json!(true)),
        "{found:?}"
    );
    assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 0);
    assert_eq!(doctor(&folder, &[]), (Some(0), vec![]));
}
