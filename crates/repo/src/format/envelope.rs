//! The envelope of small files: a header, a sealed body, a checksum that anyone can verify.
//!
//! ```text
//! 0   8   "SNAPKEEP"
//! 8   1   type
//! 9   1   version of the type, 1
//! 10  2   zero
//! 12  4   length of the body
//! 16      body: 32 bytes of salt, then AES-256-GCM ciphertext and its 16-byte tag
//! end 32  BLAKE3 of everything before
//! ```
//! The key is the keyed BLAKE3 of salt and a zero byte under the metadata key, the nonce is zero
//! (each salt is fresh), the associated data is the header and the file's name: a file under
//! another's name does not open.

use super::bytes::{Bytes, length_u32};
use crate::keys::Keys;
use crate::storage::FileName;
use crate::{Error, Random, Result, random};

pub(crate) const MAGIC: &[u8; 8] = b"SNAPKEEP";
const HEADER: usize = 16;
const SALT: usize = 32;
const CHECKSUM: usize = 32;

/// What a small file holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Index,
    Snapshot,
    Slot,
    Head,
    Attributes,
    Tables,
    /// What one pruning condemns.
    Generation,
    /// The marker of a sweep.
    Sweep,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Index => b'I',
            Self::Snapshot => b'S',
            Self::Slot => b'K',
            Self::Head => b'H',
            Self::Attributes => b'A',
            Self::Generation => b'G',
            Self::Sweep => b'W',
            Self::Tables => b'T',
        }
    }
}

fn header(kind: Kind, body: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8] = kind.byte();
    header[9] = 1;
    header[12..].copy_from_slice(&length_u32(body).to_le_bytes());
    header
}

fn associated(header: &[u8], name: &FileName) -> Vec<u8> {
    [header, name.as_str().as_bytes()].concat()
}

/// Seals a body under the metadata key.
pub(crate) fn seal(
    keys: &Keys,
    random: &dyn Random,
    kind: Kind,
    name: &FileName,
    body: &[u8],
) -> Result<Vec<u8>> {
    let salt: [u8; SALT] = random::fresh(random)?;
    let header = header(kind, SALT + body.len() + 16);
    let mut sealed = body.to_vec();
    keys.envelope(&salt)
        .seal(0, &associated(&header, name), &mut sealed, 0);
    let mut file = [&header[..], &salt, &sealed].concat();
    file.extend_from_slice(blake3::hash(&file).as_bytes());
    Ok(file)
}

/// Opens what [`seal`] made under this name.
pub(crate) fn open(keys: &Keys, kind: Kind, name: &FileName, file: &[u8]) -> Result<Vec<u8>> {
    let body = check(kind, name, file)?;
    let mut body = Bytes(body);
    let parts = (|| Some((body.array::<SALT>()?, body.0.to_vec())))();
    let (salt, sealed) = parts.ok_or_else(|| Error::corrupt(format!("{name} is too short")))?;
    let header = header(kind, SALT + sealed.len());
    keys.envelope(&salt)
        .open(0, &associated(&header, name), sealed)
        .ok_or_else(|| {
            Error::corrupt(format!(
                "{name} does not open: it was changed, or belongs elsewhere"
            ))
        })
}

/// Wraps a body that is not sealed (a key slot seals its own secret).
pub(crate) fn wrap(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut file = [&header(kind, body.len())[..], body].concat();
    file.extend_from_slice(blake3::hash(&file).as_bytes());
    file
}

/// Checks header and checksum of a file of any type.
pub(crate) fn check_any(name: &FileName, file: &[u8]) -> Result<()> {
    let corrupt = |why: &str| Error::corrupt(format!("{name} {why}"));
    let (before, checksum) = (file.split_last_chunk::<CHECKSUM>())
        .ok_or_else(|| corrupt("is too short for its checksum"))?;
    if blake3::hash(before) != *checksum {
        return Err(corrupt("does not match its checksum"));
    }
    match before.split_first_chunk::<HEADER>() {
        Some((header, body)) if is_header(header, body.len()) => Ok(()),
        _ => Err(corrupt("has no header of a file of a repository")),
    }
}

fn is_header(header: &[u8; HEADER], body: usize) -> bool {
    header[..8] == *MAGIC
        && header[9..12] == [1, 0, 0]
        && header[12..] == length_u32(body).to_le_bytes()
}

/// Checks header and checksum; what is between them.
pub(crate) fn check<'a>(kind: Kind, name: &FileName, file: &'a [u8]) -> Result<&'a [u8]> {
    let corrupt = |why: &str| Error::corrupt(format!("{name} {why}"));
    let (before, checksum) = (file.split_last_chunk::<CHECKSUM>())
        .ok_or_else(|| corrupt("is too short for its checksum"))?;
    if blake3::hash(before) != *checksum {
        return Err(corrupt("does not match its checksum"));
    }
    match before.split_at_checked(HEADER) {
        Some((found, body)) if found == header(kind, body.len()) => Ok(body),
        Some(_) => Err(corrupt("has a header of another type, version or length")),
        None => Err(corrupt("is too short for its header")),
    }
}
