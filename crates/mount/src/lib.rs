//! Archives as a read-only file system of the kernel (FUSE).
//!
//! What is mounted is a [`Node`]: a container's tree ([`Node::Tree`]), or folders of one's own
//! ([`Folder`]) that lead to trees and to files whose bytes are made when they are read
//! ([`RandomRead`]: a disk, a tar stream).
//!
//! ```text
//! mount(target, Node) ──▶ Mounted ── wait(cancel) ── unmount / drop
//!         │
//!    fuser's threads ── fs ──▶ table: what the kernel knows ──▶ inode ──▶ TreeReader, Folder, RandomRead
//! ```
//!
//! What cannot be read is `EIO` for whoever asked, and is told to the caller once for each entry;
//! it never becomes zeroes, and the rest stays readable. Inode numbers follow from paths alone, so
//! they are the same at each mount; two paths that would share one (of 2^64) are kept apart while
//! both are known to the kernel, and only then may the later one's number differ at another mount.
//!
//! Memory: for each entry that the kernel remembers, and until it forgets it, a few hundred bytes
//! (less than the kernel itself needs for it); for each open folder a batch of its entries.
//!
//! When the process dies, the mount stays and answers `Transport endpoint is not connected`;
//! [`cleanup`] removes it.

mod cursor;
mod found;
mod fs;
mod holes;
mod inode;
mod limits;
mod location;
mod mounted;
mod mountinfo;
mod node;
mod problems;
mod table;
mod target;

pub use found::{Found, Service, found};
pub use mounted::{Mounted, Options, Unmounted, Waited, mount};
pub use node::{FixedFolder, Folder, Node, RandomRead, VolumeFile};
pub use problems::OnProblem;
pub use target::cleanup;
