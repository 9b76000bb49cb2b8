//! Temporary files of killed writers in a repository, and places that cannot be looked at.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::id;

use serde_json::Value;

use crate::support::{Disk, init, sh};
use crate::{command, doctor, one};

/// What nobody's process has as its ID: they are smaller.
const NOBODY: u32 = 4_194_305;

#[test]
fn an_old_temporary_file_that_nobody_has_open_is_removed_and_no_other_is_a_failure() {
    let disk = Disk::new();
    let folder = disk.path();
    init(folder);
    let packs = folder.join("repo/packs/ab");
    fs::create_dir_all(&packs).unwrap();
    let old = packs.join(format!(".put-{NOBODY}-0"));
    let young = packs.join(format!(".put-{NOBODY}-1"));
    let open = packs.join(format!(".put-{NOBODY}-2"));
    for file in [&old, &young, &open] {
        fs::write(file, "part of a pack").unwrap();
    }
    fs::write(packs.join(".put-odd"), "").unwrap();
    sh(&packs, "touch -d '25 hours ago' .put-*-[02]");
    let held = File::open(&open).unwrap();
    let look = ["-r", "repo"];
    let (code, found) = doctor(folder, &look);
    let states: Vec<_> = (found.iter())
        .map(|finding| finding["state"].as_str().unwrap())
        .collect();
    assert_eq!((code, states), (Some(9), vec!["stale", "recent", "in use"]));
    assert_eq!(found[2]["owner"]["process"], id());
    let (code, found) = doctor(folder, &["-r", "repo", "--heal"]);
    let healed: Vec<&Value> = found.iter().map(|finding| &finding["healed"]).collect();
    let null = Value::Null;
    assert_eq!((code, healed), (Some(0), vec![&true.into(), &null, &null]));
    assert!(!old.exists() && young.exists() && open.exists());
    assert!(packs.join(".put-odd").exists());
    drop(held);
    let (code, found) = doctor(folder, &look);
    assert_eq!((code, found.len()), (Some(9), 2));
    fs::remove_file(&open).unwrap();
    let (code, found) = doctor(folder, &look);
    assert_eq!((code, &one(&found)["state"]), (Some(0), &"recent".into()));
    sh(&packs, "touch -d '25 hours ago' .put-*-1");
    let (code, found) = doctor(folder, &["-r", "repo", "--heal"]);
    assert_eq!((code, &one(&found)["healed"]), (Some(0), &true.into()));
    let text = command(folder, &look).output().unwrap();
    assert!(text.status.success() && text.stdout.is_empty(), "{text:?}");
}

#[test]
fn what_cannot_be_looked_at_is_told_and_nothing_is_guessed() {
    let disk = Disk::new();
    let folder = disk.path();
    fs::create_dir_all(folder.join("open")).unwrap();
    fs::set_permissions(folder.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir_all(folder.join("state/containers")).unwrap();
    fs::write(folder.join("state/containers/web-1.journal"), "no journal").unwrap();
    symlink("nowhere", folder.join("dangling")).unwrap();
    let more = [
        &["-r", "absent", "--qmp", "absent.qmp"][..],
        &["--fleecing", "dangling", "--run-folder", "open", "--heal"],
    ];
    let (code, found) = doctor(folder, &more.concat());
    assert_eq!(code, Some(9));
    let told: Vec<_> = (found.iter())
        .map(|finding| {
            (
                finding["finding"].as_str().unwrap(),
                finding["state"].as_str().unwrap(),
            )
        })
        .collect();
    let unseen = |kind| (kind, "could not look");
    let wanted = ["qemu", "fleecing", "container", "mount", "repository"].map(unseen);
    assert_eq!(told, wanted, "{found:?}");
    assert!(folder.join("state/containers/web-1.journal").exists());
    let text = command(folder, &more.concat()).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("could not look: ") && text.contains("\n  where: absent.qmp\n"));
}

#[test]
fn an_empty_folder_of_a_backup_that_may_be_about_to_begin_is_not_told() {
    let disk = Disk::new();
    let folder = disk.path();
    fs::create_dir_all(folder.join("fleecing/snapkeep-run-new")).unwrap();
    assert_eq!(doctor(folder, &["--heal"]), (Some(0), vec![]));
    assert!(folder.join("fleecing/snapkeep-run-new").exists());
    sh(folder, "touch -d '2 minutes ago' fleecing/snapkeep-run-new");
    let (code, found) = doctor(folder, &["--heal"]);
    assert_eq!((code, &one(&found)["healed"]), (Some(0), &true.into()));
    assert!(!folder.join("fleecing/snapkeep-run-new").exists());
}
