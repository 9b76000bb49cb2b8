//! Tables of the index, `tables/SEQUENCE-RANDOM/…`: what lies in which pack, in order of
//! identities, for repositories whose index should not be in memory as a whole.
//!
//! ```text
//! 0    8   "SNAPKEEP"
//! 8    1   'E'
//! 9    1   version, 1
//! 10   6   zero
//! 16   32  salt
//! 48       blocks of 256 entries, the last of fewer: AES-256-GCM ciphertext and tag, nonces 1, 2, …
//! …        directory: sealed, nonce 0
//! end  16  length of the sealed directory 8, "SNAPTABL"
//! ```
//! An entry has 56 bytes: identity 32, number of the pack among those of the generation 4, number
//! in the pack 4, offset 4, length with tag 4, length before compression 4, flags 4. The directory:
//! number of entries 4, the first identity of each block, number of the filter's lines 4, the
//! lines of 64 bytes. Associated data of all is the header and the file's name.

use std::ops::Range;

use super::bytes::{Bytes, length_u32};
use super::envelope::MAGIC;
use super::id::{ChunkId, PackId};
use super::pack::{Class, Entry};
use crate::limits;

/// Length of a table's header.
pub(crate) const HEADER: usize = 48;
/// Length of a table's trailer.
pub(crate) const TRAILER: usize = 16;
/// Entries of a block.
pub(crate) const BLOCK: usize = 256;
const ENTRY: usize = 56;
const TAG: usize = 16;
const END: &[u8; 8] = b"SNAPTABL";
const LINE: usize = 64;
/// Bits of the filter for each entry.
const FILTER_BITS: usize = 12;

/// One blob.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TableEntry {
    /// The number of its pack among those of the generation.
    pub(crate) pack: u32,
    /// Its number in the pack.
    pub(crate) number: u32,
    pub(crate) entry: Entry,
}

impl TableEntry {
    /// In this order entries lie in a table.
    pub(crate) fn rank(&self) -> (ChunkId, u32, u32) {
        (self.entry.id, self.pack, self.number)
    }
}

/// The header of a new table.
pub(crate) fn header(salt: &[u8; 32]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(b"E\x01");
    header[16..].copy_from_slice(salt);
    header
}

/// The salt in a header; `None` if it is none.
pub(crate) fn salt(found: &[u8; HEADER]) -> Option<[u8; 32]> {
    let salt = *found.last_chunk::<32>()?;
    (header(&salt) == *found).then_some(salt)
}

/// Where a block lies in the file of a table with so many entries, with its tag.
pub(crate) fn block_range(number: usize, entries: usize) -> Range<u64> {
    let whole = BLOCK * ENTRY + TAG;
    let start = HEADER + number * whole;
    let inside = entries.saturating_sub(number * BLOCK).min(BLOCK);
    start as u64..(start + inside * ENTRY + TAG) as u64
}

/// Blocks of a table with so many entries.
pub(crate) fn blocks(entries: usize) -> usize {
    entries.div_ceil(BLOCK)
}

pub(crate) fn encode_block(entries: &[TableEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * ENTRY + TAG);
    for TableEntry {
        pack,
        number,
        entry,
    } in entries
    {
        out.extend_from_slice(&entry.id.0);
        out.extend_from_slice(&pack.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        entry.encode_place(&mut out);
    }
    out
}

fn decode_entry(bytes: &mut Bytes<'_>) -> Option<TableEntry> {
    let id = ChunkId(bytes.array()?);
    let (pack, number) = (bytes.u32()?, bytes.u32()?);
    let entry = Entry::decode_place(id, bytes)?;
    Some(TableEntry {
        pack,
        number,
        entry,
    })
}

/// The entries of a block; `None` if it holds anything else, or not in order.
pub(crate) fn decode_block(body: &[u8]) -> Option<Vec<TableEntry>> {
    let mut bytes = Bytes(body);
    let mut entries: Vec<TableEntry> = Vec::with_capacity(body.len() / ENTRY);
    while !bytes.is_empty() {
        let next = decode_entry(&mut bytes)?;
        if entries
            .last()
            .is_some_and(|last| last.rank() >= next.rank())
        {
            return None;
        }
        entries.push(next);
    }
    Some(entries)
}

/// The entries of an identity in a block that opened, without the others.
pub(crate) fn find_in_block(body: &[u8], id: &ChunkId) -> Option<Vec<TableEntry>> {
    let (entries, rest) = body.as_chunks::<ENTRY>();
    let first = entries.partition_point(|entry| entry[..32] < id.0[..]);
    let same = entries[first..]
        .iter()
        .take_while(|entry| entry[..32] == id.0);
    let found: Option<Vec<_>> = same.map(|entry| decode_entry(&mut Bytes(entry))).collect();
    found.filter(|_| rest.is_empty())
}

/// What a table has in memory.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Directory {
    pub(crate) entries: usize,
    /// The first identity of each block.
    pub(crate) first: Vec<ChunkId>,
    pub(crate) filter: Filter,
}

impl Directory {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = length_u32(self.entries).to_le_bytes().to_vec();
        for id in &self.first {
            out.extend_from_slice(&id.0);
        }
        out.extend_from_slice(&length_u32(self.filter.0.len()).to_le_bytes());
        for word in self.filter.0.iter().flatten() {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(body);
        let entries = bytes.u32()? as usize;
        if entries == 0 || entries > limits::TABLE_ENTRIES {
            return None;
        }
        let first = (0..blocks(entries))
            .map(|_| bytes.array().map(ChunkId))
            .collect::<Option<Vec<_>>>()?;
        let lines = bytes.u32()? as usize;
        if lines == 0 || lines.checked_mul(LINE)? != bytes.0.len() {
            return None;
        }
        let (lines, _) = bytes.0.as_chunks::<LINE>();
        let line = |line: &[u8; LINE]| {
            let (words, _) = line.as_chunks::<8>();
            let mut filled = [0; LINE / 8];
            for (word, bytes) in filled.iter_mut().zip(words) {
                *word = u64::from_le_bytes(*bytes);
            }
            filled
        };
        let filter = Filter(lines.iter().map(line).collect());
        Some(Self {
            entries,
            first,
            filter,
        })
    }
}

/// The last bytes of a table.
pub(crate) fn trailer(directory: usize) -> [u8; TRAILER] {
    let mut out = [0; TRAILER];
    out[..8].copy_from_slice(&(directory as u64).to_le_bytes());
    out[8..].copy_from_slice(END);
    out
}

/// The length of the sealed directory, by the last bytes.
pub(crate) fn directory_length(trailer: &[u8]) -> Option<u64> {
    let mut bytes = Bytes(trailer);
    let length = bytes.u64()?;
    (bytes.0 == END).then_some(length)
}

/// Says of most identities that are not in a table that they are not: a Bloom filter whose bits of
/// one identity lie in one line of the processor's cache.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Filter(Vec<[u64; LINE / 8]>);

impl Filter {
    /// An empty one for so many identities.
    pub(crate) fn new(entries: usize) -> Self {
        let lines = (entries * FILTER_BITS).div_ceil(LINE * 8).max(1);
        Self(vec![[0; LINE / 8]; lines])
    }

    pub(crate) fn insert(&mut self, id: &ChunkId) {
        let line = self.line(id);
        for (word, bit) in bits(id) {
            self.0[line][word] |= bit;
        }
    }

    pub(crate) fn may_contain(&self, id: &ChunkId) -> bool {
        let line = &self.0[self.line(id)];
        bits(id).all(|(word, bit)| line[word] & bit != 0)
    }

    /// By bytes 16 to 19: those at the beginning are about the same in all of a table.
    fn line(&self, id: &ChunkId) -> usize {
        let mut bytes = Bytes(&id.0[16..]);
        bytes.u32().unwrap_or_default() as usize % self.0.len()
    }
}

/// Words of a line and bits in them: the low nine bits of bytes 4 and 5, 6 and 7, … 14 and 15.
fn bits(id: &ChunkId) -> impl Iterator<Item = (usize, u64)> + '_ {
    (4..16).step_by(2).map(|at| {
        let bit = usize::from(u16::from_le_bytes([id.0[at], id.0[at + 1]]) & 0x1ff);
        (bit / 64, 1 << (bit % 64))
    })
}

/// What a generation of tables covers: written last, so that one without it is none.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Cover {
    /// Files with packs.
    pub(crate) packs: u32,
    /// Of each file with entries how many, and its first identity.
    pub(crate) tables: Vec<(u32, ChunkId)>,
    /// Writers, and which of their index objects are merged here: from, and up to but not with.
    pub(crate) writers: Vec<([u8; 16], Range<u32>)>,
}

impl Cover {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.packs.to_le_bytes().to_vec();
        out.extend_from_slice(&length_u32(self.tables.len()).to_le_bytes());
        for (entries, first) in &self.tables {
            out.extend_from_slice(&entries.to_le_bytes());
            out.extend_from_slice(&first.0);
        }
        out.extend_from_slice(&length_u32(self.writers.len()).to_le_bytes());
        for (writer, objects) in &self.writers {
            out.extend_from_slice(writer);
            out.extend_from_slice(&objects.start.to_le_bytes());
            out.extend_from_slice(&objects.end.to_le_bytes());
        }
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(body);
        let packs = bytes.u32()?;
        let tables = (0..bytes.u32()?)
            .map(|_| Some((bytes.u32()?, ChunkId(bytes.array()?))))
            .collect::<Option<Vec<_>>>()?;
        let writers = (0..bytes.u32()?)
            .map(|_| Some((bytes.array()?, bytes.u32()?..bytes.u32()?)))
            .collect::<Option<Vec<_>>>()?;
        let ascending = tables.is_sorted_by(|a, b| a.1 <= b.1);
        (bytes.is_empty() && ascending).then_some(Self {
            packs,
            tables,
            writers,
        })
    }
}

/// A pack as a generation of tables names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TablePack {
    pub(crate) id: PackId,
    pub(crate) class: Class,
    pub(crate) length: u32,
}

pub(crate) fn encode_packs(packs: &[TablePack]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + packs.len() * 40);
    out.extend_from_slice(&length_u32(packs.len()).to_le_bytes());
    for pack in packs {
        out.extend_from_slice(&pack.id.0);
        out.extend_from_slice(&[pack.class.byte(), 0, 0, 0]);
        out.extend_from_slice(&pack.length.to_le_bytes());
    }
    out
}

pub(crate) fn decode_packs(body: &[u8]) -> Option<Vec<TablePack>> {
    let mut bytes = Bytes(body);
    let count = bytes.u32()?;
    let packs = (0..count)
        .map(|_| {
            let id = PackId(bytes.array()?);
            let class = Class::from_byte(bytes.u8()?)?;
            if bytes.array::<3>()? != [0; 3] {
                return None;
            }
            let length = bytes.u32()?;
            Some(TablePack { id, class, length })
        })
        .collect::<Option<Vec<_>>>()?;
    bytes.is_empty().then_some(packs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> ChunkId {
        ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn entry(number: u64) -> TableEntry {
        let entry = Entry {
            id: id(number),
            offset: 128,
            stored: 100,
            plain: 300,
            compressed: number.is_multiple_of(2),
        };
        TableEntry {
            pack: 7,
            number: 9,
            entry,
        }
    }

    #[test]
    fn the_filter_knows_what_was_put_in_and_little_else() {
        // In one of many tables the first bytes are the same.
        let id = |number| {
            let mut id = id(number);
            id.0[0] = 7;
            id.0[1] &= 3;
            id
        };
        let mut filter = Filter::new(10_000);
        (0..10_000).for_each(|number| filter.insert(&id(number)));
        assert!((0..10_000).all(|number| filter.may_contain(&id(number))));
        let wrong = (10_000..110_000).filter(|number| filter.may_contain(&id(*number)));
        let wrong = wrong.count();
        assert!(wrong < 2_000, "{wrong} of 100,000");
    }

    #[test]
    fn blocks_directories_covers_and_packs_are_read_as_they_were_written() {
        let mut entries: Vec<_> = (0..300).map(entry).collect();
        entries.sort_by_key(TableEntry::rank);
        let block = encode_block(&entries);
        assert_eq!(decode_block(&block).expect("whole"), entries);
        for entry in &entries {
            let found = find_in_block(&block, &entry.entry.id).expect("whole");
            assert_eq!(found, [*entry]);
        }
        assert_eq!(find_in_block(&block, &id(300)).expect("whole"), []);
        assert!(decode_block(&block[1..]).is_none());
        entries.swap(4, 5);
        assert!(decode_block(&encode_block(&entries)).is_none());
        let mut filter = Filter::new(300);
        filter.insert(&id(1));
        let directory = Directory {
            entries: 300,
            first: vec![id(1), id(2)],
            filter,
        };
        let body = directory.encode();
        assert_eq!(Directory::decode(&body).expect("whole"), directory);
        let cover = Cover {
            packs: 1,
            tables: vec![(300, id(1))],
            writers: vec![([3; 16], 2..5)],
        };
        let cover_body = cover.encode();
        assert_eq!(Cover::decode(&cover_body).expect("whole"), cover);
        let packs = [TablePack {
            id: PackId([9; 32]),
            class: Class::Metadata,
            length: 500,
        }];
        let packs_body = encode_packs(&packs);
        assert_eq!(decode_packs(&packs_body).expect("whole"), packs);
        for length in 0..body.len() {
            assert!(Directory::decode(&body[..length]).is_none());
        }
        for length in 0..cover_body.len() {
            assert!(Cover::decode(&cover_body[..length]).is_none());
        }
        for length in 0..packs_body.len() {
            assert!(decode_packs(&packs_body[..length]).is_none());
        }
    }

    #[test]
    fn blocks_lie_one_behind_the_other() {
        assert_eq!(block_range(0, 1), 48..48 + 56 + 16);
        assert_eq!(block_range(0, 257), 48..48 + 256 * 56 + 16);
        assert_eq!(block_range(1, 257).start, block_range(0, 257).end);
        assert_eq!((blocks(256), blocks(257)), (1, 2));
    }
}
