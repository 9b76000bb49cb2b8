//! A provider and its jobs.

use crate::{
    Archive, ArchiveName, ContainerBackup, Error, ErrorKind, GuestId, Result, TaskLogFile,
    UnixTime, VmBackup,
};

/// A backup provider bound to one storage.
///
/// The constructor, which is not part of this trait, received the storage, its configuration and
/// the task log (`new` in the Proxmox VE API); no method receives them again. Constructing has no
/// side effects: a host may make a provider only to read an archive's configuration.
pub trait Provider: Send + Sync {
    /// The name printed in task logs (`provider_name`).
    fn name(&self) -> &str;
    /// Starts a job (`job_init`). Checks here that the target can be reached.
    fn start_job(&self, start_time: UnixTime) -> Result<Box<dyn BackupJob>>;
    /// Opens an archive that an earlier backup made.
    fn open_archive(&self, name: &ArchiveName) -> Result<Box<dyn Archive>>;
}

/// One run over one or more guests.
pub trait BackupJob: Send {
    /// Starts the backup of a virtual machine (`backup_init`). `Unsupported` if the provider does
    /// not back up virtual machines.
    fn start_vm(&mut self, guest: &GuestId, start_time: UnixTime) -> Result<Box<dyn VmBackup>>;
    /// Starts the backup of a container (`backup_init`). `Unsupported` if the provider does not
    /// back up containers.
    fn start_container(
        &mut self,
        guest: &GuestId,
        _start_time: UnixTime,
    ) -> Result<Box<dyn ContainerBackup>> {
        let what = format!("container {guest}: this provider backs up virtual machines only");
        Err(Error::new(ErrorKind::Unsupported, what))
    }
    /// Keeps the task log of a guest whose backup is over, in success and in failure
    /// (`backup_handle_log_file`).
    fn keep_task_log(&mut self, _log: &TaskLogFile<'_>) -> Result<()> {
        Ok(())
    }
    /// Ends the job, in success and in failure (`job_cleanup`).
    fn finish(self: Box<Self>, outcome: &Outcome) -> Result<()>;
}

/// How a backup or a job ended, as its caller sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It ended well.
    Success,
    /// It failed, with the caller's message.
    Failure(String),
}

/// Statistics of a finished backup, in bytes unless said otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BackupStats {
    /// What the caller shows as the archive's size (`archive-size`).
    pub archive_size: u64,
    /// Sum of the volumes' sizes.
    pub guest_size: u64,
    /// What was read from the guest.
    pub read: u64,
    /// What was read and not yet stored, before compression.
    pub new: u64,
    /// What the storage grew by, metadata included.
    pub stored: u64,
    /// How many entries of a container should be in the archive and are not, or not whole: more
    /// than 0 is a partial archive.
    pub left_out: u64,
    /// Whether nobody counted what was read, new, stored and left out, as classes in Perl do not:
    /// then those are 0.
    pub uncounted: bool,
}
