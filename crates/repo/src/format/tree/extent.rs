//! Extents, 48 bytes: offset in the file 8, identity of a chunk of class data 32, offset in the
//! chunk 4, length 4; and the nodes that hold those of large files.

use super::{Role, SHORT, end, open};
use crate::format::bytes::Bytes;
use crate::format::id::ChunkId;
use crate::tree::Extent;

/// Bytes of an extent.
pub(crate) const LENGTH: usize = 48;

/// A decoded extent node.
#[derive(Debug)]
pub(crate) struct ExtentNode {
    pub(crate) level: u8,
    pub(crate) items: Items,
}

/// The items of an extent node: never none, in order of offsets.
#[derive(Debug)]
pub(crate) enum Items {
    Extents(Vec<Extent>),
    /// The first offset below each node.
    Children(Vec<(u64, ChunkId)>),
}

impl ExtentNode {
    /// Whether it is the one that a node of this level names with this first offset.
    pub(crate) fn is_below(&self, level: u8, first: u64) -> bool {
        self.level + 1 == level && self.first() == first
    }

    /// The first offset in the node or below it.
    pub(crate) fn first(&self) -> u64 {
        match &self.items {
            Items::Extents(extents) => extents.first().map_or(0, |extent| extent.offset),
            Items::Children(children) => children.first().map_or(0, |child| child.0),
        }
    }
}

pub(crate) fn encode(extent: &Extent, out: &mut Vec<u8>) {
    out.extend_from_slice(&extent.offset.to_le_bytes());
    out.extend_from_slice(&extent.chunk.0);
    out.extend_from_slice(&extent.within.to_le_bytes());
    out.extend_from_slice(&extent.length.to_le_bytes());
}

pub(crate) fn take(bytes: &mut Bytes<'_>) -> Result<Extent, &'static str> {
    Ok(Extent {
        offset: bytes.u64().ok_or(SHORT)?,
        chunk: ChunkId(bytes.array().ok_or(SHORT)?),
        within: bytes.u32().ok_or(SHORT)?,
        length: bytes.u32().ok_or(SHORT)?,
    })
}

/// Decodes an extent node. That its extents lie in the file and do not overlap is for the reader
/// to check, who knows what is before and behind it.
pub(crate) fn decode(body: &[u8]) -> Result<ExtentNode, &'static str> {
    let (level, count, mut bytes) = open(Role::Extents, body)?;
    let items = if level == 0 {
        let extents = (0..count).map(|_| take(&mut bytes));
        Items::Extents(extents.collect::<Result<_, _>>()?)
    } else {
        let children = (0..count).map(|_| {
            let offset = bytes.u64().ok_or(SHORT)?;
            Ok((offset, ChunkId(bytes.array().ok_or(SHORT)?)))
        });
        let children = children.collect::<Result<Vec<_>, &'static str>>()?;
        if !children.is_sorted_by(|(one, _), (two, _)| one < two) {
            return Err("has offsets that are not in order");
        }
        Items::Children(children)
    };
    end(bytes)?;
    Ok(ExtentNode { level, items })
}
