//! What becomes of a container while its files are read.

use std::path::PathBuf;

use snapkeep_api::{Error, ErrorKind, Level, Result, TaskLog};

use super::backup::{ContainerRequest, Subject};
use super::journal::Step;
use super::lines::shown_path;
use super::lxc::{Lxc, State};
use super::session::Session;
use super::snapshot::{Btrfs, Hook, Image, Snapshot, new_id};

/// What is wished.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// A snapshot if there is a hook for it or the file system can, else as [`Self::Suspend`].
    Auto,
    /// The files are read from a snapshot; the container goes on.
    Snapshot,
    /// The container is frozen while its files are read.
    Suspend,
    /// The container is shut down, and started again when its files are read.
    Stop,
}

/// What is done. A container that does not run is read as it is, whatever is wished.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Its files are read where they are: nobody is known to change them.
    AsIs,
    /// Its files are read from a snapshot.
    Snapshot,
    /// It is frozen.
    Suspend,
    /// It is shut down and started again.
    Stop,
}

impl Way {
    /// The word for it in results: those of the modes, and `as-is`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsIs => "as-is",
            Self::Snapshot => "snapshot",
            Self::Suspend => "suspend",
            Self::Stop => "stop",
        }
    }

    /// Whether the container stands still while its files are read.
    pub(super) fn stands_still(self) -> bool {
        matches!(self, Self::Suspend | Self::Stop)
    }

    /// What LXC calls a container that is kept still in this way.
    pub(super) fn keeps(self) -> Option<State> {
        match self {
            Self::Suspend => Some(State::Frozen),
            Self::Stop => Some(State::Stopped),
            Self::AsIs | Self::Snapshot => None,
        }
    }

    /// Whether something else may be done after this failed: nobody asked for a snapshot, and none can
    /// be made.
    pub(super) fn may_be_another(self, request: &ContainerRequest, failed: &Error) -> bool {
        self == Self::Snapshot
            && request.mode == Mode::Auto
            && request.snapshot_hook.is_none()
            && failed.kind() == ErrorKind::Unsupported
    }

    /// Decides what to do, and changes nothing.
    pub(super) fn choose(
        request: &ContainerRequest,
        subject: &Subject,
        session: &Session<'_>,
        log: &dyn TaskLog,
    ) -> Result<Self> {
        let refuse = |kind, why: &str| {
            let what = format!("container {} is not backed up: {why}", request.guest);
            Err(Error::new(kind, what))
        };
        if let Some(lxc) = &subject.lxc {
            match lxc.state(session.lock().stdin(), &request.safety.timeouts)? {
                State::Running => {}
                State::Stopped => {
                    log.log(
                        Level::Info,
                        "the container does not run: it is read as it is",
                    );
                    return Ok(Self::AsIs);
                }
                State::Frozen if request.mode == Mode::Stop => {
                    return refuse(
                        ErrorKind::Unavailable,
                        "somebody froze it, so it cannot stop",
                    );
                }
                State::Frozen if request.mode == Mode::Snapshot => {}
                State::Frozen => {
                    let line =
                        "somebody froze the container: it is read as it is, and stays frozen";
                    log.log(Level::Warn, line);
                    return Ok(Self::AsIs);
                }
                State::Changing(to) => {
                    let why = format!("LXC calls it {to}; try again when it runs or is stopped");
                    return refuse(ErrorKind::Unavailable, &why);
                }
            }
        } else if matches!(request.mode, Mode::Suspend | Mode::Stop) {
            return refuse(
                ErrorKind::Invalid,
                "only LXC's containers can be suspended or stopped, not a folder",
            );
        }
        match request.mode {
            Mode::Stop if subject.ephemeral => refuse(
                ErrorKind::Invalid,
                "it is ephemeral (lxc.ephemeral = 1): LXC would destroy it when it stops",
            ),
            Mode::Stop => Ok(Self::Stop),
            Mode::Suspend => Ok(Self::Suspend),
            Mode::Snapshot => {
                snapshot(request, subject, session)?;
                Ok(Self::Snapshot)
            }
            Mode::Auto => match snapshot(request, subject, session) {
                Ok(_) => Ok(Self::Snapshot),
                Err(e) if e.kind() != ErrorKind::Unsupported => Err(e),
                Err(e) => {
                    let (way, what) = if subject.lxc.is_some() {
                        (Self::Suspend, "the container is frozen while it is read")
                    } else {
                        (Self::AsIs, "the folder is read as it is")
                    };
                    log.log(Level::Info, &format!("{what}: {}", e.chain()));
                    Ok(way)
                }
            },
        }
    }

    /// Makes the container ready; what was done, for it may have stopped meanwhile, and where its
    /// root file system is to be read. What is changed is recorded before.
    pub(super) fn begin(
        self,
        request: &ContainerRequest,
        subject: &Subject,
        session: &mut Session<'_>,
        log: &dyn TaskLog,
    ) -> Result<(Self, PathBuf)> {
        let times = &request.safety.timeouts;
        let rootfs = subject.rootfs.clone();
        match (self, &subject.lxc) {
            (Self::Snapshot, _) => {
                let snapshot = snapshot(request, subject, session)?;
                session.record(Step::Snapshot(snapshot.clone()))?;
                let root = snapshot.make(session.lock(), times, log, session.cancel())?;
                let line = format!("the files are read from a snapshot: {}", shown_path(&root));
                log.log(Level::Info, &line);
                return Ok((self, root));
            }
            (Self::Suspend, Some(lxc)) => {
                let life = lxc.life(session.lock().stdin(), times);
                session.record(Step::Freeze {
                    lxc: lxc.clone(),
                    life,
                })?;
                if !self.still_can(lxc, request, session, log)? {
                    return Ok((Self::AsIs, rootfs));
                }
                lxc.freeze(session.lock().stdin(), times)?;
                expect(lxc, &State::Frozen, session, request)?;
                log.log(
                    Level::Info,
                    "the container is frozen until its files are read",
                );
            }
            (Self::Stop, Some(lxc)) => {
                let life = lxc.life(session.lock().stdin(), times);
                session.record(Step::Stop {
                    lxc: lxc.clone(),
                    life,
                })?;
                if !self.still_can(lxc, request, session, log)? {
                    return Ok((Self::AsIs, rootfs));
                }
                log.log(Level::Info, "the container is asked to shut down");
                lxc.stop(session.lock().stdin(), times, session.cancel())?;
                expect(lxc, &State::Stopped, session, request)?;
                log.log(
                    Level::Info,
                    "the container is stopped until its files are read",
                );
            }
            (Self::AsIs | Self::Suspend | Self::Stop, _) => {}
        }
        Ok((self, rootfs))
    }

    /// Whether the container still runs, now that its change is recorded: it took a while to start
    /// the guard and to write the journal, and what somebody else did meanwhile is not to be taken back.
    /// If not, the record is crossed off.
    fn still_can(
        self,
        lxc: &Lxc,
        request: &ContainerRequest,
        session: &mut Session<'_>,
        log: &dyn TaskLog,
    ) -> Result<bool> {
        let state = lxc.state(session.lock().stdin(), &request.safety.timeouts);
        let line = match &state {
            Ok(State::Running) => return Ok(true),
            Ok(State::Stopped) => "the container was stopped meanwhile: it is read as it is",
            Ok(State::Frozen) => {
                "somebody froze the container meanwhile: it is read as it is, and stays frozen"
            }
            Ok(State::Changing(_)) | Err(_) => "",
        };
        session.forget()?;
        let state = state?;
        if line.is_empty() || (self, &state) == (Self::Stop, &State::Frozen) {
            let what = format!(
                "container {} is not backed up: it ran, and now is {state:?}; try again when it runs",
                lxc.name
            );
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        log.log(Level::Warn, line);
        Ok(false)
    }
}

fn expect(
    lxc: &Lxc,
    expected: &State,
    session: &Session<'_>,
    request: &ContainerRequest,
) -> Result<()> {
    let state = lxc.state(session.lock().stdin(), &request.safety.timeouts)?;
    if state == *expected {
        return Ok(());
    }
    let what = format!(
        "container {} should be {expected:?}, and is {state:?}",
        lxc.name
    );
    Err(Error::new(ErrorKind::Unavailable, what))
}

/// The snapshot that can be made, by the hook if there is one.
fn snapshot(
    request: &ContainerRequest,
    subject: &Subject,
    session: &Session<'_>,
) -> Result<Snapshot> {
    let id = new_id()
        .map_err(|e| Error::with_source(ErrorKind::Unavailable, "cannot name the snapshot", e))?;
    if let Some(program) = &request.snapshot_hook {
        let hook = Hook::new(program, request.guest.as_str(), &subject.rootfs, id)?;
        return Ok(Snapshot::Hook(hook));
    }
    let times = &request.safety.timeouts;
    let rootfs = &subject.rootfs;
    let no_btrfs = match Btrfs::new(rootfs, &id, session.lock().stdin(), times) {
        Ok(btrfs) => return Ok(Snapshot::Btrfs(btrfs)),
        Err(e) if e.kind() != ErrorKind::Unsupported => return Err(e),
        Err(e) => e,
    };
    match Image::new(rootfs, &id, session.folder(), session.lock().stdin(), times) {
        Ok(image) => Ok(Snapshot::Image(image)),
        Err(e) => {
            let what = format!("{}; {}", no_btrfs.chain(), e.chain());
            Err(Error::new(e.kind(), what))
        }
    }
}
