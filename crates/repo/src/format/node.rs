//! A node of a disk's map: which of 64 children are not all zeroes, and their chunk ids.
//!
//! Eight bytes, little-endian: bit *i* is set if child *i* is there; then 32 bytes for each set
//! bit, in order. A node without children is never stored. On the lowest level a child is a data
//! chunk, above it a node.

use super::bytes::Bytes;
use super::id::ChunkId;

/// Children of a node.
pub(crate) const FAN_OUT: usize = 64;

/// The children of one node; `None` is all zeroes.
pub(crate) type Children = [Option<ChunkId>; FAN_OUT];

pub(crate) fn encode(children: &Children) -> Vec<u8> {
    let mut present = 0u64;
    let mut body = vec![0; 8];
    for (number, child) in children.iter().enumerate() {
        if let Some(id) = child {
            present |= 1 << number;
            body.extend_from_slice(&id.0);
        }
    }
    body[..8].copy_from_slice(&present.to_le_bytes());
    body
}

pub(crate) fn decode(body: &[u8]) -> Option<Children> {
    let mut bytes = Bytes(body);
    let present = bytes.u64()?;
    let mut children = [None; FAN_OUT];
    for (number, child) in children.iter_mut().enumerate() {
        if present >> number & 1 == 1 {
            *child = Some(ChunkId(bytes.array()?));
        }
    }
    (present != 0 && bytes.is_empty()).then_some(children)
}
