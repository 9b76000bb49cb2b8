//! Freezing a file system, and thawing it whatever happens.
//!
//! While it is frozen nothing of ours may write to it, so nothing is logged or recorded meanwhile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use snapkeep_api::{Error, ErrorKind, Result};

use crate::container::command::{Ended, run};
use crate::container::limits::Timeouts;
use crate::container::lines::shown_path;
use crate::container::lock::Lock;

/// The pause before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// A file system that is frozen until it is dropped.
#[derive(Debug)]
pub(super) struct Frozen<'a> {
    root: PathBuf,
    lock: &'a Lock,
    times: &'a Timeouts,
    from: Instant,
    is_over: bool,
}

/// Why it is not frozen.
#[derive(Debug)]
pub(super) enum NotFrozen {
    /// We did not freeze it; somebody else may have.
    Certainly(Error),
    /// We may have, and tried to thaw it.
    Perhaps(Error),
}

/// Freezes the file system of a folder.
pub(super) fn freeze<'a>(
    root: &Path,
    lock: &'a Lock,
    times: &'a Timeouts,
) -> Result<Frozen<'a>, NotFrozen> {
    let mut frozen = Frozen {
        root: root.to_owned(),
        lock,
        times,
        from: Instant::now(),
        is_over: false,
    };
    let ended = fsfreeze("--freeze", root, lock, times).map_err(NotFrozen::Perhaps)?;
    if ended.status.success() {
        return Ok(frozen);
    }
    let why = ended.why();
    let hint = if why.contains("busy") {
        "; somebody else has frozen it: try again when it goes on"
    } else {
        ""
    };
    let root = shown_path(root);
    let what = format!("cannot freeze the file system of {root}: {why}{hint}");
    let error = Error::new(ErrorKind::Unavailable, what);
    // Who was killed may have frozen it before.
    if ended.status.code().is_none() {
        return Err(NotFrozen::Perhaps(error));
    }
    frozen.is_over = true;
    Err(NotFrozen::Certainly(error))
}

/// Lets the file system of a folder go on; whether it was frozen.
pub(super) fn thaw(root: &Path, lock: &Lock, times: &Timeouts) -> Result<bool> {
    let deadline = Instant::now() + times.program;
    loop {
        let why = match fsfreeze("--unfreeze", root, lock, times) {
            Ok(ended) if ended.status.success() => return Ok(true),
            Ok(ended) if ended.why().contains("Invalid argument") => return Ok(false),
            Ok(ended) => ended.why(),
            Err(e) => e.chain(),
        };
        if Instant::now() >= deadline {
            let root = shown_path(root);
            let what = format!(
                "the file system of {root} may be frozen, which `fsfreeze --unfreeze {root}` ends: {why}"
            );
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        sleep(PAUSE);
    }
}

fn fsfreeze(what: &str, root: &Path, lock: &Lock, times: &Timeouts) -> Result<Ended> {
    let mut command = Command::new("fsfreeze");
    // Its words are looked at.
    command.env("LC_ALL", "C").arg(what).arg(root);
    run(&mut command, lock.stdin(), times.program)
}

impl Frozen<'_> {
    /// Lets it go on; how long it stood still at most. Fails if somebody else let it go on before:
    /// then what was done meanwhile is of no instant.
    pub(super) fn thaw(mut self) -> Result<Duration> {
        // If it fails, the end of this tries again.
        let was_frozen = thaw(&self.root, self.lock, self.times)?;
        self.is_over = true;
        if was_frozen {
            return Ok(self.from.elapsed());
        }
        let root = shown_path(&self.root);
        let what = format!(
            "no snapshot: somebody else thawed the file system of {root} before it was cloned; try again"
        );
        Err(Error::new(ErrorKind::Unavailable, what))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // If it fails, the clone still has its first name, and what takes back tries again.
            thaw(&self.root, self.lock, self.times).ok();
        }
    }
}
