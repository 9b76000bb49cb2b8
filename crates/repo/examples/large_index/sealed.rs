//! Index objects, written from FORMAT.md and by nothing of the repository's own code.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use snapkeep_repo::{ChunkId, FileName, Random as _, RecoveryKit, SystemRandom};

use super::Fallible;
use super::pretended::{LENGTH, pack};

/// The repository's metadata key.
pub(crate) struct Sealer([u8; 32]);

impl Sealer {
    pub(crate) fn new(kit: &RecoveryKit) -> Fallible<Self> {
        let text = kit.to_text();
        let digits = text.strip_prefix("snapkeep-recovery-1").ok_or("no kit")?;
        let digits: Vec<u8> = digits
            .bytes()
            .filter(|digit| *digit != b'-')
            .take(64)
            .collect();
        let mut root = [0; 32];
        for (byte, pair) in root.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
        }
        Ok(Self(blake3::derive_key("snapkeep 1 metadata", &root)))
    }

    /// The index object with this number of a writer of its own, of packs with these chunks.
    pub(crate) fn index_object(
        &self,
        number: u64,
        packs: &[(u64, Vec<ChunkId>)],
    ) -> Fallible<(FileName, Vec<u8>)> {
        let mut body = u32::try_from(packs.len())?.to_le_bytes().to_vec();
        for (number, chunks) in packs {
            body.extend(pack(*number).as_bytes());
            body.extend([0; 4]);
            body.extend(LENGTH.to_le_bytes());
            body.extend(u32::try_from(chunks.len())?.to_le_bytes());
            for (place, id) in (0u32..).zip(chunks) {
                body.extend(id.as_bytes());
                for number in [128 + place * 160_000, 160_000, 256 << 10, 1] {
                    body.extend(number.to_le_bytes());
                }
            }
        }
        let name: FileName = format!("index/{number:032x}/00000000").parse()?;
        let mut salt = [0; 32];
        SystemRandom.fill(&mut salt)?;
        let mut file = b"SNAPKEEPI\x01\0\0".to_vec();
        file.extend(u32::try_from(32 + body.len() + 16)?.to_le_bytes());
        let associated = [&file[..], name.as_str().as_bytes()].concat();
        let key = blake3::keyed_hash(&self.0, &[&salt[..], &[0]].concat());
        let key = UnboundKey::new(&AES_256_GCM, key.as_bytes())?;
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::from(associated), &mut body)?;
        file.extend(salt);
        file.extend(body);
        file.extend(blake3::hash(&file).as_bytes());
        Ok((name, file))
    }
}
