//! Our end of the conversation with the Perl packages for Proxmox VE, as docs/BRIDGE.md defines it.
//!
//! ```text
//! Perl ── socket ──▶ conversation: reader │ worker ── session ──▶ job ── guest ── vm, container
//!                         ◀── log, answers ──┘            └─────▶ restores
//! ```
//!
//! The program gives a [`Backend`], which makes the provider and answers for the storage, and calls
//! [`serve`]. What callers of Proxmox VE do out of order is absorbed here, so that a provider sees
//! each call once. Nothing is ever printed.

mod backend;
mod call;
mod container;
mod conversation;
mod guest;
mod incarnation;
mod interrupt;
mod job;
mod limits;
mod log;
mod message;
mod process;
mod regions;
mod restore;
mod run_folder;
mod served;
mod session;
mod vm;

pub use backend::{Backend, ContainerMechanism, Hello, StorageCall};
pub use conversation::serve;
pub use run_folder::{FoundFolder, remove_run_folder, run_folders};
