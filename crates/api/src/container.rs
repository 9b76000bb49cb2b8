//! The backup of a container.

use std::fmt;
use std::num::NonZeroU64;

use crate::tree::TreeSource;
use crate::{ArchiveName, BackupStats, IdMap, Outcome, Result};

/// The backup of one container, by the mechanism `directory`.
pub trait ContainerBackup: Send {
    /// The name the archive will have once it is committed.
    fn archive_name(&self) -> &ArchiveName;
    /// Pulls the file tree and commits the archive before it returns (`backup_container`). What
    /// cannot be read does not fail it: it is named in the log and counted, see
    /// [`BackupStats::left_out`].
    fn run(&mut self, container: ContainerSource<'_>) -> Result<BackupStats>;
    /// Reads a tree that its container still changes, before [`run`](Self::run), which then finds most
    /// of it known: so the container stands still for a short time only. Nothing of it comes into
    /// the archive unless `run` tells it again. A provider may read nothing.
    fn read_ahead(&mut self, _container: ContainerSource<'_>) -> Result<()> {
        Ok(())
    }
    /// Ends the backup (`backup_cleanup`). What was committed stays, whatever the outcome.
    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()>;
}

/// A container to read.
pub struct ContainerSource<'a> {
    /// Raw guest configuration, kept byte for byte.
    pub guest_config: &'a [u8],
    /// Raw firewall configuration, as in [`VmSource`](crate::VmSource): an empty one means none.
    pub firewall_config: Option<&'a [u8]>,
    /// Bytes per second, for reading and for writing out; `None` is no limit.
    pub bandwidth_limit: Option<NonZeroU64>,
    /// The user namespace that the tree's owners are of; `None` is the machine's own. An archive
    /// that was read in another one does not tell what its files would be in this one.
    pub id_map: Option<&'a IdMap>,
    /// The file tree, read as the container's root user.
    pub tree: &'a mut dyn TreeSource,
}

impl fmt::Debug for ContainerSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerSource").finish_non_exhaustive()
    }
}
