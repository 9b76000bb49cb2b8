//! A backup provider that keeps archives in a Snapkeep repository.
//!
//! It implements the contract of `snapkeep-api` over `snapkeep-repo`, and knows neither QEMU's
//! monitor nor Proxmox VE: it runs unchanged under either host.

mod archive;
mod catalogue;
mod container;
mod disk;
mod error;
mod heads;
mod interrupt;
mod limits;
mod lineage;
mod memory;
mod names;
mod order;
mod pace;
mod panics;
mod progress;
mod provider;
mod restore;
pub mod retention;
mod task_log;
mod tree;
mod vm;

pub use catalogue::{ArchiveEntry, Catalogue, DamagedArchive, Listed};
pub use memory::{BitmapStorage, HeadMemory};
pub use names::{Namespace, archive_name, group};
pub use provider::{ChangeDetection, Observer, Options, RepositoryProvider};
