//! A backup of a container that is killed anywhere, with and without its guard: the container goes
//! on, and nothing of the backup stays.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod container;

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use container::killed::{Phase, be_backup_if_asked, guard, signal_guard, wait_for_no_guard};
use container::{Lab, Log, back_up, be_guard_if_asked, can_run, fine, wait_until};
use rustix::process::{Signal, getsid};
use snapkeep_api::{Cancel, ErrorKind};
use snapkeep_host::container::Mode;
use snapkeep_host::doctor::{self, Finding, State};

#[test]
fn the_guard() {
    be_guard_if_asked();
}

#[test]
fn the_backup() {
    be_backup_if_asked();
}

const SUSPEND: [&str; 6] = [
    "hold-before-lxc-freeze",
    "hold-after-lxc-freeze",
    "hold-pass",
    "hold-before-lxc-unfreeze",
    "hold-after-lxc-unfreeze",
    "hold-commit",
];

const STOP: [&str; 6] = [
    "hold-before-lxc-stop",
    "hold-after-lxc-stop",
    "hold-pass",
    "hold-before-lxc-start",
    "hold-after-lxc-start",
    "hold-commit",
];

const SNAPSHOT: [&str; 6] = [
    "hold-before-btrfs-snapshot",
    "hold-after-btrfs-snapshot",
    "hold-pass",
    "hold-before-btrfs-delete",
    "hold-after-btrfs-delete",
    "hold-commit",
];

/// The container works, and nothing of the backup is there.
#[track_caller]
fn assert_as_before(lab: &Lab, phase: &str) {
    wait_until(phase, || lab.journals() == 0 && lab.state() == "RUNNING");
    lab.wait_until_it_works();
    if let Some(btrfs) = lab.btrfs() {
        assert_eq!(btrfs.subvolumes(), ["web/rootfs"], "{phase}");
    }
    wait_for_no_guard(lab);
}

/// The guard takes back what the backup had changed.
fn guarded(lab: &Lab, mode: &str, phases: &[&str]) {
    for hold in phases {
        lab.start_if_stopped();
        let phase = Phase::reach(lab, mode, hold);
        phase.kill(lab);
        assert_as_before(lab, hold);
    }
}

/// The next backup of the container, whose last one was killed.
fn next_backup(lab: &Lab, hold: &str) {
    // Programs of the dead one may still be at work.
    wait_until("a backup", || {
        match back_up(&lab.request(Mode::Auto), &Log::default(), |_| Ok(()), fine) {
            Ok(_) => true,
            Err(e) if e.kind() == ErrorKind::Unavailable => false,
            Err(e) => panic!("{hold}: {}", e.chain()),
        }
    });
}

/// The next backup does.
fn unguarded(lab: &Lab, mode: &str, phases: &[&str]) {
    for hold in phases {
        lab.start_if_stopped();
        let phase = Phase::reach(lab, mode, hold);
        if *hold != "hold-commit" {
            signal_guard(lab, Signal::KILL);
        }
        phase.kill(lab);
        next_backup(lab, hold);
        assert_as_before(lab, hold);
    }
}

#[test]
fn a_container_goes_on_by_the_guard_of_a_killed_backup() {
    if can_run("a_container_goes_on_by_the_guard_of_a_killed_backup", &[]) {
        guarded(&Lab::new(), "suspend", &SUSPEND);
    }
}

#[test]
fn a_container_goes_on_by_the_next_backup_if_the_guard_was_killed_too() {
    if can_run(
        "a_container_goes_on_by_the_next_backup_if_the_guard_was_killed_too",
        &[],
    ) {
        unguarded(&Lab::new(), "suspend", &SUSPEND);
    }
}

#[test]
fn what_backup_and_guard_left_is_found_and_healed_when_both_are_dead() {
    if !can_run(
        "what_backup_and_guard_left_is_found_and_healed_when_both_are_dead",
        &[],
    ) {
        return;
    }
    let lab = Lab::new();
    lab.start_if_stopped();
    let look = || doctor::containers(&lab.folder().join("state"));
    let heal = |mut found: Finding| found.heal(&Log::default(), &Cancel::new());
    assert!(look().is_empty());
    let phase = Phase::reach(&lab, "suspend", "hold-after-lxc-freeze");
    let running = look().pop().unwrap();
    assert_eq!(running.state, State::InUse, "{running:?}");
    assert!(running.owner.process.is_some());
    assert!(heal(running).is_none());
    assert_eq!(lab.state(), "FROZEN");
    signal_guard(&lab, Signal::KILL);
    phase.kill(&lab);
    assert_eq!(lab.state(), "FROZEN");
    // A program that the backup ran may still have its lock.
    wait_until("it is healed", || {
        let left = look().pop().unwrap();
        assert!(left.what.contains("container web is frozen"), "{left:?}");
        heal(left).is_some_and(|healed| healed.is_ok())
    });
    assert!(look().is_empty());
    assert_as_before(&lab, "it was healed");
}

#[test]
fn looking_keeps_neither_backup_nor_guard_from_its_work() {
    if !can_run("looking_keeps_neither_backup_nor_guard_from_its_work", &[]) {
        return;
    }
    let lab = Lab::new();
    lab.start_if_stopped();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                doctor::containers(&lab.folder().join("state"));
            }
        });
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let phase = Phase::reach(&lab, "suspend", "hold-after-lxc-freeze");
            phase.kill(&lab);
            assert_as_before(&lab, "looked at");
        }));
        over.store(true, Ordering::SeqCst);
        done.unwrap();
    });
}

#[test]
fn a_container_is_started_by_the_guard_of_a_killed_backup() {
    if can_run(
        "a_container_is_started_by_the_guard_of_a_killed_backup",
        &[],
    ) {
        guarded(&Lab::new(), "stop", &STOP);
    }
}

#[test]
fn a_container_is_started_by_the_next_backup_if_the_guard_was_killed_too() {
    if can_run(
        "a_container_is_started_by_the_next_backup_if_the_guard_was_killed_too",
        &[],
    ) {
        unguarded(&Lab::new(), "stop", &STOP);
    }
}

#[test]
fn a_snapshot_is_deleted_by_the_guard_of_a_killed_backup() {
    if can_run(
        "a_snapshot_is_deleted_by_the_guard_of_a_killed_backup",
        &["mkfs.btrfs"],
    ) {
        guarded(&Lab::on_btrfs(true), "snapshot", &SNAPSHOT);
    }
}

#[test]
fn a_snapshot_is_deleted_by_the_next_backup_if_the_guard_was_killed_too() {
    let name = "a_snapshot_is_deleted_by_the_next_backup_if_the_guard_was_killed_too";
    if can_run(name, &["mkfs.btrfs"]) {
        unguarded(&Lab::on_btrfs(true), "snapshot", &SNAPSHOT);
    }
}

#[test]
fn a_backup_whose_guard_was_killed_ends_well() {
    if !can_run("a_backup_whose_guard_was_killed_ends_well", &[]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    let phase = Phase::reach(&lab, "suspend", "hold-pass");
    signal_guard(&lab, Signal::KILL);
    phase.go_on(&lab);
    assert_as_before(&lab, "without a guard");
}

#[test]
fn a_guard_outlives_the_signals_that_end_a_session() {
    if !can_run("a_guard_outlives_the_signals_that_end_a_session", &[]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    let phase = Phase::reach(&lab, "suspend", "hold-pass");
    let id = guard(&lab);
    assert_eq!(getsid(Some(id)), Ok(id));
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
        signal_guard(&lab, signal);
    }
    assert_eq!(lab.state(), "FROZEN");
    phase.kill(&lab);
    assert_as_before(&lab, "after signals");
}

#[test]
fn no_other_program_learns_how_to_open_a_repository() {
    if !can_run("no_other_program_learns_how_to_open_a_repository", &[]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    let phase = Phase::reach(&lab, "stop", "hold-commit");
    phase.go_on(&lab);
    let knows = |process: &str| {
        let path = format!("/proc/{process}/environ");
        let environment = fs::read(path).unwrap();
        String::from_utf8_lossy(&environment).contains("secret")
    };
    assert!(!knows(&lab.process()));
    let phase = Phase::reach(&lab, "suspend", "hold-pass");
    assert!(!knows(&guard(&lab).as_raw_nonzero().to_string()));
    phase.go_on(&lab);
}

#[test]
fn a_program_of_a_killed_backup_that_never_ends_is_ended() {
    if !can_run("a_program_of_a_killed_backup_that_never_ends_is_ended", &[]) {
        return;
    }
    let lab = Lab::new();
    lab.flag("impatient", true);
    lab.start();
    let phase = Phase::reach(&lab, "suspend", "hold-after-lxc-freeze");
    phase.kill_only();
    assert_as_before(&lab, "a program that hangs");
    assert!(lab.has_flag("hold-after-lxc-freeze"));
}

#[test]
fn a_container_that_was_started_again_and_frozen_by_somebody_else_is_let_alone() {
    let name = "a_container_that_was_started_again_and_frozen_by_somebody_else_is_let_alone";
    if !can_run(name, &[]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    let phase = Phase::reach(&lab, "suspend", "hold-pass");
    signal_guard(&lab, Signal::KILL);
    phase.kill(&lab);
    assert_eq!((lab.state().as_str(), lab.journals()), ("FROZEN", 1));
    lab.run("lxc-unfreeze", &[]);
    lab.run("lxc-stop", &["-k"]);
    lab.start();
    lab.run("lxc-freeze", &[]);
    let log = Log::default();
    back_up(&lab.request(Mode::Auto), &log, |_| Ok(()), fine).unwrap();
    assert!(log.text().contains("it is let alone"), "{}", log.text());
    assert_eq!((lab.state().as_str(), lab.journals()), ("FROZEN", 0));
}

#[test]
fn a_subvolume_that_is_not_the_snapshot_is_let_alone() {
    let name = "a_subvolume_that_is_not_the_snapshot_is_let_alone";
    if !can_run(name, &["mkfs.btrfs"]) {
        return;
    }
    let lab = Lab::on_btrfs(true);
    lab.start();
    let phase = Phase::reach(&lab, "snapshot", "hold-pass");
    signal_guard(&lab, Signal::KILL);
    phase.kill(&lab);
    let btrfs = lab.btrfs().unwrap();
    let mut there = btrfs.subvolumes();
    let path = there.pop().unwrap();
    assert!(path.contains("snapkeep-snapshot"), "{path}");
    btrfs.delete(&path);
    btrfs.subvolume(&path);
    let log = Log::default();
    back_up(&lab.request(Mode::Suspend), &log, |_| Ok(()), fine).unwrap();
    assert!(log.text().contains("it is let alone"), "{}", log.text());
    assert!(btrfs.subvolumes().contains(&path));
    assert_eq!(lab.journals(), 0);
}

/// A folder's only file of a kind.
fn only(lab: &Lab, kind: &str) -> PathBuf {
    let all = fs::read_dir(lab.folder().join("state")).unwrap();
    let mut all = all.map(|entry| entry.unwrap().path());
    all.find(|path| path.extension().is_some_and(|end| end == kind))
        .unwrap()
}

#[test]
fn a_container_goes_on_whose_freezing_was_cut_off_halfway() {
    let name = "a_container_goes_on_whose_freezing_was_cut_off_halfway";
    if !can_run(name, &["strace"]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    for guarded in [true, false] {
        lab.flag("die-lxc-freeze", true);
        let phase = Phase::reach(&lab, "suspend", "hold-after-lxc-freeze");
        assert_eq!(lab.state(), "FREEZING");
        let (freezer, frozen) = lab.freezer();
        fs::write(freezer, frozen).unwrap();
        if guarded {
            phase.kill(&lab);
        } else {
            phase.fail(&lab);
        }
        assert_as_before(&lab, "half frozen");
    }
}

#[test]
fn a_container_goes_on_whose_thawing_was_cut_off_halfway() {
    let name = "a_container_goes_on_whose_thawing_was_cut_off_halfway";
    if !can_run(name, &["strace"]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    for killed in [true, false] {
        lab.flag("die-lxc-unfreeze", true);
        let phase = Phase::reach(&lab, "suspend", "hold-after-lxc-unfreeze");
        let (freezer, frozen) = lab.freezer();
        let state = fs::read_to_string(freezer).unwrap();
        assert_eq!(state.trim(), frozen);
        assert_ne!(lab.state(), "FROZEN");
        if killed {
            signal_guard(&lab, Signal::KILL);
            phase.kill(&lab);
            next_backup(&lab, "half thawed");
        } else {
            phase.go_on(&lab);
        }
        assert_as_before(&lab, "half thawed");
    }
}

#[test]
fn a_container_that_was_stopped_long_ago_is_started_only_if_it_is_meant_to_run() {
    let name = "a_container_that_was_stopped_long_ago_is_started_only_if_it_is_meant_to_run";
    if !can_run(name, &[]) {
        return;
    }
    let lab = Lab::new();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for (another_boot, auto, state) in [
        (true, "", "STOPPED"),
        (true, "lxc.start.auto = 1\n", "RUNNING"),
        (false, "", "STOPPED"),
        (false, "lxc.start.auto = 1\n", "RUNNING"),
    ] {
        lab.configure(auto);
        lab.start_if_stopped();
        let phase = Phase::reach(&lab, "stop", "hold-pass");
        signal_guard(&lab, Signal::KILL);
        phase.kill(&lab);
        let journal = only(&lab, "journal");
        let mut text: serde_json::Value =
            serde_json::from_slice(&fs::read(&journal).unwrap()).unwrap();
        assert_eq!(text["newest"]["boot"], boot.trim());
        if another_boot {
            text["newest"]["boot"] = "of another boot".into();
        } else {
            text["timeouts"]["restart"]["secs"] = 0.into();
        }
        fs::write(&journal, serde_json::to_vec(&text).unwrap()).unwrap();
        let log = Log::default();
        back_up(&lab.request(Mode::Auto), &log, |_| Ok(()), fine).unwrap();
        assert_eq!((lab.state().as_str(), lab.journals()), (state, 0));
        let told = log.text().contains("it is not started");
        assert_eq!(told, state == "STOPPED", "{}", log.text());
    }
}

#[test]
fn a_guard_at_work_does_not_keep_what_the_caller_of_the_dead_backup_reads() {
    let name = "a_guard_at_work_does_not_keep_what_the_caller_of_the_dead_backup_reads";
    if !can_run(name, &[]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let phase = Phase::reach_telling(&lab, "suspend", "hold-pass", writer.into());
    let watching = guard(&lab);
    lab.flag("hold-before-lxc-unfreeze", true);
    phase.kill(&lab);
    let (over, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        over.send(said).ok();
    });
    read.recv_timeout(container::PATIENCE).unwrap();
    assert_eq!((guard(&lab), lab.state().as_str()), (watching, "FROZEN"));
    lab.flag("hold-before-lxc-unfreeze", false);
    assert_as_before(&lab, "the guard's work");
    let log = only(&lab, "log");
    assert_eq!(fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
    let said = fs::read_to_string(log).unwrap();
    assert!(said.contains("the backup was killed"), "{said}");
}

/// A file that cannot be written to until this is dropped.
struct Unwritable(PathBuf);

impl Unwritable {
    fn new(file: PathBuf) -> Self {
        let done = Command::new("chattr").arg("+i").arg(&file).status();
        assert!(done.unwrap().success(), "chattr +i");
        Self(file)
    }
}

impl Drop for Unwritable {
    fn drop(&mut self) {
        Command::new("chattr").arg("-i").arg(&self.0).status().ok();
    }
}

#[test]
fn a_guard_whose_lock_cannot_be_written_to_takes_back_all_the_same() {
    let name = "a_guard_whose_lock_cannot_be_written_to_takes_back_all_the_same";
    if !can_run(name, &["chattr"]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    let phase = Phase::reach(&lab, "suspend", "hold-pass");
    let lock = only(&lab, "lock");
    let unwritable = Unwritable::new(lock);
    phase.kill(&lab);
    wait_until("it goes on", || lab.journals() == 0);
    wait_for_no_guard(&lab);
    let refused = back_up(&lab.request(Mode::Auto), &Log::default(), |_| Ok(()), fine);
    drop(unwritable);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Target);
    assert_as_before(&lab, "the lock");
}

#[test]
fn a_guard_that_somebody_else_starts_does_nothing_to_a_living_backup() {
    let name = "a_guard_that_somebody_else_starts_does_nothing_to_a_living_backup";
    if !can_run(name, &[]) {
        return;
    }
    let lab = Lab::new();
    lab.flag("impatient", true);
    lab.start();
    let phase = Phase::reach(&lab, "suspend", "hold-pass");
    let journal = only(&lab, "journal");
    let start = |folder: PathBuf| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_guard", "--nocapture"])
            .args([folder.as_os_str(), journal.file_stem().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap()
    };
    assert!(!start(lab.folder().join("state")).success());
    assert_eq!((lab.state().as_str(), lab.journals()), ("FROZEN", 1));
    let absent = lab.folder().join("absent");
    assert!(!start(absent.clone()).success());
    assert!(!absent.exists());
    phase.go_on(&lab);
    assert_as_before(&lab, "somebody else's guard");
}
