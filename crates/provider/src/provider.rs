//! The provider: a repository, a namespace in it, and what it is told from outside.

use std::sync::Arc;

use snapkeep_api::{
    Archive, ArchiveName, BackupJob, Cancel, Clock, ContainerBackup, GuestId, GuestKind, Level,
    Outcome, Provider, Result, TaskLog, TaskLogFile, UnixTime, VmBackup, VmMechanism,
};
use snapkeep_repo::{Random, Repository};

use crate::archive::keep_log;
use crate::container::RunningContainer;
use crate::error;
use crate::memory::BitmapStorage;
use crate::names::{Namespace, archive_name, group};
use crate::order::time_after;
use crate::restore::StoredArchive;
use crate::vm::RunningBackup;

/// What a provider is made with, beside its repository.
#[derive(Clone, Debug)]
pub struct Options {
    /// The part of the repository that this host or cluster writes.
    pub namespace: Namespace,
    /// The storage, where the host has such names. Dirty bitmaps with fixed names are believed
    /// only with it.
    pub storage: Option<BitmapStorage>,
    /// Threads that read, hash, compress and encrypt: 1 to 64, what is outside counts as the next.
    pub workers: usize,
    /// How virtual machines' snapshot access is asked for.
    pub mechanism: VmMechanism,
    /// Reuse bitmaps with the mechanism `file-handle` too. Its list of dirty regions cannot be
    /// verified: a list that ends early looks like a disk that did not change.
    pub accept_unverified_regions: bool,
    /// How files of containers that did not change are recognised.
    pub change_detection: ChangeDetection,
}

/// How files that did not change since a container's newest archive are recognised.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeDetection {
    /// By their content: every file is read.
    Data,
    /// By what they look like: a file is believed to be unchanged if its size, mtime, ctime and
    /// inode are what they were.
    Metadata {
        /// How many of 1000 such files are read all the same, and compared, so that a file system
        /// that does not tell of changes is found out. What is above 1000 counts as 1000.
        audit: u16,
    },
}

/// Everything that the values of one provider share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) repository: Arc<Repository>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: Arc<dyn TaskLog>,
    pub(crate) options: Options,
    pub(crate) cancel: Cancel,
    pub(crate) observer: Option<Observer>,
}

/// Told how many bytes a backup has read, by any of its threads and at any time, so it returns
/// soon.
pub type Observer = Arc<dyn Fn(u64) + Send + Sync>;

/// A provider over an open repository.
#[derive(Clone)]
pub struct RepositoryProvider(Arc<Shared>);

impl std::fmt::Debug for RepositoryProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepositoryProvider")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

impl RepositoryProvider {
    /// A provider that keeps archives in this repository.
    pub fn new(
        repository: Arc<Repository>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        log: Arc<dyn TaskLog>,
        options: Options,
    ) -> Self {
        Self(Arc::new(Shared {
            repository,
            random,
            clock,
            log,
            options,
            cancel: Cancel::new(),
            observer: None,
        }))
    }

    /// Lets its backups be ended from outside: one that is cancelled before its commit leaves no
    /// archive, and fails with the kind `Cancelled`.
    #[must_use]
    pub fn with_cancel(self, cancel: Cancel) -> Self {
        Self(Arc::new(Shared {
            cancel,
            ..(*self.0).clone()
        }))
    }

    /// Lets somebody watch how its backups get on, beside the task log's line every few seconds.
    #[must_use]
    pub fn with_observer(self, observer: Observer) -> Self {
        Self(Arc::new(Shared {
            observer: Some(observer),
            ..(*self.0).clone()
        }))
    }
}

impl Provider for RepositoryProvider {
    fn name(&self) -> &'static str {
        "Snapkeep"
    }

    fn start_job(&self, _start_time: UnixTime) -> Result<Box<dyn BackupJob>> {
        let repository = &self.0.repository;
        (repository.may_write())
            .map_err(|e| error::repository("nothing can be backed up to the repository", e))?;
        // Listing is the cheapest proof that the repository can be reached.
        (repository.keys())
            .map_err(|e| error::repository("the repository cannot be reached", e))?;
        Ok(Box::new(Job {
            shared: Arc::clone(&self.0),
        }))
    }

    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>> {
        Ok(Box::new(StoredArchive::open(
            Arc::clone(&self.0.repository),
            name,
        )?))
    }
}

struct Job {
    shared: Arc<Shared>,
}

impl Job {
    /// The name and the time of a new archive.
    fn archive(
        &self,
        kind: GuestKind,
        guest: &GuestId,
        start: UnixTime,
    ) -> Result<(ArchiveName, UnixTime)> {
        let mut random = [0; 8];
        (self.shared.random.fill(&mut random))
            .map_err(|e| error::repository("cannot name an archive", e))?;
        let namespace = &self.shared.options.namespace;
        let group = group(namespace, kind, guest);
        let time = time_after(&self.shared, &group, start)?;
        let name = archive_name(namespace, kind, guest, time, random)?;
        Ok((name, time))
    }
}

impl BackupJob for Job {
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>> {
        let (name, time) = self.archive(GuestKind::Qemu, guest, start_time)?;
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(RunningBackup::new(shared, name, time)))
    }

    fn start_container(
        &mut self,
        guest: &GuestId,
        start_time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        let (name, time) = self.archive(GuestKind::Lxc, guest, start_time)?;
        let shared = Arc::clone(&self.shared);
        let backup = RunningContainer::new(shared, name, time, start_time);
        Ok(Box::new(backup))
    }

    fn keep_task_log(&mut self, log: &TaskLogFile<'_>) -> Result<()> {
        let Some(archive) = log.archive else {
            let line = format!(
                "guest {} has no archive that its log could be kept with",
                log.guest
            );
            self.shared.log.log(Level::Info, &line);
            return Ok(());
        };
        // The backup is done; its log is not worth failing it.
        if let Err(error) = keep_log(&self.shared, archive, log.path) {
            let line = format!("archive {archive} has no log: {}", error.chain());
            self.shared.log.log(Level::Warn, &line);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, _outcome: &Outcome) -> Result<()> {
        Ok(())
    }
}
