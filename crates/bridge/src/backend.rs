//! What the program gives the bridge.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use snapkeep_api::{ArchiveName, Cancel, GuestKind, Provider, Result, TaskLog};

/// What the program gives the bridge.
pub trait Backend: Send + Sync {
    /// The program and its version: `snapkeep 0.1.0`.
    fn program(&self) -> String;
    /// Checks the settings of `hello`, and touches no storage. Called before anything else; an
    /// error is of kind `Invalid`.
    fn greet(&self, hello: &Hello) -> Result<()>;
    /// Makes the provider, with the first call that needs one; again if that failed.
    fn provider(&self, log: Arc<dyn TaskLog>, cancel: Cancel) -> Result<Box<dyn Provider>>;
    /// An archive's name as Proxmox VE sees it.
    fn shown_name(&self, name: &ArchiveName) -> Result<String>;
    /// The archive that Proxmox VE sees under this name.
    fn archive_name(&self, shown: &str) -> Result<ArchiveName>;
    /// A call of the storage plugin. The answer is what docs/BRIDGE.md says of it. `Status` answers
    /// within some seconds, whatever its storage does: one process asks all storages in turn.
    fn storage(&self, call: StorageCall, log: Arc<dyn TaskLog>, cancel: Cancel) -> Result<Value>;
    /// How a container is handed back.
    fn container_restore(&self) -> ContainerMechanism;
    /// The folder for what is mounted: `/run/snapkeep`.
    fn run_folder(&self) -> PathBuf;
}

/// The first words of the caller.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The version of the conversation; 1 when a [`Backend`] sees it.
    pub version: u32,
    /// The process that started this one.
    pub pid: u32,
    /// The storage's ID.
    pub storage: String,
    /// The settings, see docs/BRIDGE.md.
    pub settings: Value,
}

/// A call of the storage plugin. Archives are named as Proxmox VE sees them, and nobody checked
/// these names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StorageCall {
    /// Opens the repository.
    Check,
    /// Makes the repository, if its folder is empty.
    Create,
    /// How much room there is.
    Status,
    /// The archives, of a guest or of a kind of guests.
    List {
        /// Of this guest alone.
        vmid: Option<u32>,
        /// Of this kind alone.
        kind: Option<GuestKind>,
    },
    /// One archive.
    Get {
        /// Which.
        archive: String,
    },
    /// Writes notes.
    SetNotes {
        /// Of which archive.
        archive: String,
        /// UTF-8, as it came.
        notes: Vec<u8>,
    },
    /// Protects an archive, or ends that.
    SetProtected {
        /// Which.
        archive: String,
        /// Whether nobody may remove it.
        protected: bool,
    },
    /// Removes an archive that is not protected.
    Free {
        /// Which.
        archive: String,
    },
}

/// How a container is handed back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContainerMechanism {
    /// `tar`: as an archive that is made when it is read.
    Tar,
    /// `directory`: as a mounted folder.
    Directory,
}

impl ContainerMechanism {
    /// The word that Proxmox VE uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Directory => "directory",
        }
    }
}

impl fmt::Display for ContainerMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
