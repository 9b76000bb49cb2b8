//! What a restore does only if it is told to: what could be turned against the host.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};

use crate::support::namespace::{FIRST, IDMAP};
use crate::support::{Disk, are_here, has_rights, init, json, json_of, ran, sh};

const BACKUP: &[&str] = &[
    "backup",
    "container",
    "--guest",
    "web",
    "--directory",
    "source",
];
const RESTORE: &[&str] = &["restore", "container", "web", "--to"];

#[test]
fn devices_of_a_container_with_an_id_map_are_named_and_not_restored() {
    let test = "devices_of_a_container_with_an_id_map_are_named_and_not_restored";
    if !has_rights(test) || !are_here(test, &["mknod"]) {
        return;
    }
    let disk = Disk::new();
    let folder = disk.path();
    sh(
        folder,
        "mkdir source; cd source; echo hello > file; mknod disk b 7 0; mknod gone c 0 0; mknod null c 1 3; \
         chown -R 100000:100000 .",
    );
    init(folder);
    json(folder, &[BACKUP, &["--idmap", IDMAP]].concat());
    let kept = json_of(folder, &[RESTORE, &["one", "--idmap", IDMAP]].concat(), 7);
    assert_eq!(kept["problems"], 2, "{kept}");
    assert_eq!(kept["named"][0]["path"], "/disk", "{kept}");
    assert_eq!(kept["named"][1]["path"], "/null", "{kept}");
    assert_eq!(sh(&folder.join("one"), "echo *"), "file gone\n");
    // The same for a part of it.
    let part = ["extract", "web", "/disk", "--to", "two", "--idmap", IDMAP];
    let kept = json_of(folder, &part, 7);
    assert_eq!(kept["problems"], 1, "{kept}");
    let done = json(
        folder,
        &[&part[..], &["--overwrite", "--allow-devices"]].concat(),
    );
    assert_eq!(done["problems"], 0, "{done}");
    let made = fs::symlink_metadata(folder.join("two/disk")).unwrap();
    assert_eq!((made.uid(), made.rdev()), (FIRST, 7 << 8));
}

#[test]
fn a_new_folder_without_an_id_map_stays_closed_and_another_becomes_the_archives_root() {
    if !has_rights(
        "a_new_folder_without_an_id_map_stays_closed_and_another_becomes_the_archives_root",
    ) {
        return;
    }
    let disk = Disk::new();
    let folder = disk.path();
    sh(
        folder,
        "mkdir -m 755 source; mkdir -m 700 there; touch source/file; chown 1000:1000 source",
    );
    init(folder);
    json(folder, BACKUP);
    let facts = |name: &str| {
        let made = fs::metadata(folder.join(name)).unwrap();
        (made.mode() & 0o7777, made.uid())
    };
    let told = |target: &str| {
        let output = ran(folder, &[RESTORE, &[target]].concat(), 0);
        String::from_utf8_lossy(&output.stderr).contains("closed to other users")
    };
    assert!(told("new"));
    assert_eq!(facts("new"), (0o700, 0));
    // A folder that was there is the container's root, as after tar.
    assert!(!told("there"));
    assert_eq!(facts("there"), (0o755, 1000));
}

#[test]
fn an_owner_that_is_not_mapped_becomes_the_one_that_a_flag_names() {
    if !has_rights("an_owner_that_is_not_mapped_becomes_the_one_that_a_flag_names") {
        return;
    }
    let disk = Disk::new();
    let folder = disk.path();
    sh(folder, "mkdir source; touch source/strange");
    lchown(folder.join("source/strange"), Some(5000), Some(1)).unwrap();
    init(folder);
    json(folder, BACKUP);
    let map = ["--idmap", "0:100000:1000"];
    let refused = ran(folder, &[RESTORE, &["one"], &map].concat(), 1);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.contains("or give an ID for those that are not in it"),
        "{said}"
    );
    json(
        folder,
        &[RESTORE, &["two"], &map, &["--unmapped", "165534"]].concat(),
    );
    let made = fs::metadata(folder.join("two/strange")).unwrap();
    assert_eq!((made.uid(), made.gid()), (165_534, FIRST + 1));
    // The last number is nobody's: nothing would be given to it.
    ran(
        folder,
        &[RESTORE, &["three", "--unmapped", "4294967295"]].concat(),
        2,
    );
}
