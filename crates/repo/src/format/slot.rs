//! Key slots, `keys/ID`: the root key, sealed under a passphrase or a key file, or lying open.
//!
//! The body is JSON: `kind`, and for the sealed kinds `salt` and `sealed` (AES-256-GCM, nonce
//! zero, associated data `snapkeep 1 key slot`, of the 32-byte root key), in hexadecimal. The
//! slot's key is argon2id of passphrase and salt, or the keyed BLAKE3 of the salt under the key
//! file's bytes.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::bytes::{hex, unhex};
use crate::keys::{Cipher, KeyFile, Keys};
use crate::{Error, ErrorKind, Random, Result, limits, random};

const ASSOCIATED: &[u8] = b"snapkeep 1 key slot";
/// A key slot.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Slot {
    Passphrase {
        argon2id: Stretch,
        salt: String,
        sealed: String,
    },
    KeyFile {
        salt: String,
        sealed: String,
    },
    Open {
        root: String,
    },
}

/// What opening by a passphrase costs: the parameters of argon2id.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stretch {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes that could be computed at once.
    pub lanes: u32,
}

impl Default for Stretch {
    /// What new slots get: 64 MiB, three passes, one lane.
    fn default() -> Self {
        Self {
            memory_kib: 64 << 10,
            passes: 3,
            lanes: 1,
        }
    }
}

impl Stretch {
    fn key(self, passphrase: &str, salt: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
        let within = self.memory_kib <= limits::ARGON2_MEMORY_KIB_MAX
            && self.passes <= limits::ARGON2_PASSES_MAX
            && self.lanes <= limits::ARGON2_LANES_MAX;
        if !within {
            return Err(Error::corrupt(
                "a key slot asks for more work than is allowed",
            ));
        }
        let failed = |e: argon2::Error| {
            Error::new(
                ErrorKind::Invalid,
                format!("cannot stretch the passphrase: {e}"),
            )
        };
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(failed)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
            .map_err(failed)?;
        Ok(key)
    }
}

fn file_key(file: &KeyFile, salt: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*blake3::keyed_hash(&file.0, salt).as_bytes())
}

impl Slot {
    pub(crate) fn passphrase(
        random: &dyn Random,
        keys: &Keys,
        passphrase: &str,
        cost: Stretch,
    ) -> Result<Self> {
        let salt = random::fresh(random)?;
        let key = cost.key(passphrase, &salt)?;
        Ok(Self::Passphrase {
            argon2id: cost,
            salt: hex(&salt),
            sealed: seal(&key, keys),
        })
    }

    pub(crate) fn key_file(random: &dyn Random, keys: &Keys, file: &KeyFile) -> Result<Self> {
        let salt = random::fresh(random)?;
        Ok(Self::KeyFile {
            salt: hex(&salt),
            sealed: seal(&file_key(file, &salt), keys),
        })
    }

    pub(crate) fn open(keys: &Keys) -> Self {
        Self::Open {
            root: hex(keys.root()),
        }
    }

    /// The word for its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Passphrase { .. } => "passphrase",
            Self::KeyFile { .. } => "key-file",
            Self::Open { .. } => "open",
        }
    }

    /// The root key, if the passphrase opens this slot.
    pub(crate) fn try_passphrase(&self, passphrase: &str) -> Result<Option<Zeroizing<[u8; 32]>>> {
        match self {
            Self::Passphrase {
                argon2id,
                salt,
                sealed,
            } => {
                let key = argon2id.key(passphrase, &salt_of(salt)?)?;
                Ok(unseal(&key, sealed))
            }
            Self::KeyFile { .. } | Self::Open { .. } => Ok(None),
        }
    }

    /// The root key, if the key file opens this slot.
    pub(crate) fn try_key_file(&self, file: &KeyFile) -> Result<Option<Zeroizing<[u8; 32]>>> {
        match self {
            Self::KeyFile { salt, sealed } => Ok(unseal(&file_key(file, &salt_of(salt)?), sealed)),
            Self::Passphrase { .. } | Self::Open { .. } => Ok(None),
        }
    }

    /// The root key, if it lies open.
    pub(crate) fn try_open(&self) -> Option<Zeroizing<[u8; 32]>> {
        match self {
            Self::Open { root } => unhex(root).map(Zeroizing::new),
            Self::Passphrase { .. } | Self::KeyFile { .. } => None,
        }
    }
}

fn salt_of(text: &str) -> Result<[u8; 32]> {
    unhex(text).ok_or_else(|| Error::corrupt("a key slot has no proper salt"))
}

fn seal(key: &[u8; 32], keys: &Keys) -> String {
    let mut sealed = keys.root().to_vec();
    Cipher::new(key).seal(0, ASSOCIATED, &mut sealed, 0);
    hex(&sealed)
}

fn unseal(key: &[u8; 32], sealed: &str) -> Option<Zeroizing<[u8; 32]>> {
    let sealed: [u8; 48] = unhex(sealed)?;
    let root = Zeroizing::new(Cipher::new(key).open(0, ASSOCIATED, sealed.to_vec())?);
    let mut copy = Zeroizing::new([0; 32]);
    (root.len() == copy.len()).then(|| copy.copy_from_slice(&root))?;
    Some(copy)
}
