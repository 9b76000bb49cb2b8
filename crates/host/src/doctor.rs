//! What killed jobs leave on a host: found, told whose it is, and healed if the caller asks for it.
//!
//! Looking changes nothing. What is healed is looked at once more before, by the code that the next
//! backup would heal it with; what a job that lives uses, or another product made, is only told.

mod finding;
mod fleecing;
mod proxmox;
mod qemu;

pub use crate::container::left as containers;
pub use crate::process::identity;
pub use finding::{Finding, Owner, PRODUCT, Remedy, State};
pub use fleecing::fleecing;
pub use proxmox::{Proxmox, fleecing_of_proxmox};
pub use qemu::{InQemu, Monitor, qemu};
