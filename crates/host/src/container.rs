//! Containers on a host without Proxmox VE: their configuration, standing still while their tree is
//! read, and taking everything back whatever becomes of the backup.
//!
//! A backup changes a container only under its lock, and only after the change is in its journal;
//! a guard, which is a process of its own, takes back what a killed backup had changed. Taking back
//! is the same for everybody: `undo`.

mod backup;
mod command;
mod config;
mod guard;
mod journal;
mod left;
mod life;
pub mod limits;
mod lines;
mod lock;
mod lxc;
mod mode;
mod new;
mod pass;
mod place;
mod restored;
mod session;
mod snapshot;
mod undo;

pub use backup::{Container, ContainerRequest, FinishedContainer, MakeSource, back_up_container};
pub use config::{LxcConfig, Mount};
pub use guard::{GuardProgram, guard};
pub use left::left;
pub use lxc::Lxc;
pub use mode::{Mode, Way};
pub use new::{NewContainer, new_container};
pub use restored::{RestorePolicy, RestoredConfig, restored_config};
pub use session::Safety;
