//! An open repository, and what is looked up in it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use snapkeep_api::{
    ArchiveName, Cancel, Clock, GuestId, GuestKind, SystemClock, TaskLog, VmMechanism,
};
use snapkeep_provider::{ChangeDetection, Options, RepositoryProvider, group};
use snapkeep_repo::{
    ErrorKind, MachineClock, Repository, Snapshot, SnapshotName, Storage, SystemRandom, Unlock,
};
use snapkeep_s3::Retention;

use crate::failure::{Code, fault, usage};
use crate::past::{Doubt, LessLocked, Past};
use crate::place::Place;
use crate::provide::names;
use crate::report::remark;
use crate::secrets;
use crate::settings::{Secret, Settings};
use crate::signals::Stop;
use crate::watched::Watched;

/// What a verb works with.
pub(crate) struct Session {
    pub(crate) storage: Arc<Watched>,
    pub(crate) repository: Arc<Repository>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: Stop,
    past: Past,
    /// What is not as this host remembers it.
    pub(crate) doubts: Vec<Doubt>,
    /// Whether it locks less than this host remembers.
    pub(crate) less_locked: Option<LessLocked>,
}

/// The machine's clock; whoever waits by it does so until the end is asked for.
#[derive(Debug)]
struct Interrupted(MachineClock, Cancel);

impl snapkeep_repo::Clock for Interrupted {
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn time_of_day(&self) -> Duration {
        self.0.time_of_day()
    }

    fn sleep(&self, duration: Duration) {
        let end = self.monotonic() + duration;
        while let Some(left) = end.checked_sub(self.monotonic()) {
            if left.is_zero() || self.1.is_cancelled() {
                return;
            }
            self.0.sleep(left.min(Duration::from_millis(200)));
        }
    }
}

/// Where the repository is.
pub(crate) fn place(settings: &Settings) -> Result<Place> {
    let named = settings.repository.as_deref().ok_or_else(|| {
        usage("no repository is named: give --repository, SNAPKEEP_REPOSITORY or the configuration's key repository")
    })?;
    Place::new(named, &settings.config.s3)
}

impl Session {
    /// Opens the repository; asks for the passphrase if it is needed and was not given. From here
    /// on signals cancel.
    pub(crate) fn open(settings: &Settings) -> Result<Self> {
        let place = place(settings)?;
        if let (Some(secret), false) = (&settings.secret, settings.quiet) {
            secrets::warn_of_readers(secret);
        }
        let opened = open(&place, settings);
        let (storage, repository) =
            opened.with_context(|| format!("cannot open the repository {place}"))?;
        let stop = Stop::watch(settings.quiet)?;
        storage.obey(stop.cancel.clone());
        let clock = Arc::new(Interrupted(MachineClock::new(), stop.cancel.clone()));
        let past = Past::new(settings, &place);
        let id = &repository.config().repository;
        let doubts = past.doubts(id, || {
            let names = repository.all_snapshots_of(None)?.into_iter();
            Ok(names.map(|name| name.to_string()).collect())
        });
        let doubts = doubts.unwrap_or_else(|e| vec![past.unknown(&e)]);
        for doubt in &doubts {
            remark(&format!("warning: {}", doubt.what));
        }
        if !doubts.is_empty() {
            remark(
                "warning: until `snapkeep doctor --accept-rollback` says that this is right, disks are read whole",
            );
        }
        let less_locked = less_locked(&storage, &past, &repository.config().repository);
        Ok(Self {
            storage,
            repository: Arc::new(repository.with_clock(clock)),
            clock: Arc::new(SystemClock::new()),
            stop,
            past,
            doubts,
            less_locked,
        })
    }

    /// How the repository's objects are locked, if they are.
    pub(crate) fn retention(&self) -> Option<Retention> {
        self.storage.bucket.as_ref()?.retention()
    }

    /// How a verb ends that puts what is to stay: with an error as long as the repository locks less
    /// than this host remembers.
    pub(crate) fn code(&self, code: ExitCode) -> ExitCode {
        if self.less_locked.is_some() {
            Code::Failed.into()
        } else {
            code
        }
    }

    /// Remembers which archive of a guest is the newest now.
    pub(crate) fn remember(&self, group: &str, newest: Option<&SnapshotName>) -> Result<()> {
        let id = &self.repository.config().repository;
        self.past.saw(id, group, newest, &self.doubts)
    }

    /// The same of guests whose archives were forgotten, or taken back: once they are pruned, they are
    /// not missed.
    pub(crate) fn remember_without(&self, archives: &[SnapshotName]) -> Result<()> {
        let groups: BTreeSet<&str> = archives.iter().map(SnapshotName::group).collect();
        for group in groups {
            let left = self.repository.snapshots_of(group)?;
            if let Err(error) = self.remember(group, left.last()) {
                remark(&format!(
                    "warning: once it is pruned, this host may miss what was forgotten: {error:#}"
                ));
            }
        }
        Ok(())
    }

    /// The same of an archive that was just made. It is there, whether that can be remembered or not.
    pub(crate) fn remember_made(&self, archive: &ArchiveName) {
        let remembered = (archive.as_str().parse::<SnapshotName>())
            .map_err(anyhow::Error::from)
            .and_then(|name| self.remember(name.group(), Some(&name)));
        if let Err(error) = remembered {
            remark(&format!(
                "warning: should this archive vanish, this host will not notice: {error:#}"
            ));
        }
    }

    /// The same for what reads what guests hold: with a key that may only write it fails before
    /// anything is touched.
    pub(crate) fn open_to_read(settings: &Settings) -> Result<Self> {
        let session = Self::open(settings)?;
        session.repository.may_read()?;
        Ok(session)
    }

    /// A provider over the repository.
    pub(crate) fn provider(
        &self,
        settings: &Settings,
        log: Arc<dyn TaskLog>,
    ) -> RepositoryProvider {
        self.provider_reading(settings, log, ChangeDetection::Data)
    }

    /// The same; of containers it reads what this says.
    pub(crate) fn provider_reading(
        &self,
        settings: &Settings,
        log: Arc<dyn TaskLog>,
        change_detection: ChangeDetection,
    ) -> RepositoryProvider {
        let options = Options {
            namespace: settings.namespace.clone(),
            storage: None,
            workers: settings.workers,
            mechanism: VmMechanism::Nbd,
            accept_unverified_regions: false,
            change_detection,
        };
        let (repository, random) = (Arc::clone(&self.repository), Arc::new(SystemRandom));
        RepositoryProvider::new(repository, random, Arc::clone(&self.clock), log, options)
            .with_cancel(self.stop.cancel.clone())
    }

    /// The archive that the user means: by its name, or the newest one of a guest of these kinds.
    pub(crate) fn archive(
        &self,
        settings: &Settings,
        text: &str,
        kinds: &[GuestKind],
    ) -> Result<(ArchiveName, Snapshot)> {
        let name = self.meant(settings, text, kinds)?;
        let snapshot = match self.repository.snapshot(&name) {
            Ok(snapshot) => snapshot,
            // It says so itself if it was forgotten.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(fault(Code::NotFound, e.to_string()));
            }
            Err(e) => return Err(e).with_context(|| format!("cannot read archive {name}")),
        };
        Ok((name.as_str().parse()?, snapshot))
    }

    /// The same for who opens it by its name: whether it is forgotten is told then.
    pub(crate) fn archive_name(
        &self,
        settings: &Settings,
        text: &str,
        kinds: &[GuestKind],
    ) -> Result<ArchiveName> {
        Ok(self.meant(settings, text, kinds)?.as_str().parse()?)
    }

    fn meant(&self, settings: &Settings, text: &str, kinds: &[GuestKind]) -> Result<SnapshotName> {
        if text.contains('/') || text.starts_with(SHOWN) {
            self.named(settings, text)
        } else {
            self.newest(settings, text, kinds)
        }
    }

    /// The name that the user means, in the same way, also of an archive whose record is damaged;
    /// it need not be there.
    pub(crate) fn name(&self, settings: &Settings, text: &str) -> Result<SnapshotName> {
        if text.contains('/') {
            Ok(text.parse()?)
        } else if text.starts_with(SHOWN) {
            Ok(names::path(&settings.namespace, text)?.as_str().parse()?)
        } else {
            self.newest(settings, text, ANY)
        }
    }

    fn newest(
        &self,
        settings: &Settings,
        guest: &str,
        kinds: &[GuestKind],
    ) -> Result<SnapshotName> {
        let mut newest = Vec::new();
        for kind in kinds {
            let all = self.archives_of(settings, guest, &[*kind])?;
            // Their names end with the time, and a listing is in order.
            newest.extend(all.into_iter().next_back());
        }
        let mut newest = newest.into_iter();
        match (newest.next(), newest.next()) {
            (Some(one), None) => Ok(one),
            (Some(one), Some(other)) => {
                let what = format!(
                    "{guest} is the name of a virtual machine and of a container: name the archive, \
                     such as {one} or {other}"
                );
                Err(usage(what))
            }
            (None, _) => {
                let what = match kinds {
                    [GuestKind::Qemu] => "virtual machine",
                    [GuestKind::Lxc] => "container",
                    _ => "guest",
                };
                let what = format!(
                    "there is no archive of {what} {guest} in the namespace {}: `snapkeep list` shows what there is",
                    settings.namespace
                );
                Err(fault(Code::NotFound, what))
            }
        }
    }

    /// The archives of a guest, of each kind oldest first.
    pub(crate) fn archives_of(
        &self,
        settings: &Settings,
        guest: &str,
        kinds: &[GuestKind],
    ) -> Result<Vec<SnapshotName>> {
        let mut names = Vec::new();
        for group in groups(settings, guest, kinds)? {
            names.extend(self.repository.snapshots_of(&group)?);
        }
        Ok(names)
    }

    /// The name of an archive that is there, forgotten or not: whole, or as Proxmox VE shows it.
    pub(crate) fn named(&self, settings: &Settings, text: &str) -> Result<SnapshotName> {
        let missing = || {
            let what = format!(
                "there is no archive {text}: `snapkeep list` shows what there is, and with \
                 --forgotten what was forgotten"
            );
            fault(Code::NotFound, what)
        };
        let whole = if text.starts_with(SHOWN) {
            names::path(&settings.namespace, text)?.as_str().to_owned()
        } else {
            text.to_owned()
        };
        let name: SnapshotName = whole.parse().map_err(|_bad_name| missing())?;
        match self.repository.any_snapshot(&name) {
            Ok(_) => Ok(name),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(missing()),
            Err(e) => Err(e).with_context(|| format!("cannot read archive {text}")),
        }
    }
}

/// Whether the repository locks less than is remembered. Then what is put is locked as it was.
fn less_locked(storage: &Watched, past: &Past, repository: &str) -> Option<LessLocked> {
    let bucket = storage.bucket.as_ref()?;
    let found = bucket.retention();
    let less = match past.less_locked(repository, found) {
        Ok(less) => less,
        Err(error) => {
            remark(&format!(
                "warning: nobody can tell whether its objects are locked as they were: {error:#}"
            ));
            None
        }
    };
    match &less {
        Some(less) => {
            bucket.lock_as(less.remembered);
            remark(&format!(
                "warning: {}. What is put now is locked as before, by this host, and backups end with \
                 an error; bring the object back (`snapkeep doctor` says how), or take it as it is with \
                 `snapkeep doctor --accept-rollback`",
                less.what
            ));
        }
        // Whoever only looks need not be able to write to this host's state folder; a backup says
        // that nothing is remembered.
        None => drop(past.saw_locks(repository, found)),
    }
    less
}

/// How names begin as Proxmox VE shows them.
const SHOWN: &str = "vzdump-";

/// The groups of a guest's archives in the namespace.
pub(crate) fn groups(settings: &Settings, guest: &str, kinds: &[GuestKind]) -> Result<Vec<String>> {
    let guest: GuestId = (guest.parse()).map_err(|e: snapkeep_api::Error| usage(e.chain()))?;
    let group = |kind: &GuestKind| group(&settings.namespace, *kind, &guest);
    Ok(kinds.iter().map(group).collect())
}

/// Guests of either kind.
pub(crate) const ANY: &[GuestKind] = &[GuestKind::Qemu, GuestKind::Lxc];
/// Virtual machines alone.
pub(crate) const VM: &[GuestKind] = &[GuestKind::Qemu];
/// Containers alone.
pub(crate) const CONTAINER: &[GuestKind] = &[GuestKind::Lxc];

fn open(place: &Place, settings: &Settings) -> Result<(Arc<Watched>, Repository)> {
    let storage = place.open()?;
    let repository = repository(&storage, settings.secret.as_ref(), || {
        Ok(Unlock::Passphrase(secrets::ask()?))
    })?;
    Ok((storage, repository))
}

/// The repository on a storage. Without a secret, one that needs none; else `ask` is asked.
pub(crate) fn repository(
    storage: &Arc<Watched>,
    secret: Option<&Secret>,
    ask: impl FnOnce() -> Result<Unlock>,
) -> Result<Repository> {
    let open = |unlock: &Unlock| {
        let storage: Arc<dyn Storage> = Arc::clone(storage) as _;
        Repository::open(storage, Arc::new(SystemRandom), unlock)
    };
    let unlock = match secret {
        Some(secret) => secrets::unlock(secret)?,
        None => match open(&Unlock::Open) {
            Err(e) if e.kind() == ErrorKind::WrongKey => ask()?,
            opened => return Ok(opened?),
        },
    };
    Ok(open(&unlock)?)
}
