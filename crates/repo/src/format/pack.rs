//! Packs, `packs/AB/ID`: blobs, then a sealed table of what they are.
//!
//! ```text
//! 0    8   "SNAPKEEP"
//! 8    1   'P'
//! 9    1   version, 1
//! 10   1   class: 0 data, 1 metadata
//! 11   5   zero
//! 16   32  salt
//! 48   80  data: the pack's key, sealed by HPKE (enc 32, ciphertext and tag 48); metadata: zero
//! 128      blobs, one behind the other: AES-256-GCM ciphertext and tag
//! …        table: sealed entries of 48 bytes
//! end  16  length of the sealed table 4, number of entries 4, "SNAPPACK"
//! ```
//! The nonce of a blob is its number in the table, its associated data its chunk id. The table's
//! associated data is the header.

use super::bytes::{Bytes, length_u32};
use super::envelope::MAGIC;
use super::id::{ChunkId, PackId};
use crate::keys::{Cipher, Keys};
use crate::{Error, Random, Result, limits, random};

/// Length of a pack's header.
pub(crate) const HEADER: usize = 128;
/// Length of a pack's trailer.
pub(crate) const TRAILER: usize = 16;
const ENTRY: usize = 48;
const END: &[u8; 8] = b"SNAPPACK";
/// AES-GCM's tag behind each blob.
pub(crate) const TAG: usize = 16;
/// Flag of an entry whose blob is compressed with zstd.
const COMPRESSED: u32 = 1;

/// What a pack holds, and so whose key opens it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Contents and configurations of guests.
    Data,
    /// Nodes of disk maps and directory trees.
    Metadata,
}

impl Class {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Metadata => 1,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Data),
            1 => Some(Self::Metadata),
            _ => None,
        }
    }
}

/// One blob of a pack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: ChunkId,
    /// Where the ciphertext begins in the file.
    pub(crate) offset: u32,
    /// Length with the tag.
    pub(crate) stored: u32,
    /// Length before compression.
    pub(crate) plain: u32,
    pub(crate) compressed: bool,
}

impl Entry {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        self.encode_place(out);
    }

    /// All but the identity.
    pub(crate) fn encode_place(&self, out: &mut Vec<u8>) {
        let flags = if self.compressed { COMPRESSED } else { 0 };
        for number in [self.offset, self.stored, self.plain, flags] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(crate) fn decode(bytes: &mut Bytes<'_>) -> Option<Self> {
        let id = ChunkId(bytes.array()?);
        Self::decode_place(id, bytes)
    }

    /// What [`encode_place`](Self::encode_place) made, of this identity.
    pub(crate) fn decode_place(id: ChunkId, bytes: &mut Bytes<'_>) -> Option<Self> {
        let (offset, stored, plain) = (bytes.u32()?, bytes.u32()?, bytes.u32()?);
        let compressed = match bytes.u32()? {
            0 => false,
            COMPRESSED => true,
            _ => return None,
        };
        let fits = u64::from(offset) + u64::from(stored) <= limits::PACK_MAX;
        let plain_fits = plain as usize <= limits::CHUNK_MAX;
        (fits && plain_fits && stored as usize >= TAG).then_some(Self {
            id,
            offset,
            stored,
            plain,
            compressed,
        })
    }
}

/// A pack being filled.
#[derive(Debug)]
pub(crate) struct OpenPack {
    class: Class,
    header: [u8; HEADER],
    cipher: Cipher,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A pack as it is stored.
#[derive(Debug)]
pub(crate) struct SealedPack {
    pub(crate) id: PackId,
    pub(crate) class: Class,
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
}

impl OpenPack {
    /// An empty pack in this buffer, whose room is used.
    pub(crate) fn new(
        keys: &Keys,
        random: &dyn Random,
        class: Class,
        mut bytes: Vec<u8>,
    ) -> Result<Self> {
        let salt: [u8; 32] = random::fresh(random)?;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..11].copy_from_slice(&[b'P', 1, class.byte()]);
        header[16..48].copy_from_slice(&salt);
        let cipher = match class {
            Class::Metadata => keys.metadata_pack(&salt),
            Class::Data => {
                let key = zeroize::Zeroizing::new(random::fresh::<32>(random)?);
                header[48..].copy_from_slice(&keys.seal_pack_key(random, &salt, &key)?);
                Cipher::new(&key)
            }
        };
        bytes.clear();
        bytes.extend_from_slice(&header);
        Ok(Self {
            class,
            header,
            cipher,
            bytes,
            entries: Vec::new(),
        })
    }

    /// Adds a blob; its length in the pack.
    pub(crate) fn add(&mut self, id: ChunkId, blob: &[u8], plain: usize, compressed: bool) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(blob);
        self.cipher
            .seal(self.entries.len() as u64, &id.0, &mut self.bytes, start);
        let stored = self.bytes.len() - start;
        let [offset, length, plain] = [start, stored, plain].map(length_u32);
        self.entries.push(Entry {
            id,
            offset,
            stored: length,
            plain,
            compressed,
        });
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= limits::PACK_TARGET || self.entries.len() >= limits::PACK_BLOBS_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn finish(self, keys: &Keys) -> SealedPack {
        let Self {
            class,
            header,
            mut bytes,
            entries,
            ..
        } = self;
        let start = bytes.len();
        for entry in &entries {
            entry.encode(&mut bytes);
        }
        let salt = salt(&header);
        keys.pack_table(&salt).seal(0, &header, &mut bytes, start);
        let table = bytes.len() - start;
        bytes.extend_from_slice(&length_u32(table).to_le_bytes());
        bytes.extend_from_slice(&length_u32(entries.len()).to_le_bytes());
        bytes.extend_from_slice(END);
        let id = PackId(*blake3::hash(&bytes).as_bytes());
        SealedPack {
            id,
            class,
            bytes,
            entries,
        }
    }
}

fn salt(header: &[u8; HEADER]) -> [u8; 32] {
    let mut salt = [0; 32];
    salt.copy_from_slice(&header[16..48]);
    salt
}

/// The class of a pack, from the beginning of its file; `None` if it is none. No key is needed.
pub(crate) fn class(file: &[u8]) -> Option<Class> {
    let head = file.get(..16)?;
    if &head[..8] != MAGIC || head[8..10] != [b'P', 1] || head[11..] != [0; 5] {
        return None;
    }
    Class::from_byte(head[10])
}

/// The class and blob cipher that a header names; `None` if it is no header, or does not open.
pub(crate) fn open_header(keys: &Keys, header: &[u8; HEADER]) -> Option<(Class, Cipher)> {
    let class = class(header)?;
    let salt = salt(header);
    let mut sealed = [0; 80];
    sealed.copy_from_slice(&header[48..]);
    let cipher = match class {
        Class::Metadata => keys.metadata_pack(&salt),
        Class::Data => keys.open_pack_key(&salt, &sealed)?,
    };
    Some((class, cipher))
}

/// The class that a header names; `None` if it is no header, or if these keys open data and this
/// does not open. Its table is bound to all of it in any case.
pub(crate) fn check_header(keys: &Keys, header: &[u8; HEADER]) -> Option<Class> {
    match class(header)? {
        Class::Data if keys.may_read().is_err() => Some(Class::Data),
        Class::Data | Class::Metadata => open_header(keys, header).map(|(class, _)| class),
    }
}

/// The length of the sealed table, from the trailer; `None` if it is no trailer.
pub(crate) fn table_length(trailer: &[u8]) -> Option<usize> {
    let mut bytes = Bytes(trailer);
    let (table, count) = (bytes.u32()? as usize, bytes.u32()? as usize);
    let right = count <= limits::PACK_BLOBS_MAX && table == count * ENTRY + TAG;
    (right && bytes.0 == END).then_some(table)
}

/// The entries of a sealed table; blobs must lie one behind the other from the header to it.
pub(crate) fn open_table(
    keys: &Keys,
    header: &[u8; HEADER],
    table: Vec<u8>,
    table_offset: u64,
) -> Option<Vec<Entry>> {
    let body = keys.pack_table(&salt(header)).open(0, header, table)?;
    let mut bytes = Bytes(&body);
    let mut entries = Vec::with_capacity(body.len() / ENTRY);
    let mut position = HEADER as u64;
    while !bytes.is_empty() {
        let entry = Entry::decode(&mut bytes)?;
        if u64::from(entry.offset) != position {
            return None;
        }
        position += u64::from(entry.stored);
        entries.push(entry);
    }
    (position == table_offset).then_some(entries)
}

/// An error about a pack.
pub(crate) fn corrupt(id: &PackId, why: &str) -> Error {
    Error::corrupt(format!("pack {id} {why}"))
}
