//! The backup of a container: its configurations, its file tree, then the commit.

use std::sync::Arc;

use snapkeep_api::tree::TreeSource;
use snapkeep_api::{
    ArchiveName, BackupStats, ContainerBackup, ContainerRestore, ContainerSource, Error, ErrorKind,
    Outcome, Result, UnixTime,
};
use snapkeep_repo::{Repository, Stats, TreeRecord, Writer, write_tree};

use crate::archive::{Data, NewArchive, tell_kept, writer};
use crate::error;
use crate::limits::WORKERS_MAX;
use crate::pace::Pace;
use crate::panics::caught;
use crate::provider::{ChangeDetection, Shared};
use crate::tree::{Base, Failed, Pull, StoredTree};

/// A tree that was read while the container changed it.
struct Ahead {
    writer: Writer,
    tree: TreeRecord,
    read: u64,
    new: u64,
}

/// One container's backup, from its name to its commit.
pub(crate) struct RunningContainer {
    shared: Arc<Shared>,
    name: ArchiveName,
    time: UnixTime,
    /// When the backup began: what is modified later may not be told by its times.
    start: UnixTime,
    ahead: Option<Ahead>,
    /// Files that were found to have changed unnoticed before the container stood still.
    lies: u64,
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
            ahead: None,
            lies: 0,
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
        let id_map = container.id_map.map(ToString::to_string);
        let ahead = self.ahead.take();
        let (base, before) = match &ahead {
            Some(ahead) => {
                let base = Base::of_tree(shared, &ahead.tree, self.start);
                (base, (ahead.read, ahead.new))
            }
            None if self.lies > 0 => (Base::nothing(shared, self.start), (0, 0)),
            None => (
                base(shared, &self.name, id_map.as_deref(), self.start),
                (0, 0),
            ),
        };
        let writer = ahead.map_or_else(|| writer(shared), |ahead| Ok(ahead.writer))?;
        let archive = NewArchive::of(shared, &self.name, self.time, writer);
        // Before the files: a configuration that cannot be kept must not cost hours.
        let configs = archive.configs(container.guest_config, container.firewall_config)?;
        let mut pull = Pull::new(shared, &pace, base);
        pull.problems.lies = self.lies;
        let mut tree = pull_tree(&mut pull, container.tree, &archive.writer)?;
        tree.id_map = id_map;
        tree.left_out = pull.problems.left_out;
        if pull.problems.lies > 0 {
            // Nor will the next backup believe what this file system told.
            tree.witness = None;
        }
        let stats = Stats {
            size: tree.size,
            read: before.0.saturating_add(pull.progress.read),
            new: before.1.saturating_add(pull.progress.counts.new),
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
            uncounted: false,
        })
    }

    fn read_ahead(&mut self, container: ContainerSource<'_>) -> Result<()> {
        let shared = &*self.shared;
        if self.committed || shared.options.change_detection == ChangeDetection::Data {
            // All would be read again.
            return Ok(());
        }
        let pace = Pace::new(container.bandwidth_limit);
        let writer = writer(shared)?;
        let id_map = container.id_map.map(ToString::to_string);
        let base = base(shared, &self.name, id_map.as_deref(), self.start);
        let mut pull = Pull::new(shared, &pace, base).ahead();
        let tree = pull_tree(&mut pull, container.tree, &writer)?;
        self.lies = pull.problems.lies;
        if self.lies > 0 {
            // Nothing that this file system tells is to be relied on.
            return Ok(());
        }
        // What was read must be found again while the rest of the archive is written.
        (writer.flush()).map_err(|e| error::repository("cannot store the file tree", e))?;
        self.ahead = Some(Ahead {
            writer,
            tree,
            read: pull.progress.read,
            new: pull.progress.counts.new,
        });
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()> {
        if self.committed {
            tell_kept(&self.shared, &self.name, outcome);
        }
        Ok(())
    }
}

/// What the guest's newest archive tells.
fn base<'a>(
    shared: &'a Shared,
    name: &ArchiveName,
    id_map: Option<&str>,
    start: UnixTime,
) -> Base<'a> {
    let (group, _) = name.as_str().rsplit_once('/').unwrap_or_default();
    Base::find(shared, group, id_map, start)
}

/// Follows a walk to its end; the tree that was stored.
fn pull_tree(
    pull: &mut Pull<'_>,
    source: &mut dyn TreeSource,
    writer: &Writer,
) -> Result<TreeRecord> {
    let (shared, pace) = (pull.shared, pull.pace);
    let workers = shared.options.workers.clamp(1, WORKERS_MAX);
    let written = |bytes| pace.wrote(shared, bytes);
    caught("the file tree", || {
        write_tree(writer, workers, &written, |tree| {
            pull.run(source, tree).map_err(Failed)?;
            // The root's node and those above the last files are stored after this.
            Ok(())
        })
        .map_err(|Failed(error)| error)
    })
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
