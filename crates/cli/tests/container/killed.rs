//! Backups that do not come to their end: no archive, and the container works on.

use std::fs;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::Lab;
use crate::support::{sh, wait_until};

/// So slow that no backup comes to its end, which would take more than a minute: the container runs while
/// its files are read ahead. Not slower: what a dead walker had sent before is read at this speed.
const SLOW: &[&str] = &["--mode", "suspend", "--bandwidth-limit", "64KiB"];

/// A backup that reads, and is killed when dropped.
struct Reading(Child);

impl Reading {
    #[track_caller]
    fn new(lab: &Lab) -> Self {
        let child = lab.backup(SLOW).stderr(Stdio::null()).spawn().unwrap();
        let mut reading = Self(child);
        wait_until("its walker", || {
            assert!(reading.0.try_wait().unwrap().is_none(), "it ended");
            reading.walker().is_some()
        });
        reading
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// The process that walks the tree.
    fn walker(&self) -> Option<Pid> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).ok()?;
        // Whichever thread started it.
        let children = tasks.flatten().map(|task| {
            let children = fs::read_to_string(task.path().join("children"));
            children.unwrap_or_default()
        });
        let children = children.collect::<Vec<_>>().join(" ");
        let walks = |child: &&str| {
            let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.ends_with(b"\0walk\0")
        };
        let walker = children.split_whitespace().find(walks)?;
        Pid::from_raw(walker.parse().ok()?)
    }

    fn code(mut self) -> Option<i32> {
        let mut status = None;
        wait_until("its end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Nothing is left of it, and the next backup is good.
#[track_caller]
fn nothing_is_left(lab: &Lab) {
    lab.wait_until_it_works();
    wait_until("no journal", || lab.journals() == 0);
    assert_eq!(lab.archives(), [""; 0]);
    assert_eq!(lab.backed_up(&["--mode", "suspend"])["left_out"], 0);
}

#[test]
fn a_killed_backup_leaves_a_container_that_works() {
    let Some(lab) = Lab::new("a_killed_backup_leaves_a_container_that_works", &[], ":") else {
        return;
    };
    let reading = Reading::new(&lab);
    kill_process(reading.pid(), Signal::KILL).unwrap();
    assert_eq!(reading.code(), None);
    nothing_is_left(&lab);
}

/// The guard of a backup in this lab.
fn guard(lab: &Lab) -> Option<Pid> {
    let folder = lab.folder().to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let guards = processes.filter(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("\0guard\0") && line.contains(folder)
    });
    let mut ids = guards.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.find_map(Pid::from_raw)
}

/// The process of a program that a backup runs to freeze the container, and that hangs when that is done.
#[track_caller]
fn hangs_once_it_is_frozen(lab: &Lab) -> Pid {
    let number = || {
        fs::read_to_string(lab.path("hangs"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    wait_until("it is frozen", || number().is_some());
    Pid::from_raw(number().unwrap()).unwrap()
}

#[test]
fn doctor_wakes_a_container_whose_backup_and_guard_were_killed() {
    let test = "doctor_wakes_a_container_whose_backup_and_guard_were_killed";
    let Some(lab) = Lab::new(test, &["lxc-freeze"], ":") else {
        return;
    };
    let real = sh(lab.folder(), "command -v lxc-freeze");
    let folder = lab.folder().display();
    let hang = format!(
        "#!/bin/sh\n{} \"$@\"\necho $$ > {folder}/hangs\nexec sleep 1000\n",
        real.trim()
    );
    fs::write(lab.path("bin/lxc-freeze"), hang).unwrap();
    sh(lab.folder(), "chmod 755 bin/lxc-freeze");
    let child = lab
        .backup(&["--mode", "suspend"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let backup = Reading(child);
    let program = hangs_once_it_is_frozen(&lab);
    let doctor = |more: &[&str]| {
        let look = ["doctor", "--json", "--fleecing", ".", "--mounts", "."];
        let mut command = lab.program(&[&look[..], &["--run-folder", "run"], more].concat());
        let done = command.output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let found = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut found = found.filter(|found: &Value| found["finding"] == "container");
        found.next().unwrap()
    };
    let found = doctor(&["--heal"]);
    assert_eq!(found["state"], "in use", "{found}");
    kill_process(guard(&lab).unwrap(), Signal::KILL).unwrap();
    kill_process(backup.pid(), Signal::KILL).unwrap();
    assert_eq!(backup.code(), None);
    kill_process(program, Signal::KILL).unwrap();
    assert_eq!(lab.state(), "FROZEN");
    wait_until("it is healed", || doctor(&["--heal"])["healed"] == true);
    fs::remove_file(lab.path("bin/lxc-freeze")).unwrap();
    nothing_is_left(&lab);
}

#[test]
fn a_signal_cancels_a_backup() {
    let Some(lab) = Lab::new("a_signal_cancels_a_backup", &[], ":") else {
        return;
    };
    let reading = Reading::new(&lab);
    kill_process(reading.pid(), Signal::TERM).unwrap();
    assert_eq!(reading.code(), Some(4));
    nothing_is_left(&lab);
}

#[test]
fn a_killed_walker_fails_the_backup() {
    let Some(lab) = Lab::new("a_killed_walker_fails_the_backup", &[], ":") else {
        return;
    };
    let reading = Reading::new(&lab);
    kill_process(reading.walker().unwrap(), Signal::KILL).unwrap();
    assert_eq!(reading.code(), Some(1));
    nothing_is_left(&lab);
}

#[test]
fn a_full_repository_fails_the_backup() {
    let prepare = "mkdir repo; mount -t tmpfs -o size=3M,mode=700 snapkeep-test repo";
    let Some(lab) = Lab::new("a_full_repository_fails_the_backup", &["mount"], prepare) else {
        return;
    };
    let done = lab.backup(&["--mode", "suspend"]).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("space"), "{said}");
    sh(lab.folder(), "mount -o remount,size=100M repo");
    nothing_is_left(&lab);
}
