//! Packs that no writer makes, by somebody who has the keys: bombs, lengths that are lies, and chunks
//! under identities that are not theirs.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::format::bytes::length_u32;
use crate::format::id::{ChunkId, PackId};
use crate::format::pack::{Class, Entry, OpenPack};
use crate::format::snapshot::{BlobRef, DiskRecord, Lineage, Snapshot, SnapshotName, Stats};
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
    put_all(repository, &[(id, blob, plain, true)], |_, _| {});
}

/// Puts a pack with these blobs, each with its identity, its length and whether it is compressed,
/// after something was done to its bytes.
fn put_all(
    repository: &Repository,
    blobs: &[(ChunkId, &[u8], usize, bool)],
    change: impl FnOnce(&mut [u8], &[Entry]),
) {
    let (keys, random) = (&repository.keys, &*repository.random);
    let mut pack = OpenPack::new(keys, random, Class::Data, Vec::new()).expect("a pack");
    for (id, blob, plain, compressed) in blobs {
        pack.add(*id, blob, *plain, *compressed);
    }
    let mut sealed = pack.finish(keys);
    change(&mut sealed.bytes, &sealed.entries);
    let file = pack_file(&PackId(*blake3::hash(&sealed.bytes).as_bytes()));
    repository.storage.put(&file, &sealed.bytes).expect("put");
    repository.look_again();
}

#[test]
fn a_chunk_under_the_identity_of_another_is_refused() {
    let (right, wrong) = ([1; 1000], [2; 1000]);
    let mut compressed = Vec::with_capacity(2000);
    zstd_safe::compress(&mut compressed, &wrong, 1).expect("it is compressed");
    for (blob, is_compressed) in [
        (&compressed[..], true),
        (&wrong[..], false),
        // Shorter than it is said to be.
        (&right[..999], false),
    ] {
        let (_, repository) = repository();
        let id = repository.keys.chunk_id(Class::Data, &right);
        put_all(&repository, &[(id, blob, 1000, is_compressed)], |_, _| {});
        let error = (repository.read_chunk(Class::Data, &id)).expect_err("it is another");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(
            error.to_string().contains("is not what its identity says"),
            "{error}"
        );
        let report = verify(&repository).expect("a verification");
        assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    }
}

#[test]
fn chunks_that_were_exchanged_in_their_pack_do_not_open() {
    let (_, repository) = repository();
    let chunks = [[1; 1000], [2; 1000]];
    let id = |chunk: &[u8]| repository.keys.chunk_id(Class::Data, chunk);
    let blobs: Vec<_> = (chunks.iter())
        .map(|chunk| (id(chunk), &chunk[..], 1000, false))
        .collect();
    put_all(&repository, &blobs, |bytes, entries| {
        let range = |entry: &Entry| entry.offset as usize..(entry.offset + entry.stored) as usize;
        let (one, other) = (range(&entries[0]), range(&entries[1]));
        let (before, after) = bytes.split_at_mut(other.start);
        before[one].swap_with_slice(&mut after[..other.len()]);
    });
    for chunk in chunks {
        let error = (repository.read_chunk(Class::Data, &id(&chunk))).expect_err("exchanged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("does not open"), "{error}");
    }
}

#[test]
fn an_archive_beyond_the_limits_is_refused_when_it_is_read() {
    let name: SnapshotName = "main/vm/100/1".parse().expect("a name");
    let disk = DiskRecord {
        device: "drive-scsi0".to_owned(),
        size: 1 << 20,
        chunk_size: 1 << 16,
        root: None,
        lineage: Lineage::default(),
    };
    let snapshot = Snapshot {
        id: "00".repeat(16),
        repository: "r".to_owned(),
        needs: Vec::new(),
        time: 0,
        disks: vec![disk],
        tree: None,
        guest_config: BlobRef {
            chunk: None,
            length: 0,
        },
        firewall_config: None,
        writer: "00".repeat(16),
        index_objects: 0,
        generation: 0,
        stats: Stats::default(),
        program: "test".to_owned(),
        origin: None,
    };
    let good = serde_json::to_value(&snapshot).expect("it is written");
    let decode = |value: &Value| Snapshot::decode(&name, "r", value.to_string().as_bytes());
    decode(&good).expect("it is read");
    let most = limits::GUEST_CONFIG_MAX;
    let disks = vec![good["disks"][0].clone(); limits::DISKS_MAX + 1];
    for (place, value) in [
        ("/disks/0/chunk_size", json!(0)),
        ("/disks/0/chunk_size", json!(3 << 16)),
        ("/disks/0/chunk_size", json!(1_u64 << 31)),
        ("/disks/0/size", json!(1_u64 << 63)),
        ("/disks/0/size", json!(-1)),
        ("/disks", json!(disks)),
        ("/guest_config/length", json!(most + 1)),
        ("/index_objects", json!(1_u64 << 32)),
    ] {
        let mut value_of = good.clone();
        *value_of.pointer_mut(place).expect("it is there") = value;
        let error = decode(&value_of).expect_err(place);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{place}: {error}");
        assert!(error.to_string().contains(name.as_str()), "{error}");
    }
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
