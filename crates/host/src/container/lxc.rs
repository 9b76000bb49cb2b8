//! A container of LXC, by LXC's own programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use super::command::{Ended, run, run_unless};
use super::life::Life;
use super::limits::Timeouts;
use super::lines::{shown, shown_path};

/// How much longer than LXC itself a program of LXC may take that was given a time.
const GRACE: Duration = Duration::from_secs(10);

/// A container of LXC.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Lxc {
    /// The folder of containers (`lxc-start -P`), usually `/var/lib/lxc`.
    pub path: PathBuf,
    /// Its name there.
    pub name: String,
    /// The folder of LXC's programs; `None` is where the system finds programs.
    pub programs: Option<PathBuf>,
}

/// What a container does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    Stopped,
    Running,
    Frozen,
    /// LXC's word for something on the way.
    Changing(String),
}

impl Lxc {
    /// A container. `Invalid` if the name or the folder cannot be one, or cannot be written down
    /// for a later recovery.
    pub fn new(path: &Path, name: &str, programs: Option<&Path>) -> Result<Self> {
        check_name(name)?;
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|e| {
                let what = format!("the folder {}", shown_path(path));
                Error::with_source(ErrorKind::Invalid, what, e)
            })
        };
        let path = absolute(path)?;
        let programs = programs.map(absolute).transpose()?;
        for path in [Some(&path), programs.as_ref()].into_iter().flatten() {
            if path.to_str().is_none() {
                let what = format!("{}: the path is not UTF-8", shown_path(path));
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        }
        Ok(Self {
            path,
            name: name.to_owned(),
            programs,
        })
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.path.join(&self.name)
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.folder().join("config")
    }

    pub(super) fn state(&self, stdin: Stdio, times: &Timeouts) -> Result<State> {
        let ended = self.run("lxc-info", &["-s", "-H"], stdin, times.program)?;
        let said = self.good("ask LXC about", ended)?;
        Ok(match String::from_utf8_lossy(&said).trim() {
            "STOPPED" => State::Stopped,
            "RUNNING" | "THAWED" => State::Running,
            "FROZEN" => State::Frozen,
            other => State::Changing(shown(other.as_bytes())),
        })
    }

    /// The container's first process; `None` if it is not known.
    pub(super) fn life(&self, stdin: Stdio, times: &Timeouts) -> Option<Life> {
        let ended = self.run("lxc-info", &["-p", "-H"], stdin, times.program);
        let said = ended
            .and_then(|ended| self.good("ask LXC about", ended))
            .ok()?;
        let id = String::from_utf8_lossy(&said).trim().parse().ok()?;
        Life::of(id)
    }

    pub(super) fn freeze(&self, stdin: Stdio, times: &Timeouts) -> Result<()> {
        let ended = self.run("lxc-freeze", &[], stdin, times.program)?;
        self.good("freeze", ended).map(drop)
    }

    pub(super) fn unfreeze(&self, stdin: Stdio, times: &Timeouts) -> Result<()> {
        let ended = self.run("lxc-unfreeze", &[], stdin, times.program)?;
        self.good("let go on", ended).map(drop)
    }

    /// Asks the container to shut down, and waits until it has. It is never killed.
    pub(super) fn stop(&self, stdin: Stdio, times: &Timeouts, cancel: &Cancel) -> Result<()> {
        let seconds = times.stop.as_secs().max(1).to_string();
        let arguments = ["--nokill", "-t", &seconds];
        let mut command = self.command("lxc-stop", &arguments);
        let ended = run_unless(&mut command, stdin, times.stop + GRACE, cancel)?;
        if ended.status.success() {
            return Ok(());
        }
        let (name, why) = (shown(self.name.as_bytes()), ended.why());
        let what = format!(
            "container {name} has not shut down in {seconds} seconds ({why}); it is not killed"
        );
        Err(Error::new(ErrorKind::Unavailable, what))
    }

    pub(super) fn start(&self, stdin: Stdio, times: &Timeouts) -> Result<()> {
        let ended = self.run("lxc-start", &["-d"], stdin, times.start)?;
        self.good("start", ended).map(drop)
    }

    fn run(
        &self,
        program: &str,
        arguments: &[&str],
        stdin: Stdio,
        limit: Duration,
    ) -> Result<Ended> {
        run(&mut self.command(program, arguments), stdin, limit)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = match &self.programs {
            Some(folder) => folder.join(program).into_os_string(),
            None => OsString::from(program),
        };
        let mut command = Command::new(program);
        (command.arg("-P").arg(&self.path))
            .args(["-n", &self.name])
            .args(arguments)
            .env("LC_ALL", "C");
        command
    }

    /// What a program printed, if it succeeded.
    fn good(&self, doing: &str, ended: Ended) -> Result<Vec<u8>> {
        if ended.status.success() {
            return Ok(ended.output);
        }
        let kind = if self.config().exists() {
            ErrorKind::Unavailable
        } else {
            ErrorKind::NotFound
        };
        let name = shown(self.name.as_bytes());
        let folder = shown_path(&self.path);
        let why = ended.why();
        let what = format!("cannot {doing} container {name} of {folder}: {why}");
        Err(Error::new(kind, what))
    }
}

/// Names of folders that are no options of programs.
pub(super) fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != '/';
    let usable = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['-', '.'])
        && name.chars().all(plain);
    if usable {
        return Ok(());
    }
    let name = shown(name.as_bytes());
    let what = format!("{name:?} cannot be the name of a container");
    Err(Error::new(ErrorKind::Invalid, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_folder_or_an_option_are_refused() {
        let long = "n".repeat(201);
        for bad in ["", ".", "..", "a/b", "-n", "a b", "a\n", &long] {
            assert!(Lxc::new(Path::new("/var/lib/lxc"), bad, None).is_err());
        }
        let lxc = Lxc::new(Path::new("/var/lib/lxc"), "web-1", None).unwrap();
        assert_eq!(lxc.config(), Path::new("/var/lib/lxc/web-1/config"));
    }
}
