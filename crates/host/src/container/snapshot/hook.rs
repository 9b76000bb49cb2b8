//! A snapshot by a program of the user's: for ZFS, LVM and whatever else makes snapshots.
//!
//! It is called `PROGRAM create` and `PROGRAM delete`, and prints where the root file system of the
//! snapshot is on the last line of `create`. docs/CONTAINERS.md has the details and examples.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use crate::container::command::{Ended, run_unless};
use crate::container::limits::Timeouts;
use crate::container::lines::{shown, shown_path};

/// So many bytes are shown of what should be a path.
const SHOWN_MAX: usize = 256;

/// A snapshot of one container by a hook.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::container) struct Hook {
    program: PathBuf,
    guest: String,
    rootfs: PathBuf,
    id: String,
}

impl Hook {
    pub(in crate::container) fn new(
        program: &Path,
        guest: &str,
        rootfs: &Path,
        id: String,
    ) -> Result<Self> {
        if program.is_relative() || program.to_str().is_none() || rootfs.to_str().is_none() {
            let what = format!(
                "the snapshot hook {}: its path, and that of the root file system {}, must be absolute and UTF-8",
                shown_path(program),
                shown_path(rootfs)
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let about = std::fs::metadata(program).map_err(|e| {
            let what = format!("the snapshot hook {}", shown_path(program));
            Error::with_source(ErrorKind::Invalid, what, e)
        })?;
        if !about.is_file() || about.mode() & 0o111 == 0 {
            let what = format!("the snapshot hook {} is no program", shown_path(program));
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Self {
            program: program.to_owned(),
            guest: guest.to_owned(),
            rootfs: rootfs.to_owned(),
            id,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn make(&self, stdin: Stdio, times: &Timeouts, cancel: &Cancel) -> Result<PathBuf> {
        let ended = self.run("create", stdin, times, cancel)?;
        let last = (ended.output.split(|byte| *byte == b'\n'))
            .map(<[u8]>::trim_ascii)
            .rfind(|line| !line.is_empty());
        let Some(last) = last else {
            return Err(self.wrong("it printed no folder of the snapshot"));
        };
        self.checked(Path::new(OsStr::from_bytes(last)))
            .map_err(|why| {
                let last = shown(&last[..last.len().min(SHOWN_MAX)]);
                self.wrong(&format!(
                    "it printed {last:?} as the snapshot's folder, {why}"
                ))
            })
    }

    pub(super) fn delete(&self, stdin: Stdio, times: &Timeouts) -> Result<()> {
        // Whoever asks for the end asks for this.
        self.run("delete", stdin, times, &Cancel::new()).map(drop)
    }

    fn run(&self, verb: &str, stdin: Stdio, times: &Timeouts, cancel: &Cancel) -> Result<Ended> {
        let mut command = Command::new(&self.program);
        command
            .arg(verb)
            .current_dir("/")
            .env("SNAPKEEP_GUEST", &self.guest)
            .env("SNAPKEEP_ROOTFS", &self.rootfs)
            .env("SNAPKEEP_SNAPSHOT_ID", &self.id);
        let doing = || format!("the snapshot hook did not {verb} snapshot {}", self.id);
        let ended = run_unless(&mut command, stdin, times.hook, cancel)
            .map_err(|e| Error::with_source(e.kind(), doing(), e))?;
        if ended.status.success() {
            return Ok(ended);
        }
        let what = format!("{}: {}", doing(), ended.why());
        Err(Error::new(ErrorKind::Unavailable, what))
    }

    /// The root of a snapshot looks like the root that is running, and is another folder.
    fn checked(&self, path: &Path) -> Result<PathBuf, String> {
        if path.is_relative() || path.as_os_str().as_bytes().iter().any(u8::is_ascii_control) {
            return Err("which is no absolute path".into());
        }
        let path = super::real(path).map_err(|e| format!("which is not there: {e}"))?;
        let there = |path: &Path| {
            let about = std::fs::metadata(path);
            about.map_err(|e| format!("but {}: {e}", shown_path(path)))
        };
        let (copy, live) = (there(&path)?, there(&self.rootfs)?);
        let rootfs = super::real(&self.rootfs).map_err(|e| format!("but the root itself: {e}"))?;
        if !copy.is_dir() {
            return Err("which is no folder".into());
        }
        if (copy.dev(), copy.ino()) == (live.dev(), live.ino())
            || path.starts_with(&rootfs)
            || rootfs.starts_with(&path)
        {
            return Err("which is the running container's, or in it, or around it".into());
        }
        let is_empty = |path: &Path| {
            let mut entries = std::fs::read_dir(path)
                .map_err(|e| format!("but {} cannot be read: {e}", shown_path(path)))?;
            Ok::<_, String>(entries.next().is_none())
        };
        if is_empty(&path)? && !is_empty(&rootfs)? {
            return Err("which is empty, as the root file system is not".into());
        }
        if (copy.uid(), copy.gid(), copy.mode()) != (live.uid(), live.gid(), live.mode()) {
            return Err(format!(
                "whose owner and mode are not those of the root file system {}",
                shown_path(&rootfs)
            ));
        }
        Ok(path)
    }

    fn wrong(&self, why: &str) -> Error {
        let program = shown_path(&self.program);
        let what = format!("the snapshot hook {program} cannot be used: {why}");
        Error::new(ErrorKind::Invalid, what)
    }
}
