//! Index objects, `index/WRITER/NUMBER`: what lies in which pack.
//!
//! The sealed body: the number of packs (4 bytes); for each pack its id (32), class (1), three
//! zero bytes, its file's length (4), the number of its entries (4), then the entries as in the
//! pack's own table.

use super::bytes::{Bytes, length_u32};
use super::id::PackId;
use super::pack::{Class, Entry};

/// What an index object says of one pack.
#[derive(Debug)]
pub(crate) struct IndexedPack {
    pub(crate) id: PackId,
    pub(crate) class: Class,
    pub(crate) length: u32,
    pub(crate) entries: Vec<Entry>,
}

pub(crate) fn encode(packs: &[IndexedPack]) -> Vec<u8> {
    let mut out = length_u32(packs.len()).to_le_bytes().to_vec();
    for pack in packs {
        out.extend_from_slice(&pack.id.0);
        out.extend_from_slice(&[pack.class.byte(), 0, 0, 0]);
        out.extend_from_slice(&pack.length.to_le_bytes());
        out.extend_from_slice(&length_u32(pack.entries.len()).to_le_bytes());
        for entry in &pack.entries {
            entry.encode(&mut out);
        }
    }
    out
}

pub(crate) fn decode(body: &[u8]) -> Option<Vec<IndexedPack>> {
    let mut bytes = Bytes(body);
    let count = bytes.u32()?;
    let mut packs = Vec::new();
    for _ in 0..count {
        let id = PackId(bytes.array()?);
        let class = Class::from_byte(bytes.u8()?)?;
        if bytes.array::<3>()? != [0; 3] {
            return None;
        }
        let length = bytes.u32()?;
        let entries = (0..bytes.u32()?)
            .map(|_| Entry::decode(&mut bytes))
            .collect::<Option<_>>()?;
        packs.push(IndexedPack {
            id,
            class,
            length,
            entries,
        });
    }
    bytes.is_empty().then_some(packs)
}
