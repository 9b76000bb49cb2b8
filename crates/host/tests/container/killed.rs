//! A backup in a process of its own, which is this test again, that stands still where it is to be
//! killed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use snapkeep_host::container::Mode;

use super::{Lab, Log, back_up, wait_until};

/// Where a backup stands still: `hold-before-PROGRAM`, `hold-after-PROGRAM`, `hold-pass`,
/// `hold-commit`.
#[derive(Debug)]
pub(crate) struct Phase {
    backup: Child,
    hold: String,
}

impl Phase {
    /// Starts a backup, and waits until it stands still there.
    #[track_caller]
    pub(crate) fn reach(lab: &Lab, mode: &str, hold: &str) -> Self {
        Self::reach_telling(lab, mode, hold, Stdio::inherit())
    }

    /// The same, with another standard error.
    #[track_caller]
    pub(crate) fn reach_telling(lab: &Lab, mode: &str, hold: &str, stderr: Stdio) -> Self {
        lab.flag("holding", false);
        lab.flag(hold, true);
        let path = std::env::var("PATH").unwrap();
        let backup = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_backup", "--nocapture"])
            .arg(lab.folder())
            .arg(mode)
            .env(
                "PATH",
                format!("{}:{path}", lab.folder().join("bin").display()),
            )
            .env("SNAPKEEP_PASSPHRASE", "secret")
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        wait_until(hold, || lab.has_flag("holding"));
        let hold = hold.to_owned();
        Self { backup, hold }
    }

    /// Kills the backup, then lets go on what was held.
    pub(crate) fn kill(self, lab: &Lab) {
        let hold = self.hold.clone();
        self.kill_only();
        lab.flag(&hold, false);
    }

    /// Kills the backup, and not what it is waiting for.
    pub(crate) fn kill_only(mut self) {
        self.backup.kill().unwrap();
        self.backup.wait().unwrap();
    }

    /// Lets the backup go on to its bad end.
    pub(crate) fn fail(mut self, lab: &Lab) {
        lab.flag(&self.hold, false);
        assert!(!self.backup.wait().unwrap().success());
    }

    /// Lets the backup go on to its good end.
    pub(crate) fn go_on(mut self, lab: &Lab) {
        lab.flag(&self.hold, false);
        assert!(self.backup.wait().unwrap().success());
    }
}

/// Sends the guard a signal; the backup does not notice.
pub(crate) fn signal_guard(lab: &Lab, signal: Signal) {
    kill_process(guard(lab), signal).unwrap();
}

/// The process of the guard.
#[track_caller]
pub(crate) fn guard(lab: &Lab) -> Pid {
    find_guard(lab).unwrap_or_else(|| panic!("there is no guard"))
}

/// Waits until no guard is at work: for a moment after all is taken back it still has the lock.
#[track_caller]
pub(crate) fn wait_for_no_guard(lab: &Lab) {
    wait_until("the guard has ended", || find_guard(lab).is_none());
}

fn find_guard(lab: &Lab) -> Option<Pid> {
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let folder = lab.folder().to_str().unwrap();
        if line.contains("\0the_guard\0") && line.contains(folder) {
            let id = path.file_name().unwrap().to_str().unwrap();
            return Pid::from_raw(id.parse().unwrap());
        }
    }
    None
}

/// What the test `the_backup` does if this process is one.
pub(crate) fn be_backup_if_asked() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, _, name, _, folder, mode] = arguments.as_slice() else {
        return;
    };
    if name != "the_backup" {
        return;
    }
    let mode = match mode.as_str() {
        "suspend" => Mode::Suspend,
        "stop" => Mode::Stop,
        "auto" => Mode::Auto,
        _ => Mode::Snapshot,
    };
    let (reading, committing) = (folder.clone(), folder.clone());
    let lab = Lab::at(Path::new(folder));
    back_up(
        &lab.request(mode),
        &Log::default(),
        move |_| {
            hold(&reading, "hold-pass");
            Ok(())
        },
        move || {
            hold(&committing, "hold-commit");
            Ok(())
        },
    )
    .unwrap();
}

fn hold(folder: &str, name: &str) {
    let folder = Path::new(folder);
    if folder.join(name).exists() {
        fs::write(folder.join("holding"), "").unwrap();
        while folder.join(name).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
