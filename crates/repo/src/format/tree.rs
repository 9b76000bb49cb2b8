//! Nodes of directory trees, chunks of class metadata.
//!
//! ```text
//! 0  1  'D' directory, 'X' extents, 'W' witnesses
//! 1  1  version, 1
//! 2  1  level: 0 holds entries, extents or witnesses; each higher one names nodes of the next lower
//! 3  1  zero
//! 4  4  number of items, at least one
//! 8     items, one behind the other
//! ```
//! An item above level 0 is a key and the 32 bytes of a node's identity. The key of directories is
//! the first name below (length 1, name), of extents the first offset below (8). Witness nodes are
//! one for each directory node, with as many items in the same order.

pub(crate) mod entry;
pub(crate) mod extent;
pub(crate) mod witness;

use super::bytes::{Bytes, length_u32};
use super::id::ChunkId;
use crate::{Error, limits};

/// Length of a node's header.
pub(crate) const HEADER: usize = 8;

/// What a node is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Directory,
    Extents,
    Witness,
}

impl Role {
    fn byte(self) -> u8 {
        match self {
            Self::Directory => b'D',
            Self::Extents => b'X',
            Self::Witness => b'W',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Directory => "directory node",
            Self::Extents => "extent node",
            Self::Witness => "witness node",
        }
    }

    /// The error about a node.
    pub(crate) fn corrupt(self, id: &ChunkId, why: &str) -> Error {
        Error::corrupt(format!("{} {id} {why}", self.word()))
    }
}

/// A node's header.
pub(crate) fn header(role: Role, level: u8, items: usize) -> [u8; HEADER] {
    let mut header = [role.byte(), 1, level, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&length_u32(items).to_le_bytes());
    header
}

/// The level, number of items, and items of a node.
pub(crate) fn open(role: Role, body: &[u8]) -> Result<(u8, usize, Bytes<'_>), &'static str> {
    if body.len() > limits::TREE_NODE_MAX {
        return Err("is larger than is allowed");
    }
    let mut bytes = Bytes(body);
    let head: [u8; 4] = bytes.array().ok_or("is too short")?;
    let items = bytes.u32().ok_or("is too short")? as usize;
    if head[0] != role.byte() || head[1] != 1 || head[3] != 0 {
        return Err("has another type or version");
    }
    if head[2] >= limits::TREE_LEVELS_MAX {
        return Err("has a higher level than is allowed");
    }
    // Every item has more than one byte but a witness that says nothing.
    if items == 0 || items > bytes.0.len() {
        return Err("has an impossible number of items");
    }
    Ok((head[2], items, bytes))
}

/// Why a node ends before its items do.
pub(crate) const SHORT: &str = "is cut short";

/// Fails if something follows the last item.
pub(crate) fn end(bytes: Bytes<'_>) -> Result<(), &'static str> {
    if bytes.is_empty() {
        Ok(())
    } else {
        Err("goes on behind its last item")
    }
}
