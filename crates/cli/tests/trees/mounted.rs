//! How a mount begins and ends.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::Lab;
use crate::support::shape::check;
use crate::support::{Running, are_here, has_rights, program, shell, skip, wait_until};

/// A mounted archive.
struct Mounted {
    lab: Lab,
    running: Running,
    told: Value,
    archive: String,
}

impl Mounted {
    /// Mounts the repository, or with this the archive alone.
    fn new(test: &str, tools: &[&str], alone: bool) -> Option<Self> {
        if !are_here(test, tools) || !has_rights(test) {
            return None;
        }
        if !Path::new("/dev/fuse").exists() {
            skip(test, "/dev/fuse");
            return None;
        }
        let lab = Lab::new("mkdir tree mnt; echo content > tree/file");
        let archive = lab.back_up("web", "tree");
        let mut args = vec!["mount", "mnt", "--json"];
        if alone {
            args.extend(["--archive", "web"]);
        }
        let (running, line) = Running::told(program(lab.folder(), &args));
        let told = serde_json::from_str(&line).unwrap();
        let mounted = Self {
            lab,
            running,
            told,
            archive,
        };
        assert!(mounted.is_mounted());
        let file = if alone {
            "mnt/file".to_owned()
        } else {
            format!("mnt/{}/tree/file", mounted.archive)
        };
        let content = fs::read(mounted.lab.path(&file)).unwrap();
        assert_eq!(content, b"content\n");
        Some(mounted)
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let at = self.lab.path("mnt");
        let at = at.to_str().unwrap();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(at))
    }

    /// Unmounts it. A process that another test is just starting has copies of all that is open for a
    /// moment, also of the file that was read here.
    #[track_caller]
    fn unmount(&self, line: &str) {
        wait_until(line, || {
            let done = shell(self.lab.folder(), line).status();
            done.unwrap().success()
        });
    }

    /// It ends well, and leaves nothing.
    #[track_caller]
    fn has_ended(self) {
        let Self { lab, running, .. } = self;
        assert_eq!(running.ended(), Some(0));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(lab.folder().to_str().unwrap()), "{mounts}");
        assert!(fs::read_dir(lab.path("mnt")).unwrap().next().is_none());
        // The same folder can be mounted at again.
        let again = Running::told(program(lab.folder(), &["mount", "mnt"])).0;
        again.signal(Signal::INT);
        assert_eq!(again.ended(), Some(0));
    }
}

#[test]
fn a_mount_ends_well_with_umount() {
    let test = "a_mount_ends_well_with_umount";
    let Some(mounted) = Mounted::new(test, &["umount"], true) else {
        return;
    };
    check("`mount`", &mounted.told);
    assert_eq!(mounted.told["archive"], mounted.archive.as_str());
    mounted.unmount("umount mnt");
    mounted.has_ended();
}

#[test]
fn a_mount_ends_well_with_fusermount() {
    let test = "a_mount_ends_well_with_fusermount";
    let Some(mounted) = Mounted::new(test, &["fusermount3"], false) else {
        return;
    };
    check("`mount`", &mounted.told);
    assert_eq!(mounted.told["archive"], Value::Null);
    mounted.unmount("fusermount3 -u mnt");
    mounted.has_ended();
}

#[test]
fn a_signal_ends_a_mount_and_leaves_none() {
    for alone in [true, false] {
        let test = "a_signal_ends_a_mount_and_leaves_none";
        let Some(mounted) = Mounted::new(test, &[], alone) else {
            return;
        };
        mounted.running.signal(Signal::TERM);
        mounted.has_ended();
    }
}

#[test]
fn a_signal_ends_a_mount_that_is_in_use() {
    let test = "a_signal_ends_a_mount_that_is_in_use";
    let Some(mounted) = Mounted::new(test, &[], true) else {
        return;
    };
    let open = fs::File::open(mounted.lab.path("mnt/file")).unwrap();
    mounted.running.signal(Signal::TERM);
    mounted.has_ended();
    drop(open);
}
