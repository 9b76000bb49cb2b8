//! The backup of a container, by any provider.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use snapkeep_api::tree::TreeSource;
use snapkeep_api::{
    ArchiveName, BackupJob, BackupStats, Cancel, ContainerBackup, ContainerSource, Error,
    ErrorKind, GuestId, IdMap, Level, Outcome, Result, TaskLog, UnixTime,
};

use super::config::LxcConfig;
use super::lines::shown_path;
use super::lxc::{Lxc, State};
use super::mode::{Mode, Way};
use super::pass::Pass;
use super::session::{Safety, Session};
use crate::backup::caught;

/// Mounts that are left out, of which the names are told.
const MOUNTS_TOLD_MAX: usize = 32;
const ROOTFS: &str = "the root file system";

/// Where the container is.
#[derive(Clone, Debug)]
pub enum Container {
    /// One of LXC.
    Lxc(Lxc),
    /// A folder, of which nothing else is known.
    Directory {
        /// The root file system.
        rootfs: PathBuf,
        /// Whose its files are; `None` is a container whose root is the machine's.
        idmap: Option<IdMap>,
    },
}

/// What to back up, and how.
#[derive(Clone, Debug)]
pub struct ContainerRequest {
    /// The guest, as the provider knows it.
    pub guest: GuestId,
    /// Where it is.
    pub container: Container,
    /// What becomes of it while it is read.
    pub mode: Mode,
    /// An absolute path of a program that makes snapshots: see docs/CONTAINERS.md.
    pub snapshot_hook: Option<PathBuf>,
    /// Kept byte for byte with the archive; `None` is LXC's file, and none of a folder.
    pub guest_config: Option<Vec<u8>>,
    /// Kept byte for byte with the archive.
    pub firewall_config: Option<Vec<u8>>,
    /// Bytes per second; `None` is no limit.
    pub bandwidth_limit: Option<NonZeroU64>,
    /// Who takes back what the backup changes if it is killed.
    pub safety: Safety,
}

/// A backup that has its archive.
#[derive(Debug)]
pub struct FinishedContainer {
    /// The archive, which is committed.
    pub archive: ArchiveName,
    /// As the provider counted.
    pub stats: BackupStats,
    /// What became of the container while it was read.
    pub way: Way,
    /// How long it stood still or was stopped.
    pub paused: Duration,
    /// Why something of the backup is still there; the guard, or the next backup, takes it back.
    pub left: Option<Error>,
}

/// Makes the source of a tree, which is at this folder; its owners are those of the map, or, without
/// one, the machine's.
pub type MakeSource<'a> = dyn FnMut(&Path, Option<&IdMap>) -> Result<Box<dyn TreeSource>> + 'a;

/// What of a container is backed up.
pub(super) struct Subject {
    pub(super) lxc: Option<Lxc>,
    pub(super) rootfs: PathBuf,
    idmap: Option<IdMap>,
    guest_config: Vec<u8>,
    pub(super) ephemeral: bool,
}

/// Backs up the files of a container.
///
/// First takes back what a killed backup of it left. Whatever happens, the container does in the end
/// what it did before; it stands still only until its files are read, not until the archive is
/// committed. An error leaves no archive.
pub fn back_up_container(
    job: &mut dyn BackupJob,
    request: &ContainerRequest,
    start_time: UnixTime,
    make_source: &mut MakeSource<'_>,
    log: &dyn TaskLog,
    cancel: &Cancel,
) -> Result<FinishedContainer> {
    let (label, place) = match &request.container {
        Container::Lxc(lxc) => (lxc.name.clone(), real("the container", &lxc.folder())?),
        Container::Directory { rootfs, .. } => (request.guest.to_string(), real(ROOTFS, rootfs)?),
    };
    let mut session = Session::begin(&request.safety, &label, &place, log, cancel)?;
    let done = under_lock(
        &mut session,
        job,
        request,
        start_time,
        make_source,
        log,
        cancel,
    );
    session.end();
    done
}

fn under_lock(
    session: &mut Session<'_>,
    job: &mut dyn BackupJob,
    request: &ContainerRequest,
    start_time: UnixTime,
    make_source: &mut MakeSource<'_>,
    log: &dyn TaskLog,
    cancel: &Cancel,
) -> Result<FinishedContainer> {
    let subject = Subject::learn(request, log)?;
    let way = Way::choose(request, &subject, session, log)?;
    cancel.check()?;
    let mut backup = job.start_container(&request.guest, start_time)?;
    let done = with_provider(
        session,
        &mut *backup,
        request,
        &subject,
        way,
        make_source,
        log,
    );
    let outcome = match &done {
        Ok(_) => Outcome::Success,
        Err(e) => Outcome::Failure(e.chain()),
    };
    if let (Ok(finished), Err(e)) = (&done, backup.finish(&outcome)) {
        // The archive is there, whatever its provider says afterwards.
        let line = format!(
            "archive {} is complete, but: {}",
            finished.archive,
            e.chain()
        );
        log.log(Level::Warn, &line);
    }
    done
}

fn with_provider(
    session: &mut Session<'_>,
    backup: &mut dyn ContainerBackup,
    request: &ContainerRequest,
    subject: &Subject,
    way: Way,
    make_source: &mut MakeSource<'_>,
    log: &dyn TaskLog,
) -> Result<FinishedContainer> {
    let (mut from, mut way) = (Instant::now(), way);
    let mut ready = make_ready(session, backup, request, subject, way, make_source, log);
    if let Err(e) = &ready
        && way.may_be_another(request, e)
    {
        ready = another_way(e, request, subject, session, log).and_then(|(request, way)| {
            make_ready(session, backup, &request, subject, way, make_source, log)
        });
    }
    let ran = ready.and_then(|ready| {
        (way, from) = (ready.way, ready.from);
        let source = caught(|| make_source(&ready.root, subject.idmap.as_ref()))?;
        let still = subject.lxc.as_ref().zip(way.keeps());
        let times = &request.safety.timeouts;
        let mut pass = Pass::new(source, still, &mut *session, times, log);
        let ran = caught(|| backup.run(subject.source(request, &mut pass)));
        let over = pass.over();
        ran.map(|stats| (stats, over))
    });
    // Again, if nothing was read, or what failed then succeeds now.
    let left = session.take_back().err();
    if let Some(e) = &left {
        let line = format!(
            "what the backup changed is not all taken back; its guard goes on trying, and the next backup \
             of this container does it first: {}",
            e.chain()
        );
        log.log(Level::Error, &line);
    }
    let (stats, over) = ran?;
    if let (Way::AsIs, Some(lxc)) = (way, &subject.lxc) {
        let state = lxc.state(session.lock().stdin(), &request.safety.timeouts);
        if matches!(state, Ok(State::Running)) {
            let line =
                "the container was started while it was read: its files may not fit together";
            log.log(Level::Warn, line);
        }
    }
    Ok(FinishedContainer {
        archive: backup.archive_name().clone(),
        stats,
        way,
        paused: if way.stands_still() {
            over - from
        } else {
            Duration::ZERO
        },
        left,
    })
}

/// A container whose files can be read.
struct Ready {
    way: Way,
    root: PathBuf,
    from: Instant,
}

fn make_ready(
    session: &mut Session<'_>,
    backup: &mut dyn ContainerBackup,
    request: &ContainerRequest,
    subject: &Subject,
    way: Way,
    make_source: &mut MakeSource<'_>,
    log: &dyn TaskLog,
) -> Result<Ready> {
    read_ahead(backup, request, subject, way, make_source, log)?;
    let way = if way.stands_still() {
        // Somebody may have frozen or stopped it meanwhile.
        Way::choose(request, subject, session, log)?
    } else {
        way
    };
    let from = Instant::now();
    let (way, root) = way.begin(request, subject, session, log)?;
    Ok(Ready { way, root, from })
}

/// What is done instead of a snapshot that could not be made.
fn another_way(
    failed: &Error,
    request: &ContainerRequest,
    subject: &Subject,
    session: &mut Session<'_>,
    log: &dyn TaskLog,
) -> Result<(ContainerRequest, Way)> {
    session.take_back()?;
    let (mode, what) = if subject.lxc.is_some() {
        (Mode::Suspend, "the container is frozen while it is read")
    } else {
        (Mode::Auto, "the folder is read as it is")
    };
    log.log(Level::Warn, &format!("{what}: {}", failed.chain()));
    let request = ContainerRequest {
        mode,
        ..request.clone()
    };
    let way = match &subject.lxc {
        Some(_) => Way::choose(&request, subject, session, log)?,
        None => Way::AsIs,
    };
    Ok((request, way))
}

/// Reads the files of a container that is to stand still while it still runs: what does not change
/// until then need not be read again.
fn read_ahead(
    backup: &mut dyn ContainerBackup,
    request: &ContainerRequest,
    subject: &Subject,
    way: Way,
    make_source: &mut MakeSource<'_>,
    log: &dyn TaskLog,
) -> Result<()> {
    if !way.stands_still() {
        return Ok(());
    }
    let line = "the files are read while the container runs; then it stands still while those that changed are read again";
    log.log(Level::Info, line);
    let mut source = caught(|| make_source(&subject.rootfs, subject.idmap.as_ref()))?;
    caught(|| backup.read_ahead(subject.source(request, &mut *source)))
}

impl Subject {
    /// What a provider is given, with this tree.
    fn source<'a>(
        &'a self,
        request: &'a ContainerRequest,
        tree: &'a mut dyn TreeSource,
    ) -> ContainerSource<'a> {
        ContainerSource {
            guest_config: &self.guest_config,
            firewall_config: request.firewall_config.as_deref(),
            bandwidth_limit: request.bandwidth_limit,
            id_map: self.idmap.as_ref(),
            tree,
        }
    }

    fn learn(request: &ContainerRequest, log: &dyn TaskLog) -> Result<Self> {
        let given = request.guest_config.clone();
        let subject = match &request.container {
            Container::Directory { rootfs, idmap } => Self {
                lxc: None,
                rootfs: real(ROOTFS, rootfs)?,
                idmap: idmap.clone(),
                guest_config: given.unwrap_or_default(),
                ephemeral: false,
            },
            Container::Lxc(lxc) => {
                let config = LxcConfig::read(&lxc.config())?;
                tell_left_out(&config, log);
                Self {
                    lxc: Some(lxc.clone()),
                    rootfs: real(ROOTFS, &config.rootfs)?,
                    idmap: config.idmap,
                    guest_config: given.unwrap_or(config.raw),
                    ephemeral: config.ephemeral,
                }
            }
        };
        if !subject.rootfs.is_dir() {
            let what = format!("{} is no folder", shown_path(&subject.rootfs));
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if subject.idmap.is_none() {
            let line = "the container has no ID map: its files are read as the machine's root, and its root \
                        is no other than that";
            log.log(Level::Warn, line);
        }
        Ok(subject)
    }
}

fn tell_left_out(config: &LxcConfig, log: &dyn TaskLog) {
    let all: Vec<_> = config.foreign_mounts().collect();
    for mount in all.iter().take(MOUNTS_TOLD_MAX) {
        let line = format!(
            "not backed up, because it is mounted from the machine: {} ({})",
            shown_path(&mount.target),
            shown_path(&mount.source)
        );
        log.log(Level::Info, &line);
    }
    if let Some(more) = all
        .len()
        .checked_sub(MOUNTS_TOLD_MAX)
        .filter(|more| *more > 0)
    {
        log.log(
            Level::Info,
            &format!("{more} more mounts are not backed up"),
        );
    }
}

/// A path without symbolic links.
fn real(whose: &str, path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound {
            ErrorKind::NotFound
        } else {
            ErrorKind::Source
        };
        let what = format!("{whose} {}", shown_path(path));
        Error::with_source(kind, what, e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::GuardProgram;
    use crate::container::limits::Timeouts;

    struct Nowhere;

    impl TaskLog for Nowhere {
        fn log(&self, _level: Level, _message: &str) {}
    }

    #[test]
    fn a_configuration_that_is_given_is_kept_instead_of_that_of_lxc() {
        let folder = tempfile::TempDir::new().unwrap();
        let lxc = Lxc::new(folder.path(), "web", None).unwrap();
        std::fs::create_dir_all(lxc.folder().join("rootfs")).unwrap();
        let rootfs = lxc.folder().join("rootfs");
        let own = format!("lxc.rootfs.path = {}\n", rootfs.display());
        std::fs::write(lxc.config(), &own).unwrap();
        let mut request = ContainerRequest {
            guest: "web".parse().unwrap(),
            container: Container::Lxc(lxc),
            mode: Mode::Auto,
            snapshot_hook: None,
            guest_config: None,
            firewall_config: None,
            bandwidth_limit: None,
            safety: Safety {
                state_folder: folder.path().join("state"),
                guard: GuardProgram {
                    program: "/no/such".into(),
                    arguments: Vec::new(),
                },
                timeouts: Timeouts::default(),
            },
        };
        let kept = |request: &ContainerRequest| {
            let subject = Subject::learn(request, &Nowhere).unwrap();
            (subject.guest_config, subject.rootfs)
        };
        let rootfs = rootfs.canonicalize().unwrap();
        assert_eq!(kept(&request), (own.into_bytes(), rootfs.clone()));
        request.guest_config = Some(b"given".to_vec());
        assert_eq!(kept(&request), (b"given".to_vec(), rootfs.clone()));
        let idmap = None;
        request.container = Container::Directory { rootfs, idmap };
        assert_eq!(kept(&request).0, b"given");
        request.guest_config = None;
        assert_eq!(kept(&request).0, b"");
    }
}
