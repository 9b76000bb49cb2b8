//! Identities: of chunks, by their content and a key; of packs, by their ciphertext.

use std::fmt;

use super::bytes::hex;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub(crate) [u8; 32]);

        impl $name {
            /// The one with these bytes.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// The keyed BLAKE3 of a chunk's plaintext. Data and metadata have keys of their own, so no
    /// guest can choose bytes that have the identity of a map's node.
    ChunkId
}

id! {
    /// The BLAKE3 of a pack file's bytes, which is its name: anyone can verify it without a key.
    PackId
}
