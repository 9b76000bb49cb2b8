//! The repository: chunks, packs, an index, disk maps and snapshots, as files written once.
//!
//! `docs/FORMAT.md` is the definition; the module `format` has one file for each type it
//! describes, and nothing else knows a byte offset. A [`Repository`] is opened on a [`Storage`];
//! a [`Writer`] stores chunks and commits a snapshot; [`DiskReader`] reads a disk of a snapshot
//! at any offset. The crate knows no guest's host, no protocol and no environment: its caller passes
//! time and [`Random`]. A [`Clock`] only tells it how long something took, and waits.

mod attributes;
mod buffers;
mod clock;
mod copy;
mod deliver;
mod error;
mod format;
mod heads;
#[cfg(test)]
mod hostile;
mod index;
mod inventory;
mod keys;
mod late;
pub mod limits;
mod map;
mod marks;
mod parallel;
mod prune;
mod random;
mod reader;
mod repair;
mod repository;
mod runs;
mod slots;
mod storage;
mod tree;
mod verify;
mod whole;
mod writer;

pub use attributes::ArchiveAttributes;
pub use clock::{Clock, MachineClock};
pub use copy::{Copier, CopyOutcome};
pub use deliver::{DeliverError, DiskPart};
pub use error::{Error, ErrorKind, Result};
pub use format::attributes::{
    AttributeChange, TaskLogRecord, Verification, VerificationMode, VerificationState,
};
pub use format::config::{Config, FORMAT_VERSION};
pub use format::head::{HeadName, HeadPlace};
pub use format::id::{ChunkId, PackId};
pub use format::pack::Class;
pub use format::slot::Stretch;
pub use format::snapshot::{BlobRef, DiskRecord, Lineage, Origin, Snapshot, SnapshotName, Stats};
pub use index::{Merge, Merged};
pub use inventory::{Chunks, Inventory, take_inventory};
pub use keys::{KeyFile, RecoveryKit, Unlock};
pub use map::{MAP_FAN_OUT, update_map};
pub use prune::leaving::leaving;
pub use prune::{Ahead, Amount, Marked, PruneOptions, PruneReport, Swept, Waiting, prune};
pub use random::{Random, SystemRandom};
pub use reader::{DiskReader, Leaf};
pub use repair::{
    ArchiveDamage, AttributeDamage, Lost, PackDamage, RepairPlan, Repaired, apply_repair,
    plan_repair, rebuild_index, recover_config,
};
pub use repository::{Repository, unproven_config};
pub use slots::{KeySlot, Protect};
pub use storage::{
    Cached, Counted, Entry, FaultPoint, Faulty, FileName, Files, LeftFile, LocalStorage,
    MemoryStorage, Storage, SystemFiles, Tally, already_there, broken_promises, left_files,
    remove_left_file, too_long,
};
pub use tree::{
    Attributes, NodeKind, Timestamp, TreeCounts, TreeDirectory, TreeFile, TreeNode, TreeReader,
    TreeRecord, TreeWriter, Witness, Witnessed, WitnessedDirectory, write_tree,
};
pub use verify::{
    Damage, Depth, Follow, KeylessReport, Report, is_verified_since, keep_verification, verify,
    verify_with, verify_without_key,
};
pub use writer::{Stored, Worker, Writer};
