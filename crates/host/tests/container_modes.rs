//! A running container of LXC is frozen, or stopped, or neither, while it is read, and goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod container;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use container::{Lab, Log, back_up, back_up_unless, be_guard_if_asked, can_run, fine};
use snapkeep_api::{Cancel, Error, ErrorKind};
use snapkeep_host::container::{Container, ContainerRequest, Mode, Way};

#[test]
fn the_guard() {
    be_guard_if_asked();
}

#[test]
fn a_suspended_container_stands_still_until_it_is_read_and_not_until_the_commit() {
    let name = "a_suspended_container_stands_still_until_it_is_read_and_not_until_the_commit";
    if !can_run(name, &[]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    lab.wait_until_it_works();
    let log = Log::default();
    let inside = lab.again();
    let committing = lab.again();
    let process = lab.process();
    let done = back_up(
        &lab.request(Mode::Suspend),
        &log,
        move |root| {
            assert_eq!(root, inside.rootfs());
            assert_eq!(inside.state(), "FROZEN");
            assert_eq!(inside.journals(), 1);
            Ok(())
        },
        move || {
            assert_eq!(committing.state(), "RUNNING");
            committing.wait_until_it_works();
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(done.way, Way::Suspend);
    assert!(done.left.is_none() && !done.paused.is_zero());
    assert_eq!((lab.state().as_str(), lab.process()), ("RUNNING", process));
    assert_eq!(lab.journals(), 0);
}

#[test]
fn a_container_goes_on_after_a_backup_that_failed_or_panicked() {
    if !can_run(
        "a_container_goes_on_after_a_backup_that_failed_or_panicked",
        &[],
    ) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    let log = Log::default();
    for mode in [Mode::Suspend, Mode::Stop] {
        let failing = |_: &std::path::Path| Err(Error::new(ErrorKind::Source, "unreadable"));
        let error = back_up(&lab.request(mode), &log, failing, fine).unwrap_err();
        assert_eq!(error.chain(), "unreadable");
        lab.wait_until_it_works();
        let panicking = || panic!("as it should");
        let error = back_up(&lab.request(mode), &log, |_| Ok(()), panicking).unwrap_err();
        assert!(error.chain().contains("panicked"), "{}", error.chain());
        lab.wait_until_it_works();
        assert_eq!((lab.state().as_str(), lab.journals()), ("RUNNING", 0));
    }
}

#[test]
fn a_stopped_container_is_started_again_before_the_commit() {
    if !can_run(
        "a_stopped_container_is_started_again_before_the_commit",
        &[],
    ) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    let process = lab.process();
    let (inside, committing) = (lab.again(), lab.again());
    let done = back_up(
        &lab.request(Mode::Stop),
        &Log::default(),
        move |_| {
            assert_eq!(inside.state(), "STOPPED");
            Ok(())
        },
        move || {
            assert_eq!(committing.state(), "RUNNING");
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(done.way, Way::Stop);
    lab.wait_until_it_works();
    assert_ne!(lab.process(), process);
    assert_eq!(lab.journals(), 0);
}

#[test]
fn a_container_that_stops_too_late_is_started_again() {
    if !can_run("a_container_that_stops_too_late_is_started_again", &[]) {
        return;
    }
    let lab = Lab::new();
    lab.flag("deaf", true);
    lab.start();
    lab.wait_until_it_works();
    let process = lab.process();
    let mut request = lab.request(Mode::Stop);
    request.safety.timeouts.stop = Duration::from_secs(1);
    let log = Log::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            container::wait_until("it is watched", || log.text().contains("watched"));
            // Now it does what it was asked for, once.
            lab.flag("die", true);
        });
        let error = back_up(&request, &log, |_| panic!("read"), fine).unwrap_err();
        assert!(
            error.chain().contains("has not shut down"),
            "{}",
            error.chain()
        );
    });
    lab.wait_until_it_works();
    assert_eq!((lab.state().as_str(), lab.journals()), ("RUNNING", 0));
    assert_ne!(lab.process(), process);
}

#[test]
fn a_container_that_stops_while_lxc_still_calls_it_running_is_started_again() {
    let name = "a_container_that_stops_while_lxc_still_calls_it_running_is_started_again";
    if !can_run(name, &[]) {
        return;
    }
    let lab = Lab::new();
    lab.flag("deaf", true);
    lab.start();
    lab.wait_until_it_works();
    let process = lab.process();
    let mut request = lab.request(Mode::Stop);
    request.safety.timeouts.stop = Duration::from_secs(1);
    let log = Log::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            container::wait_until("it is watched", || log.text().contains("is watched"));
            lab.flag("hold-after-lxc-info", true);
            // LXC has said that it runs; who asked does not know it yet.
            container::wait_until("LXC is asked", || lab.has_flag("holding"));
            lab.flag("die", true);
            lab.wait_for("STOPPED");
            lab.flag("hold-after-lxc-info", false);
        });
        back_up(&request, &log, |_| panic!("read"), fine).unwrap_err();
    });
    assert_eq!((lab.state().as_str(), lab.journals()), ("RUNNING", 0));
    assert_ne!(lab.process(), process);
    lab.wait_until_it_works();
}

#[test]
fn a_container_that_does_not_stop_at_all_runs_on() {
    if !can_run("a_container_that_does_not_stop_at_all_runs_on", &[]) {
        return;
    }
    let lab = Lab::new();
    lab.flag("deaf", true);
    lab.start();
    lab.wait_until_it_works();
    let process = lab.process();
    let mut request = lab.request(Mode::Stop);
    request.safety.timeouts.stop = Duration::from_secs(1);
    request.safety.timeouts.watch = Duration::from_secs(1);
    let log = Log::default();
    back_up(&request, &log, |_| panic!("read"), fine).unwrap_err();
    assert!(log.text().contains("watched no longer"), "{}", log.text());
    assert_eq!((lab.state().as_str(), lab.process()), ("RUNNING", process));
    assert_eq!(lab.journals(), 0);
}

#[test]
fn a_container_that_was_asked_to_stop_is_watched_by_the_guard_if_the_user_does_not_wait() {
    let name =
        "a_container_that_was_asked_to_stop_is_watched_by_the_guard_if_the_user_does_not_wait";
    if !can_run(name, &[]) {
        return;
    }
    // While LXC waits for it, then while it is watched.
    for (stop, word) in [(1000, "asked to shut down"), (1, "is watched")] {
        // Each has its own: when all is taken back, its guard still holds the lock for a moment.
        let lab = Lab::new();
        lab.flag("deaf", true);
        lab.start();
        lab.wait_until_it_works();
        let mut request = lab.request(Mode::Stop);
        request.safety.timeouts.stop = Duration::from_secs(stop);
        let log = Log::default();
        let (cancel, process) = (Cancel::new(), lab.process());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                container::wait_until(word, || log.text().contains(word));
                cancel.cancel();
            });
            back_up_unless(&request, &log, &cancel, |_| panic!("read"), fine).unwrap_err();
        });
        assert_eq!((lab.state().as_str(), lab.journals()), ("RUNNING", 1));
        lab.flag("die", true);
        container::wait_until("it is started again", || {
            lab.journals() == 0 && lab.state() == "RUNNING"
        });
        assert_ne!(lab.process(), process);
        lab.wait_until_it_works();
    }
}

#[test]
fn nothing_is_changed_without_a_guard() {
    if !can_run("nothing_is_changed_without_a_guard", &[]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    for (program, words) in [
        ("/no/such", "No such file"),
        ("true", "it ended, or is another program"),
        ("yes", "it ended, or is another program"),
        ("cat", "it does not say that it is there"),
    ] {
        let mut request = lab.request(Mode::Suspend);
        request.safety.guard.program = program.into();
        request.safety.guard.arguments = Vec::new();
        if program == "cat" {
            request.safety.guard.arguments = vec!["-".into()];
            request.safety.timeouts.guard = Duration::from_millis(300);
        }
        let log = Log::default();
        let error = back_up(&request, &log, |_| panic!("read"), fine).unwrap_err();
        assert!(
            error.chain().contains(words),
            "{program}: {}",
            error.chain()
        );
        assert_eq!((lab.state().as_str(), lab.journals()), ("RUNNING", 0));
    }
}

/// The request, with a guard before whose start somebody runs one of LXC's programs.
fn after_somebody(lab: &Lab, mode: Mode, program: &str) -> ContainerRequest {
    let mut request = lab.request(mode);
    let script = lab.folder().join("guard");
    let text = format!(
        "#!/bin/sh\nlxc-{program} -P {} -n web >/dev/null 2>&1 </dev/null\nexec {} --exact the_guard --nocapture \"$@\"\n",
        lab.lxc().path.display(),
        request.safety.guard.program.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    request.safety.guard.program = script;
    request.safety.guard.arguments = Vec::new();
    request
}

#[test]
fn what_somebody_else_does_while_a_backup_makes_ready_is_not_taken_back() {
    let name = "what_somebody_else_does_while_a_backup_makes_ready_is_not_taken_back";
    if !can_run(name, &[]) {
        return;
    }
    let lab = Lab::new();
    for (mode, program, state) in [
        (Mode::Suspend, "freeze", "FROZEN"),
        (Mode::Stop, "freeze", "FROZEN"),
        (Mode::Suspend, "stop -k", "STOPPED"),
        (Mode::Stop, "stop -k", "STOPPED"),
    ] {
        lab.start_if_stopped();
        lab.run("lxc-unfreeze", &[]);
        let request = after_somebody(&lab, mode, program);
        let done = back_up(&request, &Log::default(), |_| Ok(()), fine);
        if (mode, state) == (Mode::Stop, "FROZEN") {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::Unavailable);
        } else {
            assert_eq!(done.unwrap().way, Way::AsIs);
        }
        assert_eq!(
            (lab.state().as_str(), lab.journals()),
            (state, 0),
            "{mode:?}"
        );
    }
}

/// A folder with room for so many files.
struct Small(std::path::PathBuf);

impl Small {
    fn new(folder: std::path::PathBuf, files: usize) -> Self {
        fs::create_dir(&folder).unwrap();
        let options = format!("size=1m,mode=700,nr_inodes={}", files + 1);
        container::run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &options,
                "tmpfs",
                folder.to_str().unwrap(),
            ],
        );
        Self(folder)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        container::run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

#[test]
fn what_could_not_be_written_down_is_neither_done_nor_taken_back() {
    let name = "what_could_not_be_written_down_is_neither_done_nor_taken_back";
    if !can_run(name, &["mount"]) {
        return;
    }
    let lab = Lab::new();
    // For the lock.
    let _full = Small::new(lab.folder().join("state"), 1);
    for (mode, program, state) in [
        (Mode::Stop, "stop -k", "STOPPED"),
        (Mode::Suspend, "freeze", "FROZEN"),
    ] {
        lab.start_if_stopped();
        let request = after_somebody(&lab, mode, program);
        let log = Log::default();
        let error = back_up(&request, &log, |_| panic!("read"), fine).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Target, "{}", error.chain());
        assert_eq!(
            (lab.state().as_str(), lab.journals()),
            (state, 0),
            "{}",
            log.text()
        );
    }
}

#[test]
fn what_the_mode_cannot_do_is_refused_and_changes_nothing() {
    if !can_run(
        "what_the_mode_cannot_do_is_refused_and_changes_nothing",
        &[],
    ) {
        return;
    }
    let lab = Lab::new();
    let log = Log::default();
    let refused = |mode, word: &str| {
        let error = back_up(&lab.request(mode), &log, |_| panic!("read"), fine).unwrap_err();
        assert!(error.chain().contains(word), "{}", error.chain());
    };
    lab.configure("lxc.ephemeral = 1\n");
    // It is destroyed at its end: not before the test is over.
    lab.start();
    refused(Mode::Stop, "ephemeral");
    refused(Mode::Snapshot, "no Btrfs snapshot");
    assert_eq!(lab.state(), "RUNNING");
    lab.run("lxc-freeze", &[]);
    refused(Mode::Stop, "somebody froze it");
    let done = back_up(&lab.request(Mode::Auto), &log, |_| Ok(()), fine).unwrap();
    assert_eq!(done.way, Way::AsIs);
    assert_eq!(lab.state(), "FROZEN");
}

#[test]
fn a_container_that_does_not_run_is_read_as_it_is_in_every_mode() {
    if !can_run(
        "a_container_that_does_not_run_is_read_as_it_is_in_every_mode",
        &[],
    ) {
        return;
    }
    let lab = Lab::new();
    for mode in [Mode::Auto, Mode::Snapshot, Mode::Suspend, Mode::Stop] {
        let log = Log::default();
        let done = back_up(&lab.request(mode), &log, |_| Ok(()), fine).unwrap();
        assert_eq!(done.way, Way::AsIs);
        assert_eq!((lab.state().as_str(), lab.journals()), ("STOPPED", 0));
    }
    let log = Log::default();
    let inside = lab.again();
    let start = move |_: &std::path::Path| {
        inside.start();
        Ok(())
    };
    back_up(&lab.request(Mode::Auto), &log, start, fine).unwrap();
    assert!(
        log.text().contains("was started while it was read"),
        "{}",
        log.text()
    );
    assert_eq!(lab.state(), "RUNNING");
}

#[test]
fn a_container_that_somebody_lets_go_on_while_it_is_read_is_told() {
    let name = "a_container_that_somebody_lets_go_on_while_it_is_read_is_told";
    if !can_run(name, &[]) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    lab.wait_until_it_works();
    for interfered in [false, true] {
        let log = Log::default();
        let inside = lab.again();
        let during = move |_: &std::path::Path| {
            if interfered {
                inside.run("lxc-unfreeze", &[]);
            }
            Ok(())
        };
        back_up(&lab.request(Mode::Suspend), &log, during, fine).unwrap();
        let told = log.text().contains("did not stand still");
        assert_eq!(told, interfered, "{}", log.text());
        lab.wait_until_it_works();
    }
}

#[test]
fn a_folder_is_read_as_it_is_and_what_is_mounted_in_a_container_is_named() {
    let name = "a_folder_is_read_as_it_is_and_what_is_mounted_in_a_container_is_named";
    if !can_run(name, &[]) {
        return;
    }
    let lab = Lab::new();
    lab.configure("lxc.mount.entry = /srv/data mnt/data none bind,create=dir 0 0\n");
    let log = Log::default();
    back_up(&lab.request(Mode::Auto), &log, |_| Ok(()), fine).unwrap();
    let words = "mounted from the machine: mnt/data (/srv/data)";
    assert!(log.text().contains(words), "{}", log.text());
    let mut request = lab.request(Mode::Auto);
    request.container = Container::Directory {
        rootfs: lab.rootfs(),
        idmap: Some("0:100000:65536".parse().unwrap()),
    };
    let done = back_up(&request, &log, |_| Ok(()), fine).unwrap();
    assert_eq!(done.way, Way::AsIs);
    for mode in [Mode::Suspend, Mode::Stop] {
        request.mode = mode;
        let error = back_up(&request, &log, |_| Ok(()), fine).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_second_backup_of_the_same_container_is_told_who_has_it() {
    if !can_run(
        "a_second_backup_of_the_same_container_is_told_who_has_it",
        &[],
    ) {
        return;
    }
    let lab = Lab::new();
    lab.start();
    let inside = lab.again();
    let second = move |_: &std::path::Path| {
        let request = inside.request(Mode::Suspend);
        let error = back_up(&request, &Log::default(), |_| panic!("read"), fine).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let holder = format!("process {}", std::process::id());
        assert!(error.chain().contains(&holder), "{}", error.chain());
        assert_eq!(inside.state(), "FROZEN");
        Ok(())
    };
    back_up(&lab.request(Mode::Suspend), &Log::default(), second, fine).unwrap();
    assert_eq!(lab.state(), "RUNNING");
}
