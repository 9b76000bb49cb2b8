//! The end of a mount.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::io::Errno;
use snapkeep_api::{Cancel, ErrorKind};
use snapkeep_mount::{Options, Unmounted, Waited, cleanup, mount};

use crate::memory::{Item, name, tree};
use crate::tools::{Background, Mount, are_here, sh};

fn mounted() -> Mount {
    let content = vec![7; 5_000_000];
    Mount::new(tree(Item::folder([(name("file"), Item::file(&content))])))
}

fn is_listed(target: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.contains(target.to_str().unwrap())
}

#[test]
fn waiting_ends_with_a_cancellation_and_dropping_unmounts() {
    if !are_here("waiting_ends_with_a_cancellation", &[]) {
        return;
    }
    let mut mount = mounted();
    let target = mount.path();
    let cancel = Cancel::new();
    let mounted = mount.mounted().take().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| mounted.wait(&cancel).unwrap());
        assert_eq!(fs::read(target.join("file")).unwrap().len(), 5_000_000);
        cancel.cancel();
        assert_eq!(waiting.join().unwrap(), Waited::Cancelled);
    });
    assert!(is_listed(&target));
    drop(mounted);
    assert!(!is_listed(&target));
    assert!(fs::read_dir(&target).unwrap().next().is_none());
}

#[test]
fn unmounting_from_outside_ends_the_waiting() {
    if !are_here("unmounting_from_outside_ends_the_waiting", &["umount"]) {
        return;
    }
    let mut mount = mounted();
    let mounted = mount.mounted().take().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| mounted.wait(&Cancel::new()).unwrap());
        sh(mount.own(), "umount mnt");
        assert_eq!(waiting.join().unwrap(), Waited::Unmounted);
    });
    // What is mounted there afterwards is somebody else's.
    sh(mount.own(), "mount -t tmpfs none mnt");
    assert_eq!(mounted.unmount().unwrap(), Unmounted::Done);
    sh(mount.own(), "umount mnt");
}

#[test]
fn unmounting_while_it_is_used_leaves_it_to_its_users() {
    if !are_here("unmounting_while_it_is_used", &[]) {
        return;
    }
    let mut mount = mounted();
    let mut open = File::open(mount.join("file")).unwrap();
    let mounted = mount.mounted().take().unwrap();
    assert_eq!(mounted.unmount().unwrap(), Unmounted::InUse);
    assert!(!is_listed(&mount.path()));
    let mut content = Vec::new();
    open.read_to_end(&mut content).unwrap();
    assert_eq!(content, vec![7; 5_000_000]);
    drop(open);
}

/// Where the process that is killed mounts.
const TARGET: &str = "SNAPKEEP_TEST_MOUNT";

#[test]
fn mounts_and_waits_if_another_test_asks_for_it() {
    let Some(target) = std::env::var_os(TARGET) else {
        return;
    };
    let mounted = mount(target.as_ref(), tree(Item::folder([])), Options::default());
    let mounted = mounted.unwrap();
    println!("mounted");
    mounted.wait(&Cancel::new()).unwrap();
}

/// Unmounts what may have been left there.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.0, flags).ok();
    }
}

#[test]
fn a_mount_whose_process_was_killed_is_told_and_removed() {
    if !are_here("a_mount_whose_process_was_killed", &[]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("mnt");
    fs::create_dir(&target).unwrap();
    let _unmount = Unmount(&target);
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = "ends::mounts_and_waits_if_another_test_asks_for_it";
    command
        .args(["--exact", "--nocapture", test])
        .env(TARGET, &target);
    let mut process = Background::start(command);
    process.until("mounted");
    let error = cleanup(&target).unwrap_err();
    assert!(error.chain().contains("still runs"), "{}", error.chain());
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    let error = fs::read_dir(&target).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::NOTCONN.raw_os_error()));
    let again = mount(&target, tree(Item::folder([])), Options::default());
    let error = again.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.chain().contains("program is gone"),
        "{}",
        error.chain()
    );
    assert!(cleanup(&target).unwrap());
    assert!(!cleanup(&target).unwrap());
    let mounted = mount(&target, tree(Item::folder([])), Options::default());
    assert_eq!(mounted.unwrap().unmount().unwrap(), Unmounted::Done);
}
