//! The ways in which a container is kept still, and what comes of its archive.

use std::fs;

use serde_json::Value;

use crate::lab::Lab;
use crate::support::{output, sh};

/// The counters of an archive are of one instant: the second follows the first.
#[track_caller]
fn is_of_one_instant(lab: &Lab, archive: &str) {
    let number = |path| -> u64 { lab.cat(archive, path).trim().parse().unwrap() };
    let (first, second) = (number("/srv/first"), number("/srv/second"));
    assert!(
        first == second || first == second + 1,
        "{first} and {second}"
    );
}

/// Restores an archive as a container of its own, which then finds the same in its files.
#[track_caller]
fn starts_as_another(lab: &Lab, archive: &str, name: &str) {
    let restore = ["restore", "container", archive, "--lxc", name];
    let done = output(&mut lab.program(&[&restore[..], &["--lxc-path", "lxc", "--json"]].concat()));
    let done: Value = serde_json::from_slice(&done).unwrap();
    assert_eq!(done["problems"], 0, "{done}");
    assert!(!lab.rootfs(name).join("tmp/sums").exists());
    lab.lxc("lxc-start", name, &["-d"]);
    assert_eq!(lab.wait_for_sums(name), lab.wait_for_sums("web"));
    let owner = sh(&lab.rootfs(name), "stat -c %u:%g:%a data/1");
    assert_eq!(owner.trim(), "100033:100033:600");
}

#[test]
fn a_container_that_runs_is_suspended_and_its_copy_starts() {
    let Some(lab) = Lab::new(
        "a_container_that_runs_is_suspended_and_its_copy_starts",
        &[],
        ":",
    ) else {
        return;
    };
    let process = lab.lxc("lxc-info", "web", &["-p", "-H"]);
    let done = lab.backed_up(&["--mode", "suspend", "--bandwidth-limit", "1GiB"]);
    assert_eq!(done["mode"], "suspend", "{done}");
    assert!(done["left"].is_null() && done["left_out"] == 0, "{done}");
    assert!(done["read_bytes"].as_u64().unwrap() > 4_000_000, "{done}");
    lab.wait_until_it_works();
    assert_eq!(lab.lxc("lxc-info", "web", &["-p", "-H"]), process);
    let archive = done["archive"].as_str().unwrap();
    is_of_one_instant(&lab, archive);
    let config = output(&mut lab.program(&["show", archive, "--guest-config"]));
    assert_eq!(config, fs::read(lab.path("lxc/web/config")).unwrap());
    starts_as_another(&lab, archive, "copy");

    let again = lab.backed_up(&["--mode", "suspend"]);
    assert!(again["read_bytes"].as_u64().unwrap() < 100_000, "{again}");
    assert_eq!(again["left_out"], 0, "{again}");
    is_of_one_instant(&lab, "web");
    lab.wait_until_it_works();
    starts_as_another(&lab, "web", "second");
}

#[test]
fn a_snapshot_of_btrfs_is_backed_up_and_gone() {
    // It looks at all mounts first, and fails when one of another test ends meanwhile.
    let prepare = "truncate -s 256M btrfs; for i in $(seq 100); do mkfs.btrfs -q -f btrfs && break; sleep 0.1; done
        mount -o loop btrfs lxc
        mkdir lxc/web; btrfs -q subvolume create lxc/web/rootfs";
    let test = "a_snapshot_of_btrfs_is_backed_up_and_gone";
    let Some(lab) = Lab::new(test, &["mkfs.btrfs", "btrfs"], prepare) else {
        return;
    };
    let done = lab.backed_up(&[]);
    assert_eq!(done["mode"], "snapshot", "{done}");
    assert!(done["left"].is_null() && done["left_out"] == 0, "{done}");
    is_of_one_instant(&lab, "web");
    lab.wait_until_it_works();
    let count = "btrfs subvolume list lxc | wc -l";
    assert_eq!(sh(lab.folder(), count).trim(), "1");
    let again = lab.backed_up(&["--mode", "snapshot"]);
    assert!(again["read_bytes"].as_u64().unwrap() < 100_000, "{again}");
    starts_as_another(&lab, "web", "copy");
}

#[test]
fn a_clone_of_a_disk_image_is_backed_up_and_gone() {
    let prepare = "truncate -s 1G disk; mkfs.xfs -q -m reflink=1 disk; mkdir images; mount -o loop disk images
        truncate -s 64M images/web; mkfs.ext4 -q images/web; mkdir -p lxc/web/rootfs
        mount -o loop images/web lxc/web/rootfs; rmdir lxc/web/rootfs/lost+found";
    let test = "a_clone_of_a_disk_image_is_backed_up_and_gone";
    let Some(lab) = Lab::new(test, &["mkfs.xfs", "mkfs.ext4", "fsfreeze"], prepare) else {
        return;
    };
    let done = lab.backed_up(&[]);
    assert_eq!(done["mode"], "snapshot", "{done}");
    assert!(done["left"].is_null() && done["left_out"] == 0, "{done}");
    assert!(done["read_bytes"].as_u64().unwrap() > 4_000_000, "{done}");
    is_of_one_instant(&lab, "web");
    lab.wait_until_it_works();
    assert_eq!(sh(lab.folder(), "ls -A images").trim(), "web");
    let again = lab.backed_up(&["--mode", "snapshot"]);
    assert!(again["read_bytes"].as_u64().unwrap() < 100_000, "{again}");
    assert_eq!(again["left_out"], 0, "{again}");
    is_of_one_instant(&lab, "web");
    starts_as_another(&lab, "web", "copy");
}

#[test]
fn a_container_is_stopped_and_started_again() {
    let Some(lab) = Lab::new("a_container_is_stopped_and_started_again", &[], ":") else {
        return;
    };
    let process = lab.lxc("lxc-info", "web", &["-p", "-H"]);
    let done = lab.backed_up(&["--mode", "stop"]);
    assert_eq!(done["mode"], "stop", "{done}");
    assert!(done["left"].is_null() && done["left_out"] == 0, "{done}");
    lab.wait_until_it_works();
    assert_ne!(lab.lxc("lxc-info", "web", &["-p", "-H"]), process);
    is_of_one_instant(&lab, "web");
    starts_as_another(&lab, "web", "copy");
}
