//! Key slots, `keys/ID`: the root key, sealed under a passphrase or a key file, or lying open; or
//! what a host needs that may only write, sealed under a key file.
//!
//! The body is JSON: `kind`, and for the sealed kinds `salt` and `sealed` (AES-256-GCM, nonce
//! zero), in hexadecimal. The slot's key is argon2id of passphrase and salt, or the keyed BLAKE3 of
//! the salt under the key file's bytes. `label` tells people whose it is.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::bytes::{hex, unhex, unhex_to};
use super::pack::TAG;
use crate::keys::{Cipher, KeyFile, Keys, WRITER_SECRETS};
use crate::{Error, ErrorKind, Random, Result, limits, random};

/// What a sealed root key is bound to.
const ROOT: &[u8] = b"snapkeep 1 key slot";
/// What the sealed keys of a host are bound to that may only write.
const WRITER: &[u8] = b"snapkeep 1 writer slot";

/// A key slot.
#[derive(Debug)]
pub(crate) struct Slot {
    lock: Lock,
    label: Option<Label>,
}

/// What is locked, and how.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Lock {
    Passphrase {
        argon2id: Stretch,
        salt: String,
        sealed: String,
    },
    KeyFile {
        salt: String,
        sealed: String,
    },
    Writer {
        salt: String,
        sealed: String,
    },
    Open {
        root: String,
    },
}

/// Whose a slot is, for people: it lies in the clear, so its MAC says that a key's holder wrote it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Label {
    text: String,
    mac: String,
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
        Ok(Self::of(Lock::Passphrase {
            argon2id: cost,
            salt: hex(&salt),
            sealed: seal(&key, ROOT, keys.root()?),
        }))
    }

    pub(crate) fn key_file(random: &dyn Random, keys: &Keys, file: &KeyFile) -> Result<Self> {
        let salt = random::fresh(random)?;
        Ok(Self::of(Lock::KeyFile {
            salt: hex(&salt),
            sealed: seal(&file_key(file, &salt), ROOT, keys.root()?),
        }))
    }

    pub(crate) fn writer(random: &dyn Random, keys: &Keys, file: &KeyFile) -> Result<Self> {
        keys.may_read()?;
        let salt = random::fresh(random)?;
        Ok(Self::of(Lock::Writer {
            salt: hex(&salt),
            sealed: seal(&file_key(file, &salt), WRITER, &*keys.writer_secrets()),
        }))
    }

    pub(crate) fn open(keys: &Keys) -> Result<Self> {
        let root = hex(keys.root()?);
        Ok(Self::of(Lock::Open { root }))
    }

    fn of(lock: Lock) -> Self {
        Self { lock, label: None }
    }

    /// Says whose it is.
    pub(crate) fn labelled(mut self, keys: &Keys, text: &str) -> Result<Self> {
        let wrong = text.is_empty()
            || text.len() > limits::KEY_LABEL_MAX
            || text.chars().any(char::is_control);
        if wrong {
            let what = format!(
                "a key is called by 1 to {} bytes of text without control characters",
                limits::KEY_LABEL_MAX
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        self.label = Some(Label {
            text: text.to_owned(),
            mac: hex(&self.label_mac(keys, text)),
        });
        Ok(self)
    }

    /// Whose it is: `None` if nothing says so, `Err` if somebody without a key does.
    pub(crate) fn label(&self, keys: &Keys) -> Result<Option<&str>, ()> {
        match &self.label {
            None => Ok(None),
            Some(label) if unhex(&label.mac) == Some(self.label_mac(keys, &label.text)) => {
                Ok(Some(&label.text))
            }
            Some(_) => Err(()),
        }
    }

    fn label_mac(&self, keys: &Keys, text: &str) -> [u8; 32] {
        let salt = match &self.lock {
            Lock::Passphrase { salt, .. }
            | Lock::KeyFile { salt, .. }
            | Lock::Writer { salt, .. } => salt.as_str(),
            Lock::Open { .. } => "",
        };
        keys.label_mac(&[self.kind().as_bytes(), salt.as_bytes(), text.as_bytes()])
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Fields<'a> {
            #[serde(flatten)]
            lock: &'a Lock,
            #[serde(skip_serializing_if = "Option::is_none")]
            label: Option<&'a Label>,
        }
        let (lock, label) = (&self.lock, self.label.as_ref());
        serde_json::to_vec(&Fields { lock, label })
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "cannot encode a key slot", e))
    }

    pub(crate) fn decode(body: &[u8]) -> serde_json::Result<Self> {
        let mut fields: Map<String, Value> = serde_json::from_slice(body)?;
        let label = fields.remove("label").map(serde_json::from_value);
        Ok(Self {
            lock: serde_json::from_value(Value::Object(fields))?,
            label: label.transpose()?,
        })
    }

    /// The word for its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self.lock {
            Lock::Passphrase { .. } => "passphrase",
            Lock::KeyFile { .. } => "key-file",
            Lock::Writer { .. } => "writer",
            Lock::Open { .. } => "open",
        }
    }

    /// The keys, if the passphrase opens this slot.
    pub(crate) fn try_passphrase(&self, passphrase: &str) -> Result<Option<Keys>> {
        match &self.lock {
            Lock::Passphrase {
                argon2id,
                salt,
                sealed,
            } => {
                let key = argon2id.key(passphrase, &salt_of(salt)?)?;
                Ok(unseal(&key, ROOT, sealed).map(Keys::new))
            }
            Lock::KeyFile { .. } | Lock::Writer { .. } | Lock::Open { .. } => Ok(None),
        }
    }

    /// The keys, if the key file opens this slot.
    pub(crate) fn try_key_file(&self, file: &KeyFile) -> Result<Option<Keys>> {
        match &self.lock {
            Lock::KeyFile { salt, sealed } => {
                let key = file_key(file, &salt_of(salt)?);
                Ok(unseal(&key, ROOT, sealed).map(Keys::new))
            }
            Lock::Writer { salt, sealed } => {
                let key = file_key(file, &salt_of(salt)?);
                let secrets = unseal::<WRITER_SECRETS>(&key, WRITER, sealed);
                Ok(secrets.and_then(|secrets| Keys::of_writer(&secrets)))
            }
            Lock::Passphrase { .. } | Lock::Open { .. } => Ok(None),
        }
    }

    /// The root key, if it lies open.
    pub(crate) fn try_open(&self) -> Option<Zeroizing<[u8; 32]>> {
        match &self.lock {
            Lock::Open { root } => unhex(root).map(Zeroizing::new),
            Lock::Passphrase { .. } | Lock::KeyFile { .. } | Lock::Writer { .. } => None,
        }
    }
}

fn salt_of(text: &str) -> Result<[u8; 32]> {
    unhex(text).ok_or_else(|| Error::corrupt("a key slot has no proper salt"))
}

fn seal(key: &[u8; 32], associated: &[u8], secret: &[u8]) -> String {
    let mut sealed = Vec::with_capacity(secret.len() + TAG);
    sealed.extend_from_slice(secret);
    Cipher::new(key).seal(0, associated, &mut sealed, 0);
    hex(&sealed)
}

fn unseal<const N: usize>(
    key: &[u8; 32],
    associated: &[u8],
    sealed: &str,
) -> Option<Zeroizing<[u8; N]>> {
    let mut secret = Zeroizing::new(vec![0; N + TAG]);
    unhex_to(sealed, &mut secret)?;
    let secret = Cipher::new(key).open_in_place(0, associated, &mut secret)?;
    let mut copy = Zeroizing::new([0; N]);
    copy.copy_from_slice(secret.get(..N)?);
    Some(copy)
}
