//! Which entries of a container's tree a backup leaves out. docs/EXCLUDE.md is the reference.
//!
//! A pattern is split at its slashes into parts, and each part is held against one name. So the
//! walk down the tree carries, for each pattern, which of its parts come next, and a folder in
//! which a pattern can no longer match does not see it any more.

mod class;
mod fault;
mod file;
mod glob;
mod pattern;
mod patterns;

pub use patterns::{Decision, Patterns};

/// The name of the files, inside a container, that say what to leave out of their folder.
pub const FILE_NAME: &str = ".pxarexclude";

/// As many bytes of such a file are enough for [`Patterns::add_file`] to see that it is too large.
pub const FILE_READ_BYTES: usize = crate::limits::FILE_BYTES_MAX + 1;

/// What Proxmox VE leaves out of a container unless it is told otherwise.
pub const STANDARD: [&str; 3] = ["/tmp/?*", "/var/tmp/?*", "/var/run/?*.pid"];
