//! What is stored comes back; what is damaged is named; a crash loses nothing committed.

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    Class, ErrorKind, FaultPoint, Faulty, LocalStorage, MAP_FAN_OUT, MemoryStorage, Protect,
    Repository, Result, Storage, SystemRandom, Unlock, Writer, verify,
};

use support::{CHUNK, backup, disk, init, key, name, open, restore};

#[test]
fn full_and_incremental_snapshots_restore_byte_for_byte() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let key = key();
    let repository = init(&storage, &key).expect("a new repository");
    let first = disk(1, 200);
    let one = backup(&repository, &name("1"), None, &first).expect("a full backup");
    let mut second = first.clone();
    second[70 * CHUNK..70 * CHUNK + 10].fill(7);
    let base = Some((&one.disks[0], &first[..]));
    let two = backup(&repository, &name("2"), base, &second).expect("an incremental backup");
    assert!(
        two.stats.stored < one.stats.stored / 10,
        "{} of {}",
        two.stats.stored,
        one.stats.stored
    );
    drop(repository);
    let repository = open(&storage, &key).expect("the repository opens again");
    assert!(restore(&repository, &name("1")).unwrap() == first);
    assert!(restore(&repository, &name("2")).unwrap() == second);
    let report = verify(&repository).expect("a verification");
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!(report.snapshots, 2);
}

#[test]
fn what_no_program_would_read_again_is_not_committed() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let repository = init(&storage, &key()).expect("a new repository");
    let good = backup(&repository, &name("1"), None, &disk(1, 2)).expect("a backup");
    let mut bad = good.clone();
    bad.disks[0].size = u64::MAX;
    let writer = Writer::new(Arc::clone(&repository)).expect("a writer");
    let error = writer.commit(&name("2"), bad).expect_err("it is refused");
    assert!(error.to_string().contains("impossible size"), "{error}");
    let found = repository.snapshots().expect("a list");
    assert_eq!(found, [name("1")]);
}

#[test]
fn a_disk_of_zeroes_and_an_empty_disk_have_no_map() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let repository = init(&storage, &key()).expect("a new repository");
    for (text, bytes) in [("zero", vec![0; 5 * CHUNK + 1]), ("empty", vec![])] {
        let snapshot = backup(&repository, &name(text), None, &bytes).expect("a backup");
        assert_eq!(snapshot.disks[0].root, None);
        assert_eq!(restore(&repository, &name(text)).unwrap(), bytes);
    }
}

#[test]
fn data_behind_lowest_nodes_that_are_not_there_is_found() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let repository = init(&storage, &key()).expect("a new repository");
    let node = MAP_FAN_OUT * CHUNK;
    // Holes before, between and behind; the last one is found only by asking node by node.
    let mut bytes = vec![0; 6 * node];
    for at in [node, 3 * node + CHUNK, 5 * node] {
        bytes[at..at + 10].fill(9);
    }
    backup(&repository, &name("1"), None, &bytes).expect("a backup");
    assert!(restore(&repository, &name("1")).unwrap() == bytes);
}

#[test]
fn a_lost_index_is_rebuilt_from_the_packs() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let key = key();
    let repository = init(&storage, &key).expect("a new repository");
    let bytes = disk(3, 30);
    backup(&repository, &name("1"), None, &bytes).expect("a backup");
    let mut lost = Vec::new();
    let prefix = "index".parse().unwrap();
    storage
        .list(&prefix, &mut |name, _| {
            lost.push(name.clone());
            Ok(())
        })
        .unwrap();
    assert!(!lost.is_empty());
    for name in &lost {
        storage.remove(name).unwrap();
    }
    let repository = open(&storage, &key).expect("the repository opens without an index");
    assert!(restore(&repository, &name("1")).unwrap() == bytes);
}

#[test]
fn every_flipped_byte_is_found_and_never_read_as_other_bytes() {
    let memory = MemoryStorage::new();
    let key = key();
    let bytes = disk(4, 2);
    {
        let storage: Arc<dyn Storage> = Arc::new(memory.fork());
        let repository = init(&storage, &key).expect("a new repository");
        backup(&repository, &name("1"), None, &bytes).expect("a backup");
        for prefix in ["keys", "packs", "index", "snapshots"] {
            storage
                .list(&prefix.parse().unwrap(), &mut |name, length| {
                    memory.put(name, &storage.read(name, 0..length)?)
                })
                .unwrap();
        }
        let config = "config".parse().unwrap();
        memory
            .put(
                &config,
                &storage
                    .read(&config, 0..storage.length(&config).unwrap())
                    .unwrap(),
            )
            .unwrap();
    }
    let mut files = vec![("config".parse().unwrap(), 0)];
    for prefix in ["keys", "packs", "index", "snapshots"] {
        memory
            .list(&prefix.parse().unwrap(), &mut |name, length| {
                files.push((name.clone(), length));
                Ok(())
            })
            .unwrap();
    }
    files[0].1 = memory.length(&files[0].0).unwrap();
    let mut tried = 0;
    for (file, length) in &files {
        // All bytes of small files, a spread of the large ones' and all of their ends.
        let step = if *length < 4096 { 1 } else { 997 };
        let positions = (0..*length)
            .step_by(step)
            .chain(length.saturating_sub(64)..*length);
        for position in positions {
            let damaged = memory.fork();
            damaged.damage(file, |bytes| {
                bytes[usize::try_from(position).unwrap()] ^= 0x20;
            });
            let storage: Arc<dyn Storage> = Arc::new(damaged);
            let found = open(&storage, &key).and_then(|repository| {
                let report = verify(&repository)?;
                let restored = restore(&repository, &name("1"));
                if let Ok(restored) = restored {
                    assert!(restored == bytes, "{file} at {position}: other bytes");
                    assert!(
                        !report.damage.is_empty() || file.as_str().starts_with("index/"),
                        "{file} at {position}: not found"
                    );
                }
                Ok(())
            });
            if let Err(error) = found {
                assert!(!error.to_string().is_empty());
            }
            tried += 1;
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn a_crash_at_any_operation_loses_nothing_committed() {
    let key = key();
    let (first, second) = (disk(5, 80), disk(6, 80));
    let history = |storage: &Arc<dyn Storage>| -> (u32, Result<()>) {
        let mut committed = 0;
        let result = (|| {
            let repository = init(storage, &key)?;
            let one = backup(&repository, &name("1"), None, &first)?;
            committed = 1;
            backup(
                &repository,
                &name("2"),
                Some((&one.disks[0], &first)),
                &second,
            )?;
            committed = 2;
            Ok(())
        })();
        (committed, result)
    };
    let counted = Arc::new(Faulty::new(
        Arc::new(MemoryStorage::new()),
        FaultPoint::Never,
    ));
    let storage: Arc<dyn Storage> = Arc::clone(&counted) as Arc<dyn Storage>;
    history(&storage)
        .1
        .expect("without a fault the history succeeds");
    let operations = counted.count();
    assert!(operations >= 10, "{operations}");
    for number in 0..operations {
        for point in [FaultPoint::Before(number), FaultPoint::After(number)] {
            let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
            let faulty: Arc<dyn Storage> = Arc::new(Faulty::new(Arc::clone(&memory), point));
            let (committed, result) = history(&faulty);
            assert!(result.is_err(), "{point:?}: the caller was not told");
            let repository = match open(&memory, &key) {
                Ok(repository) => repository,
                Err(error) => {
                    assert_eq!(committed, 0, "{point:?}: {error}");
                    continue;
                }
            };
            let listed = repository.snapshots().unwrap();
            assert!(
                listed.len() >= committed as usize,
                "{point:?}: a snapshot was lost"
            );
            for found in &listed {
                let expected = if *found == name("1") { &first } else { &second };
                assert!(
                    restore(&repository, found).unwrap() == *expected,
                    "{point:?}: {found}"
                );
            }
            let again = backup(&repository, &name("3"), None, &second);
            again.unwrap_or_else(|error| panic!("{point:?}: the next backup fails: {error}"));
            assert!(
                restore(&repository, &name("3")).unwrap() == second,
                "{point:?}"
            );
            assert!(verify(&repository).unwrap().damage.is_empty(), "{point:?}");
        }
    }
}

#[test]
fn after_a_write_that_failed_nothing_more_is_written_or_committed() {
    let (memory, key): (Arc<dyn Storage>, _) = (Arc::new(MemoryStorage::new()), key());
    let first = init(&memory, &key).expect("a new repository");
    let snapshot = backup(&first, &name("1"), None, &disk(1, 3)).expect("a backup");
    // Opening and beginning take some operations; then the first pack's put fails, and all that
    // follow succeed.
    let counted = Arc::new(Faulty::new(Arc::clone(&memory), FaultPoint::Never));
    let storage: Arc<dyn Storage> = Arc::clone(&counted) as Arc<dyn Storage>;
    drop(Writer::new(open(&storage, &key).expect("it opens")));
    let put = counted.count();
    let faulty = Arc::new(Faulty::new(Arc::clone(&memory), FaultPoint::Only(put)));
    let storage: Arc<dyn Storage> = Arc::clone(&faulty) as Arc<dyn Storage>;
    let repository = open(&storage, &key).expect("it opens");
    let writer = Writer::new(repository).expect("a writer");
    let mut worker = writer.worker();
    let mut chunk = vec![0; 4 << 20];
    let mut number = 0u64;
    let mut store = || {
        number += 1;
        blake3::Hasher::new()
            .update(&number.to_le_bytes())
            .finalize_xof()
            .fill(&mut chunk);
        worker.store(Class::Data, &chunk)
    };
    let failed = (0..8).find_map(|_| store().err());
    let failed = failed
        .expect("a pack is full after so many bytes")
        .to_string();
    // Another thread that did not hear of it.
    assert_eq!(store().expect_err("it goes on").to_string(), failed);
    drop(worker);
    let error = writer.commit(&name("2"), snapshot).expect_err("it commits");
    assert_eq!(error.to_string(), failed);
    assert_eq!(faulty.count(), put + 1, "something was written after it");
    let repository = open(&memory, &key).expect("it opens");
    assert_eq!(repository.snapshots().unwrap(), [name("1")]);
}

#[test]
fn wrong_keys_and_missing_repositories_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::open(folder.path()).unwrap());
    let (right, wrong) = (key(), key());
    let error = open(&storage, &right).expect_err("there is none yet");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let repository = init(&storage, &right).unwrap();
    assert_eq!(
        open(&storage, &wrong).expect_err("a wrong key").kind(),
        ErrorKind::WrongKey
    );
    let error = init(&storage, &right).expect_err("there is one already");
    assert_eq!(error.kind(), ErrorKind::Exists);
    let kit = repository
        .recovery_kit()
        .expect("an owner's key")
        .to_text()
        .parse()
        .expect("the kit reads back");
    let unlock = Unlock::Recovery(kit);
    Repository::open(Arc::clone(&storage), Arc::new(SystemRandom), &unlock).expect("the kit opens");
    let passphrase = || String::from("correct horse").into();
    repository
        .add_key(&Protect::Passphrase(passphrase()), None)
        .expect("a passphrase slot");
    let unlock = Unlock::Passphrase(passphrase());
    Repository::open(Arc::clone(&storage), Arc::new(SystemRandom), &unlock).expect("it opens");
    let unlock = Unlock::Passphrase(String::from("wrong horse").into());
    let error = Repository::open(storage, Arc::new(SystemRandom), &unlock).expect_err("wrong");
    assert_eq!(error.kind(), ErrorKind::WrongKey);
}
