//! A tree as a tar archive, in the format that GNU tar calls `posix`: pax headers for what the old
//! header has no room for.
//!
//! Extended attributes are records `SCHILY.xattr.*`, ACLs `SCHILY.acl.access` and
//! `SCHILY.acl.default` with numbers for their users and groups, and a file with holes is in the
//! sparse format 1.0. So `tar -xp --numeric-owner --acls --xattrs --xattrs-include='*'` extracts what
//! was there; without the last flag, GNU tar loses file capabilities. Members are named from `./` on.
//! A tar archive cannot hold sockets, which are left out and reported, nor
//! inode flags, which are counted; GNU tar itself does not extract paths of 4096 bytes or more.

mod file;
mod header;
mod member;
mod pax;
mod stream;

pub use file::TarFile;
pub use stream::write_tar;

use snapkeep_api::tree::TreePath;

/// What a tar archive holds, and what it cannot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TarReport {
    /// Members.
    pub members: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// Sockets, which are left out.
    pub sockets: u64,
    /// The first thousand of their paths, or fewer if they are very long.
    pub socket_paths: Vec<TreePath>,
    /// Members whose inode flags are lost.
    pub flags_lost: u64,
}
