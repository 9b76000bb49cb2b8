//! What a host that may only write has of the keys, tried against what it must not open.

use super::*;
use crate::SystemRandom;
use crate::format::pack::{self, HEADER, OpenPack};

/// A data pack that the owner of these keys stored, and its header.
fn stored(keys: &Keys) -> [u8; HEADER] {
    let mut pack = OpenPack::new(keys, &SystemRandom, Class::Data, Vec::new()).unwrap();
    let chunk = b"what a guest holds";
    let id = keys.chunk_id(Class::Data, chunk);
    pack.add(id, chunk, chunk.len(), false);
    *pack.finish(keys).bytes.first_chunk().unwrap()
}

/// Every key pair that could be made of a secret: as it is, and derived from it.
fn pairs(secret: &[u8]) -> Vec<KemKey> {
    let contexts = ["snapkeep 1 data key pair", "snapkeep 1 metadata", CONFIG];
    let derived = contexts.map(|context| blake3::derive_key(context, secret));
    let mut keys: Vec<KemKey> = KemKey::from_bytes(secret).into_iter().collect();
    keys.push(X25519HkdfSha256::derive_keypair(secret).0);
    keys.extend(derived.map(|ikm| X25519HkdfSha256::derive_keypair(&ikm).0));
    keys
}

/// The keys with another private one.
fn with_private(keys: &Keys, private: KemKey) -> Keys {
    let mut tried = Keys::of_writer(&keys.writer_secrets()).unwrap();
    let root = Zeroizing::new([0; 32]);
    tried.owner = Some(Owner { root, private });
    tried
}

#[test]
fn nothing_that_a_writers_slot_holds_opens_a_data_pack() {
    let owner = Keys::new(Zeroizing::new([7; 32]));
    let header = stored(&owner);
    let (_, cipher) = pack::open_header(&owner, &header).expect("the owner opens it");
    let secrets = owner.writer_secrets();
    let chunk = b"what a guest holds";
    let id = owner.chunk_id(Class::Data, chunk);
    let mut blob = chunk.to_vec();
    cipher.seal(0, &id.0, &mut blob, 0);
    let parts: Vec<&[u8]> = secrets.chunks_exact(32).collect();
    assert_eq!(parts.len(), 5);
    for part in parts.iter().copied().chain([&secrets[..]]) {
        for private in pairs(part) {
            let tried = with_private(&owner, private);
            assert!(pack::open_header(&tried, &header).is_none());
        }
        // As the pack's own key, or what the salted ones are made of.
        let key = <[u8; 32]>::try_from(part).unwrap_or_else(|_| *blake3::hash(part).as_bytes());
        let salt: [u8; 32] = header[16..48].try_into().unwrap();
        let salted = |purpose| {
            let mut hasher = blake3::Hasher::new_keyed(&key);
            *hasher
                .update(&salt)
                .update(&[purpose])
                .finalize()
                .as_bytes()
        };
        for key in [key, salted(0), salted(1), salted(2), salted(3)] {
            assert!(Cipher::new(&key).open(0, &id.0, blob.clone()).is_none());
        }
    }
    let writer = Keys::of_writer(&secrets).unwrap();
    assert!(pack::open_header(&writer, &header).is_none());
    // The way that was tried works with the right key.
    let right =
        X25519HkdfSha256::derive_keypair(&blake3::derive_key("snapkeep 1 data key pair", &[7; 32]));
    assert!(pack::open_header(&with_private(&owner, right.0), &header).is_some());
}

#[test]
fn a_writer_seals_for_the_owner_what_it_cannot_open_itself() {
    let owner = Keys::new(Zeroizing::new([7; 32]));
    let writer = Keys::of_writer(&owner.writer_secrets()).unwrap();
    let header = stored(&writer);
    assert!(pack::open_header(&writer, &header).is_none());
    assert!(pack::open_header(&owner, &header).is_some());
    for error in [writer.root().err(), writer.recovery_kit().err()] {
        assert_eq!(error.expect("it has none").kind(), ErrorKind::WrongKey);
    }
    assert!(writer.is_root(&[7; 32]) && !writer.is_root(&[8; 32]));
}
