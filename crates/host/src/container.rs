//! Containers on a host without Proxmox VE.

mod config;
mod idmap;
pub mod limits;
mod lines;

pub use config::{LxcConfig, Mount, Rootfs};
pub use idmap::{IdKind, IdMap, IdRange};
