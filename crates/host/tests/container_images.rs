//! Snapshots of a container whose root file system is in a disk image: clones of that image.

mod container;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use container::killed::{Phase, be_backup_if_asked, signal_guard, wait_for_no_guard};
use container::{Lab, Log, back_up, be_guard_if_asked, can_run, fine, run, wait_until};
use rustix::process::Signal;
use snapkeep_api::ErrorKind;
use snapkeep_host::container::{Container, ContainerRequest, Mode, Way};

/// What all these tests need.
const TOOLS: [&str; 6] = [
    "mkfs.xfs",
    "mkfs.ext4",
    "mount",
    "umount",
    "losetup",
    "fsfreeze",
];

const PHASES: [&str; 10] = [
    "hold-before-fsfreeze--freeze",
    "hold-after-fsfreeze--freeze",
    "hold-before-fsfreeze--unfreeze",
    "hold-after-fsfreeze--unfreeze",
    "hold-before-mount",
    "hold-after-mount",
    "hold-pass",
    "hold-before-umount",
    "hold-after-umount",
    "hold-commit",
];

#[test]
fn the_guard() {
    be_guard_if_asked();
}

#[test]
fn the_backup() {
    be_backup_if_asked();
}

/// The container works, and nothing of the backup is there.
#[track_caller]
fn assert_as_before(lab: &Lab, phase: &str) {
    wait_until(phase, || lab.journals() == 0 && lab.state() == "RUNNING");
    wait_for_no_guard(lab);
    lab.wait_until_it_works();
    assert_gone(lab);
}

/// Loop devices go as soon as nobody looks at them.
#[track_caller]
fn assert_gone(lab: &Lab) {
    wait_until("an end of the snapshot", || {
        lab.image().snapshots().is_empty()
    });
}

fn of_folder(lab: &Lab, rootfs: &Path) -> ContainerRequest {
    let mut request = lab.request(Mode::Snapshot);
    request.container = Container::Directory {
        rootfs: rootfs.to_owned(),
        idmap: None,
    };
    request
}

#[test]
fn a_clone_of_a_disk_image_is_of_one_instant_and_is_gone_before_the_commit() {
    let name = "a_clone_of_a_disk_image_is_of_one_instant_and_is_gone_before_the_commit";
    if !can_run(name, &TOOLS) || !can_run(name, &["mkfs.btrfs", "chattr"]) {
        return;
    }
    for (outer, inner, is_all) in [
        ("xfs", "ext4", true),
        ("xfs", "xfs", false),
        ("btrfs", "ext4", false),
    ] {
        let lab = Lab::in_image(outer, inner, is_all);
        lab.start();
        lab.wait_until_it_works();
        for mode in [Mode::Auto, Mode::Snapshot] {
            let (inside, committing, log) = (lab.again(), lab.again(), Log::default());
            let done = back_up(
                &lab.request(mode),
                &log,
                move |root| {
                    inside.assert_is_snapshot(root);
                    assert!(root.starts_with(inside.folder().join("state")));
                    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
                    let mut mounts = mounts
                        .lines()
                        .map(|line| line.split(' ').collect::<Vec<_>>());
                    let options = mounts
                        .rfind(|mount| root.starts_with(mount[1]))
                        .map(|mount| mount[3].to_owned())
                        .unwrap();
                    assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{options}");
                    assert_eq!(inside.journals(), 1);
                    Ok(())
                },
                move || {
                    assert_eq!(committing.journals(), 0);
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(done.way, Way::Snapshot);
            assert!(done.left.is_none() && done.paused.is_zero());
            assert!(log.text().contains("stood still for"), "{}", log.text());
            assert_as_before(&lab, "a good end");
        }
    }
}

#[test]
fn a_snapshot_has_the_folder_that_is_mounted_somewhere_else_too() {
    let name = "a_snapshot_has_the_folder_that_is_mounted_somewhere_else_too";
    if !can_run(name, &TOOLS) {
        return;
    }
    let lab = Lab::in_image("xfs", "ext4", true);
    let (there, here) = (lab.rootfs().join("srv/a b"), lab.folder().join("bind here"));
    fs::create_dir_all(there.join("deeper")).unwrap();
    fs::create_dir(&here).unwrap();
    fs::write(there.join("deeper/file"), "it").unwrap();
    run(
        "mount",
        &["--bind", there.to_str().unwrap(), here.to_str().unwrap()],
    );
    let read = |root: &Path| {
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "it");
        Ok(())
    };
    let request = of_folder(&lab, &here.join("deeper"));
    back_up(&request, &Log::default(), read, fine).unwrap();
    assert_gone(&lab);
    run("umount", &[here.to_str().unwrap()]);
}

#[test]
fn where_files_are_not_cloned_the_container_is_suspended() {
    let name = "where_files_are_not_cloned_the_container_is_suspended";
    if !can_run(name, &TOOLS) {
        return;
    }
    let lab = Lab::in_image("ext4", "ext4", true);
    lab.start();
    let words = "makes no clones of files";
    let request = lab.request(Mode::Snapshot);
    let error = back_up(&request, &Log::default(), |_| panic!("read"), fine).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.chain().contains(words), "{}", error.chain());
    let log = Log::default();
    let done = back_up(&lab.request(Mode::Auto), &log, |_| Ok(()), fine).unwrap();
    assert_eq!(done.way, Way::Suspend);
    assert!(log.text().contains(words), "{}", log.text());
    assert_as_before(&lab, "suspended");
}

#[test]
fn a_disk_image_that_cannot_be_cloned_well_is_refused() {
    let name = "a_disk_image_that_cannot_be_cloned_well_is_refused";
    if !can_run(name, &TOOLS) || !can_run(name, &["mkfs.btrfs"]) {
        return;
    }
    let lab = Lab::in_image("xfs", "ext4", false);
    let refused = |request: &ContainerRequest, words: &str| {
        let error = back_up(request, &Log::default(), |_| panic!("read"), fine).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.chain().contains(words), "{}", error.chain());
    };
    let image = lab.image();
    let at = |name: &str| lab.folder().join(name);
    image.add("encrypted.img", "ext4", "-O encrypt", &at("encrypted"));
    refused(&of_folder(&lab, &at("encrypted")), "encrypted folders");
    image.add("btrfs.img", "btrfs", "", &at("btrfs"));
    refused(&of_folder(&lab, &at("btrfs")), "mounts twice");
    refused(
        &of_folder(&lab, Path::new("/dev/shm")),
        "neither ext4 nor XFS",
    );

    let mut request = of_folder(&lab, &lab.rootfs());
    request.safety.state_folder = lab.folder().join("lxc/state");
    refused(&request, "folder of states is on it");

    fs::create_dir(at("part")).unwrap();
    let script = format!(
        "cd {}; truncate -s 64M disk/part.img; mkfs.ext4 -q -E offset=1048576 disk/part.img 60M
         mount -o loop,offset=1048576 disk/part.img part",
        lab.folder().display()
    );
    run("sh", &["-ec", &script]);
    refused(&of_folder(&lab, &at("part")), "only a part");

    let other = image.outer().join("web.img");
    let moved = image.outer().join("moved.img");
    rustix::fs::rename(&other, &moved).unwrap();
    fs::write(&other, "").unwrap();
    // The kernel tells the new name, so the old one has nothing to do with it.
    back_up(
        &of_folder(&lab, &lab.rootfs()),
        &Log::default(),
        |_| Ok(()),
        fine,
    )
    .unwrap();
    fs::remove_file(&moved).unwrap();
    refused(&of_folder(&lab, &lab.rootfs()), "its disk image");

    image.add("open.img", "ext4", "", &at("open"));
    fs::set_permissions(image.outer(), Permissions::from_mode(0o777)).unwrap();
    refused(&of_folder(&lab, &at("open")), "others than root");
    assert_eq!(lab.journals(), 0);
}

#[test]
fn a_file_system_that_somebody_else_froze_stays_frozen() {
    let name = "a_file_system_that_somebody_else_froze_stays_frozen";
    if !can_run(name, &TOOLS) {
        return;
    }
    let lab = Lab::in_image("xfs", "ext4", true);
    lab.start();
    lab.image().freeze();
    let request = lab.request(Mode::Auto);
    let error = back_up(&request, &Log::default(), |_| panic!("read"), fine).unwrap_err();
    assert!(
        error.chain().contains("somebody else has frozen it"),
        "{}",
        error.chain()
    );
    assert_eq!((lab.journals(), lab.image().is_frozen()), (0, true));
    assert_gone(&lab);
    lab.image().thaw();
    lab.wait_until_it_works();

    // It is waited for.
    let other = lab.again();
    lab.image().freeze();
    let begun = std::thread::spawn(move || {
        let log = Log::default();
        back_up(&other.request(Mode::Snapshot), &log, |_| Ok(()), fine).unwrap()
    });
    wait_until("a backup", || lab.journals() == 1);
    lab.image().thaw();
    assert_eq!(begun.join().unwrap().way, Way::Snapshot);

    // Or after our own time.
    let phase = Phase::reach(&lab, "snapshot", "hold-pass");
    lab.image().freeze();
    phase.kill(&lab);
    wait_until("the guard's work", || lab.journals() == 0);
    wait_for_no_guard(&lab);
    assert!(lab.image().is_frozen());
    assert_gone(&lab);
    lab.image().thaw();
    lab.wait_until_it_works();
}

#[test]
fn a_clone_is_deleted_and_what_is_frozen_goes_on_by_the_guard_of_a_killed_backup() {
    let name = "a_clone_is_deleted_and_what_is_frozen_goes_on_by_the_guard_of_a_killed_backup";
    if !can_run(name, &TOOLS) {
        return;
    }
    let lab = Lab::in_image("xfs", "ext4", true);
    lab.start();
    for hold in PHASES {
        Phase::reach(&lab, "snapshot", hold).kill(&lab);
        assert_as_before(&lab, hold);
    }
}

#[test]
fn a_clone_is_deleted_and_what_is_frozen_goes_on_by_the_next_backup() {
    let name = "a_clone_is_deleted_and_what_is_frozen_goes_on_by_the_next_backup";
    if !can_run(name, &TOOLS) {
        return;
    }
    let lab = Lab::in_image("xfs", "ext4", true);
    lab.start();
    for hold in PHASES {
        let phase = Phase::reach(&lab, "snapshot", hold);
        if hold != "hold-commit" {
            signal_guard(&lab, Signal::KILL);
        }
        phase.kill(&lab);
        if hold == "hold-after-fsfreeze--freeze" {
            assert!(lab.image().is_frozen());
            assert_eq!(lab.journals(), 1);
        }
        // Programs of the dead one may still be at work.
        wait_until("a backup", || {
            match back_up(&lab.request(Mode::Auto), &Log::default(), |_| Ok(()), fine) {
                Ok(done) => done.way == Way::Snapshot,
                Err(e) if e.kind() == ErrorKind::Unavailable => false,
                Err(e) => panic!("{hold}: {}", e.chain()),
            }
        });
        assert_as_before(&lab, hold);
    }
}

#[test]
fn a_backup_thaws_what_it_froze_whatever_fails() {
    let name = "a_backup_thaws_what_it_froze_whatever_fails";
    if !can_run(name, &TOOLS) {
        return;
    }
    // XFS mounts also what is of no instant.
    let lab = Lab::in_image("xfs", "xfs", true);
    lab.start();
    let frozen = "hold-after-fsfreeze--freeze";
    // Thawing is tried again.
    lab.flag("fail-fsfreeze--unfreeze", true);
    let phase = Phase::reach(&lab, "snapshot", frozen);
    lab.flag(frozen, false);
    wait_until("a try", || lab.has_flag("failed-fsfreeze--unfreeze"));
    lab.flag("fail-fsfreeze--unfreeze", false);
    phase.go_on(&lab);
    assert_as_before(&lab, "a second try");
    // Nothing can be mounted.
    lab.flag("fail-mount", true);
    Phase::reach(&lab, "snapshot", frozen).fail(&lab);
    assert_as_before(&lab, "a clone that is not mounted");
    // Nobody asked for a snapshot.
    let phase = Phase::reach(&lab, "auto", "hold-pass");
    assert_eq!(lab.state(), "FROZEN");
    assert_gone(&lab);
    phase.go_on(&lab);
    assert_as_before(&lab, "no clone");
    lab.flag("fail-mount", false);
    // Somebody else thaws it, so that the clone is of no instant.
    let phase = Phase::reach(&lab, "snapshot", frozen);
    lab.image().thaw();
    phase.fail(&lab);
    assert_as_before(&lab, "a clone of no instant");
    // Somebody takes the clone away.
    let phase = Phase::reach(&lab, "snapshot", "hold-before-fsfreeze--freeze");
    let clone = lab.image().snapshots();
    let clone = clone.iter().find(|what| what.ends_with(".unfinished"));
    fs::remove_file(clone.unwrap()).unwrap();
    phase.fail(&lab);
    assert_as_before(&lab, "a clone that is gone");
}
