//! A new archive, of either kind of guest: its configurations before all else, and its commit.

use std::path::Path;

use snapkeep_api::{ArchiveName, Error, ErrorKind, Level, Outcome, Result, UnixTime};
use snapkeep_repo::{
    AttributeChange, BlobRef, Class, DiskRecord, Snapshot, SnapshotName, Stats, TreeRecord, Worker,
    Writer, limits,
};

use crate::error;
use crate::pace::Pace;
use crate::provider::Shared;
use crate::task_log;

/// An archive that is being made.
pub(crate) struct NewArchive<'a> {
    shared: &'a Shared,
    name: &'a ArchiveName,
    time: UnixTime,
    pub(crate) writer: Writer,
}

/// The configurations in an archive.
pub(crate) struct Configs {
    guest: BlobRef,
    firewall: Option<BlobRef>,
}

/// What an archive has of its guest, beside the configurations.
#[derive(Default)]
pub(crate) struct Data {
    pub(crate) disks: Vec<DiskRecord>,
    pub(crate) tree: Option<TreeRecord>,
}

impl<'a> NewArchive<'a> {
    pub(crate) fn new(shared: &'a Shared, name: &'a ArchiveName, time: UnixTime) -> Result<Self> {
        Ok(Self::of(shared, name, time, writer(shared)?))
    }

    /// One for which this has written already.
    pub(crate) fn of(
        shared: &'a Shared,
        name: &'a ArchiveName,
        time: UnixTime,
        writer: Writer,
    ) -> Self {
        Self {
            shared,
            name,
            time,
            writer,
        }
    }

    /// Stores the configurations; an empty one of the firewall is none.
    pub(crate) fn configs(&self, guest: &[u8], firewall: Option<&[u8]>) -> Result<Configs> {
        let mut worker = self.writer.worker();
        let guest = store_config(&mut worker, "guest", guest)?;
        let firewall = firewall.filter(|config| !config.is_empty());
        let firewall = firewall
            .map(|config| store_config(&mut worker, "firewall", config))
            .transpose()?;
        Ok(Configs { guest, firewall })
    }

    /// Commits; the statistics with what was stored.
    pub(crate) fn commit(
        self,
        configs: Configs,
        data: Data,
        stats: Stats,
        pace: &Pace,
    ) -> Result<Stats> {
        let Data { disks, tree } = data;
        let snapshot = Snapshot {
            id: String::new(),
            repository: String::new(),
            needs: Vec::new(),
            time: self.time.0,
            disks,
            tree,
            guest_config: configs.guest,
            firewall_config: configs.firewall,
            writer: String::new(),
            index_objects: 0,
            origin: None,
            generation: 0,
            stats,
            program: concat!("snapkeep ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        // The last packs go out with the commit.
        pace.read(self.shared, 0);
        self.shared.cancel.check()?;
        let failed = |e| error::repository(format!("cannot commit archive {}", self.name), e);
        let name: SnapshotName = self.name.as_str().parse().map_err(failed)?;
        let snapshot = self.writer.commit(&name, snapshot).map_err(failed)?;
        Ok(snapshot.stats)
    }
}

pub(crate) fn writer(shared: &Shared) -> Result<Writer> {
    Writer::new(shared.repository.clone()).map_err(|e| error::repository("cannot start writing", e))
}

/// What people are told if a job fails after an archive was committed, now and with the archive.
pub(crate) fn tell_kept(shared: &Shared, name: &ArchiveName, outcome: &Outcome) {
    if let Outcome::Failure(why) = outcome {
        let line = format!("archive {name} is kept although the job failed: {why}");
        shared.log.log(Level::Warn, &line);
        let mut text = task_log::redacted(why.as_bytes());
        text.truncate(task_log::cut_before(&text, limits::CALLER_ERROR_MAX));
        let change = AttributeChange {
            caller_error: Some(text),
            ..AttributeChange::default()
        };
        if let Err(error) = change_attributes(shared, name, &change) {
            let line = format!("the archive does not say so: {}", error.chain());
            shared.log.log(Level::Warn, &line);
        }
    }
}

/// Keeps a task log with an archive.
pub(crate) fn keep_log(shared: &Shared, name: &ArchiveName, path: &Path) -> Result<()> {
    let text = task_log::read(path)?;
    let stored = shared.repository.store_task_log(text.as_bytes());
    let change = AttributeChange {
        task_log: Some(stored.map_err(|e| error::repository("cannot store the task log", e))?),
        ..AttributeChange::default()
    };
    change_attributes(shared, name, &change)
}

fn change_attributes(shared: &Shared, name: &ArchiveName, change: &AttributeChange) -> Result<()> {
    let failed = |e| error::repository(format!("cannot add to archive {name}"), e);
    let name: SnapshotName = name.as_str().parse().map_err(failed)?;
    (shared.repository.change_attributes(&name, change)).map_err(failed)
}

fn store_config(worker: &mut Worker<'_>, what: &str, config: &[u8]) -> Result<BlobRef> {
    let length = u32::try_from(config.len())
        .ok()
        .filter(|_| config.len() <= limits::GUEST_CONFIG_MAX);
    let Some(length) = length else {
        let what = format!(
            "the {what} configuration has {} bytes, more than the {} that an archive can hold",
            config.len(),
            limits::GUEST_CONFIG_MAX
        );
        return Err(Error::new(ErrorKind::Invalid, what));
    };
    let chunk = if config.is_empty() {
        None
    } else {
        let stored = worker.store(Class::Data, config);
        Some(
            stored
                .map_err(|e| {
                    error::repository(format!("cannot store the {what} configuration"), e)
                })?
                .id,
        )
    };
    Ok(BlobRef { chunk, length })
}
