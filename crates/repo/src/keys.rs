//! Keys: one root key, from which a key for each class is derived; and what opens it.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::format::bytes::{hex, unhex};
use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::{Error, ErrorKind, Random, Result};

/// What the HPKE seal of a data pack's key is bound to, with the pack's salt behind it.
const HPKE_INFO: &[u8] = b"snapkeep 1 pack key";
/// From which the key of the MAC in `config` is derived.
const CONFIG: &str = "snapkeep 1 config";

type KemKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type KemPublic = <X25519HkdfSha256 as Kem>::PublicKey;

/// What opens a repository.
#[derive(Debug)]
pub enum Unlock {
    /// A passphrase, stretched by argon2id.
    Passphrase(Zeroizing<String>),
    /// A key file's 32 bytes.
    KeyFile(KeyFile),
    /// The recovery kit's root key.
    Recovery(RecoveryKit),
    /// Nothing: a repository whose key lies open in it.
    Open,
}

macro_rules! secret_text {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Eq, PartialEq, Zeroize, ZeroizeOnDrop)]
        pub struct $name(pub(crate) [u8; 32]);

        impl $name {
            /// Made of fresh random bytes.
            pub fn generate(random: &dyn Random) -> Result<Self> {
                crate::random::fresh(random).map(Self)
            }

            /// One line of text: a prefix, eight groups of eight hexadecimal digits, and a
            /// checksum (the first four bytes of the BLAKE3 of prefix and key).
            pub fn to_text(&self) -> Zeroizing<String> {
                let digits = Zeroizing::new(hex(&self.0));
                let mut text = Zeroizing::new(String::from($prefix));
                for group in digits.as_bytes().chunks(8) {
                    text.push('-');
                    text.extend(group.iter().map(|b| char::from(*b)));
                }
                text.push('-');
                text.push_str(&hex(&checksum($prefix, &self.0)));
                text
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let wrong = |why| Error::new(ErrorKind::WrongKey, format!(concat!("this is no ", $what, ": {}"), why));
                let line = (text.lines().map(str::trim).find(|line| line.starts_with($prefix)))
                    .ok_or_else(|| wrong(concat!("no line begins with ", $prefix)))?;
                let digits: Zeroizing<String> =
                    Zeroizing::new(line[$prefix.len()..].chars().filter(|c| *c != '-').collect());
                let (key, sum) = digits.split_at_checked(64).ok_or_else(|| wrong("it is too short"))?;
                let key = unhex::<32>(key).ok_or_else(|| wrong("it has characters that are no hexadecimal digits"))?;
                if unhex::<4>(sum) != Some(checksum($prefix, &key)) {
                    return Err(wrong("its checksum does not match, so it was mistyped"));
                }
                Ok(Self(key))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

secret_text! {
    /// The contents of a key file.
    KeyFile, "snapkeep-key-1", "key file"
}

secret_text! {
    /// The root key as text to be printed and kept on paper.
    RecoveryKit, "snapkeep-recovery-1", "recovery kit"
}

fn checksum(prefix: &str, key: &[u8; 32]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prefix.as_bytes()).update(key);
    let mut sum = [0; 4];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// Bytes of what a host that may only write has: four keys, and the public one.
pub(crate) const WRITER_SECRETS: usize = 5 * 32;

/// The keys of an open repository.
pub(crate) struct Keys {
    data_id: Zeroizing<[u8; 32]>,
    metadata_id: Zeroizing<[u8; 32]>,
    metadata: Zeroizing<[u8; 32]>,
    config: Zeroizing<[u8; 32]>,
    public: KemPublic,
    /// None on a host that may only write.
    owner: Option<Owner>,
}

/// What opens data.
struct Owner {
    root: Zeroizing<[u8; 32]>,
    private: KemKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    pub(crate) fn new(root: Zeroizing<[u8; 32]>) -> Self {
        let derive = |context| Zeroizing::new(blake3::derive_key(context, &*root));
        let (private, public) =
            X25519HkdfSha256::derive_keypair(&*derive("snapkeep 1 data key pair"));
        Self {
            data_id: derive("snapkeep 1 data chunk id"),
            metadata_id: derive("snapkeep 1 metadata chunk id"),
            metadata: derive("snapkeep 1 metadata"),
            config: derive(CONFIG),
            public,
            owner: Some(Owner { root, private }),
        }
    }

    /// The keys of a host that may only write; `None` if these bytes hold no public key.
    pub(crate) fn of_writer(secrets: &[u8; WRITER_SECRETS]) -> Option<Self> {
        let part = |number: usize| {
            let mut key = Zeroizing::new([0; 32]);
            key.copy_from_slice(&secrets[32 * number..][..32]);
            key
        };
        Some(Self {
            data_id: part(0),
            metadata_id: part(1),
            metadata: part(2),
            config: part(3),
            public: KemPublic::from_bytes(&*part(4)).ok()?,
            owner: None,
        })
    }

    /// All that a host gets that may only write.
    pub(crate) fn writer_secrets(&self) -> Zeroizing<[u8; WRITER_SECRETS]> {
        let public: [u8; 32] = self.public.to_bytes().into();
        let parts = [
            &self.data_id[..],
            &self.metadata_id[..],
            &self.metadata[..],
            &self.config[..],
            &public[..],
        ];
        let mut secrets = Zeroizing::new([0; WRITER_SECRETS]);
        for (place, part) in secrets.chunks_exact_mut(32).zip(parts) {
            place.copy_from_slice(part);
        }
        secrets
    }

    /// `WrongKey` if these keys open no data.
    pub(crate) fn may_read(&self) -> Result<()> {
        self.owner().map(drop)
    }

    fn owner(&self) -> Result<&Owner> {
        self.owner.as_ref().ok_or_else(|| {
            let what = "this key may only write: it is of a host that cannot read what guests hold, \
                        nor their configurations and logs, nor give keys; use the key of an owner";
            Error::new(ErrorKind::WrongKey, what)
        })
    }

    pub(crate) fn root(&self) -> Result<&[u8; 32]> {
        Ok(&self.owner()?.root)
    }

    /// Whether a root key is that of these keys.
    pub(crate) fn is_root(&self, root: &[u8; 32]) -> bool {
        *Zeroizing::new(blake3::derive_key(CONFIG, root)) == *self.config
    }

    pub(crate) fn recovery_kit(&self) -> Result<RecoveryKit> {
        Ok(RecoveryKit(*self.root()?))
    }

    pub(crate) fn chunk_id(&self, class: Class, plaintext: &[u8]) -> ChunkId {
        let key = match class {
            Class::Data => &self.data_id,
            Class::Metadata => &self.metadata_id,
        };
        ChunkId(*blake3::keyed_hash(key, plaintext).as_bytes())
    }

    pub(crate) fn config_mac(&self, text: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.config, text).as_bytes()
    }

    pub(crate) fn envelope(&self, salt: &[u8; 32]) -> Cipher {
        self.under_metadata(salt, 0)
    }

    pub(crate) fn metadata_pack(&self, salt: &[u8; 32]) -> Cipher {
        self.under_metadata(salt, 1)
    }

    pub(crate) fn pack_table(&self, salt: &[u8; 32]) -> Cipher {
        self.under_metadata(salt, 2)
    }

    pub(crate) fn index_table(&self, salt: &[u8; 32]) -> Cipher {
        self.under_metadata(salt, 3)
    }

    fn under_metadata(&self, salt: &[u8; 32], purpose: u8) -> Cipher {
        let mut hasher = blake3::Hasher::new_keyed(&self.metadata);
        Cipher::new(hasher.update(salt).update(&[purpose]).finalize().as_bytes())
    }

    /// A data pack's key, sealed to the repository's public key: `enc`, then ciphertext and tag.
    pub(crate) fn seal_pack_key(
        &self,
        random: &dyn Random,
        salt: &[u8; 32],
        key: &[u8; 32],
    ) -> Result<[u8; 80]> {
        let failed = |e| Error::with_source(ErrorKind::Invalid, "cannot seal a pack's key", e);
        let mut source = crate::random::Adapter::new(random)?;
        let (enc, sealed) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &self.public,
                &[HPKE_INFO, salt].concat(),
                key,
                &[],
                &mut source,
            )
            .map_err(failed)?;
        let mut both = [0; 80];
        both[..32].copy_from_slice(&enc.to_bytes());
        both[32..].copy_from_slice(&sealed);
        Ok(both)
    }

    /// The keyed hash that proves what these keys say of something.
    pub(crate) fn label_mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.config);
        hasher.update(b"snapkeep 1 key label");
        for part in parts {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part);
        }
        *hasher.finalize().as_bytes()
    }

    /// The key of a data pack; `None` if it does not open.
    pub(crate) fn open_pack_key(&self, salt: &[u8; 32], sealed: &[u8; 80]) -> Option<Cipher> {
        let enc = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&sealed[..32]).ok()?;
        let key = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &self.owner.as_ref()?.private,
            &enc,
            &[HPKE_INFO, salt].concat(),
            &sealed[32..],
            &[],
        );
        let key = Zeroizing::new(<[u8; 32]>::try_from(key.ok()?).ok()?);
        Some(Cipher::new(&key))
    }
}

/// AES-256-GCM under one key whose nonces are counted.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length");
        Self(LessSafeKey::new(key))
    }

    fn nonce(counter: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&counter.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts `buffer` from `start` in place and appends the tag.
    pub(crate) fn seal(&self, counter: u64, associated: &[u8], buffer: &mut Vec<u8>, start: usize) {
        let tag = (self.0)
            .seal_in_place_separate_tag(
                Self::nonce(counter),
                Aad::from(associated),
                &mut buffer[start..],
            )
            .expect("a chunk is far shorter than the cipher's limit");
        buffer.extend_from_slice(tag.as_ref());
    }

    /// Decrypts what [`seal`](Self::seal) made; `None` if it was changed.
    pub(crate) fn open(
        &self,
        counter: u64,
        associated: &[u8],
        mut sealed: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let length = self.open_in_place(counter, associated, &mut sealed)?.len();
        sealed.truncate(length);
        Some(sealed)
    }

    pub(crate) fn open_in_place<'a>(
        &self,
        counter: u64,
        associated: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.0
            .open_in_place(Self::nonce(counter), Aad::from(associated), sealed)
            .ok()
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(…)")
    }
}

#[cfg(test)]
mod tests;
