//! Packs that no writer makes, by somebody who has the keys: bombs and lengths that are lies.

use std::sync::Arc;

use crate::format::bytes::length_u32;
use crate::format::id::ChunkId;
use crate::format::pack::{Class, OpenPack};
use crate::index::pack_file;
use crate::repository::Repository;
use crate::{ErrorKind, MemoryStorage, Protect, SystemRandom, limits, verify};

/// A repository on this storage.
fn repository() -> (Arc<MemoryStorage>, Repository) {
    let memory = Arc::new(MemoryStorage::new());
    let random = Arc::new(SystemRandom);
    let size = limits::CHUNK_DEFAULT;
    let made = Repository::init(Arc::clone(&memory) as _, random, &Protect::Open, size);
    (memory, made.expect("a repository"))
}

/// Puts a pack with this blob, as compressed, under this identity.
fn put(repository: &Repository, id: ChunkId, blob: &[u8], plain: usize) {
    let (keys, random) = (&repository.keys, &*repository.random);
    let mut pack = OpenPack::new(keys, random, Class::Data, Vec::new()).expect("a pack");
    pack.add(id, blob, plain, true);
    let sealed = pack.finish(keys);
    let file = pack_file(&sealed.id);
    repository.storage.put(&file, &sealed.bytes).expect("put");
    repository.look_again();
}

#[test]
fn a_decompression_bomb_is_refused_within_the_length_that_was_declared() {
    let (_, repository) = repository();
    let zeroes = vec![0; 256 << 20];
    let mut bomb = Vec::with_capacity(zstd_safe::compress_bound(zeroes.len()));
    zstd_safe::compress(&mut bomb, &zeroes, 1).expect("it is compressed");
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let id = repository.keys.chunk_id(Class::Data, &zeroes);
    put(&repository, id, &bomb, limits::CHUNK_MAX);
    let error = repository
        .read_chunk(Class::Data, &id)
        .expect_err("it is too long");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("does not decompress"), "{error}");
    let report = verify(&repository).expect("a verification");
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
}

#[test]
fn a_frame_that_declares_an_enormous_size_or_window_is_refused() {
    // Magic; one segment of 2^63 bytes, or a window of 2 GiB and more; a block of one byte.
    let single: &[u8] = &[0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80];
    let window: &[u8] = &[0, 0xaf];
    for head in [single, window] {
        let (_, repository) = repository();
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd], head, &[9, 0, 0, 7]].concat();
        let id = repository.keys.chunk_id(Class::Data, &[7; 100]);
        put(&repository, id, &frame, 100);
        let error = repository
            .read_chunk(Class::Data, &id)
            .expect_err("it lies");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused_before_anything_is_allocated() {
    for plain in [limits::CHUNK_MAX + 1, u32::MAX as usize] {
        let (_, repository) = repository();
        let id = repository.keys.chunk_id(Class::Data, b"x");
        put(&repository, id, b"x", plain);
        let error = repository
            .read_chunk(Class::Data, &id)
            .expect_err("its table lies");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let report = verify(&repository).expect("a verification");
        assert!(
            report.damage[0].error.chain().contains("table"),
            "{:?}",
            report.damage
        );
    }
}

#[test]
fn lengths_in_headers_and_trailers_that_are_lies_are_refused() {
    for (from_end, lie) in [(16, u32::MAX), (12, u32::MAX), (12, 2), (16, 0)] {
        let (memory, repository) = repository();
        let id = repository.keys.chunk_id(Class::Data, b"x");
        put(&repository, id, b"x", 1);
        let mut files = Vec::new();
        let folder = "packs".parse().expect("a name");
        let listed = repository.storage.list(&folder, &mut |name, _| {
            files.push(name.clone());
            Ok(())
        });
        listed.expect("a list");
        memory.damage(&files[0], |bytes| {
            let at = bytes.len() - from_end;
            bytes[at..at + 4].copy_from_slice(&lie.to_le_bytes());
        });
        let error = repository
            .read_chunk(Class::Data, &id)
            .expect_err("it lies");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    let (memory, repository) = repository();
    let config = "config".parse().expect("a name");
    let most = usize::try_from(limits::CONFIG_MAX).expect("it fits");
    memory.damage(&config, |bytes| bytes.resize(most + 1, b'\n'));
    let storage: Arc<dyn crate::Storage> = Arc::clone(&memory) as _;
    let opened = Repository::open(storage, Arc::new(SystemRandom), &crate::Unlock::Open);
    let error = opened.expect_err("it is too long");
    assert!(error.to_string().contains("more than the"), "{error}");
    drop(repository);
    let lie = length_u32(usize::try_from(limits::SEALED_MAX).expect("it fits"));
    let sealed = [&b"SNAPKEEPI\x01\0\0"[..], &lie.to_le_bytes(), &[0; 100]].concat();
    let whole = [&sealed[..], blake3::hash(&sealed).as_bytes()].concat();
    let name = "index/x".parse().expect("a name");
    let kind = crate::format::envelope::Kind::Index;
    let error = crate::format::envelope::check(kind, &name, &whole).expect_err("it lies");
    assert!(error.to_string().contains("length"), "{error}");
}
