//! The backup of a container: its configurations, its file tree, then the commit.

use std::sync::Arc;

use snapkeep_api::{
    ArchiveName, BackupStats, ContainerBackup, ContainerRestore, ContainerSource, Error, ErrorKind,
    Outcome, Result, UnixTime,
};
use snapkeep_repo::{Repository, Stats, TreeRecord, write_tree};

use crate::archive::{Data, NewArchive, tell_kept};
use crate::limits::WORKERS_MAX;
use crate::pace::Pace;
use crate::panics::caught;
use crate::provider::Shared;
use crate::tree::{Base, Failed, Pull, StoredTree};

/// One container's backup, from its name to its commit.
pub(crate) struct RunningContainer {
    shared: Arc<Shared>,
    name: ArchiveName,
    time: UnixTime,
    /// When the backup began: what is modified later may not be told by its times.
    start: UnixTime,
    committed: bool,
}

impl RunningContainer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        name: ArchiveName,
        time: UnixTime,
        start: UnixTime,
    ) -> Self {
        Self {
            shared,
            name,
            time,
            start,
            committed: false,
        }
    }
}

impl ContainerBackup for RunningContainer {
    fn archive_name(&self) -> &ArchiveName {
        &self.name
    }

    fn run(&mut self, container: ContainerSource<'_>) -> Result<BackupStats> {
        if self.committed {
            return Err(Error::new(ErrorKind::Protocol, "a backup is run once"));
        }
        let shared = &*self.shared;
        let begun = shared.clock.monotonic();
        let pace = Pace::new(container.bandwidth_limit);
        let archive = NewArchive::new(shared, &self.name, self.time)?;
        // Before the files: a configuration that cannot be kept must not cost hours.
        let configs = archive.configs(container.guest_config, container.firewall_config)?;
        let (group, _) = self.name.as_str().rsplit_once('/').unwrap_or_default();
        let base = Base::find(shared, group, self.start);
        let mut pull = Pull::new(shared, &pace, base);
        let workers = shared.options.workers.clamp(1, WORKERS_MAX);
        let written = |bytes| pace.wrote(shared, bytes);
        let tree = caught("the file tree", || {
            write_tree(&archive.writer, workers, &written, |tree| {
                pull.run(container.tree, tree).map_err(Failed)?;
                // The root's node and those above the last files are stored after this.
                Ok(())
            })
            .map_err(|Failed(error)| error)
        })?;
        let stats = Stats {
            size: tree.size,
            read: pull.progress.read,
            new: pull.progress.counts.new,
            stored: 0,
        };
        let data = Data {
            tree: Some(tree),
            ..Data::default()
        };
        let Stats {
            size,
            read,
            new,
            stored,
        } = archive.commit(configs, data, stats, &pace)?;
        self.committed = true;
        let took = shared.clock.monotonic().saturating_sub(begun);
        let (progress, problems) = (&pull.progress, &pull.problems);
        progress.finish(&*shared.log, problems, stored, took);
        Ok(BackupStats {
            archive_size: size,
            guest_size: size,
            read,
            new,
            stored,
            left_out: problems.left_out,
        })
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        if self.committed {
            tell_kept(&self.shared, &self.name, outcome);
        }
        Ok(())
    }
}

/// A container's archive that is being restored.
pub(crate) struct StoredContainer {
    pub(crate) repository: Arc<Repository>,
    pub(crate) name: ArchiveName,
    pub(crate) tree: TreeRecord,
}

impl ContainerRestore for StoredContainer {
    fn open_tree(&mut self) -> Result<Box<dyn snapkeep_api::tree::TreeReader>> {
        let repository = Arc::clone(&self.repository);
        let tree = StoredTree::open(repository, self.name.clone(), &self.tree)?;
        Ok(Box::new(tree))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
