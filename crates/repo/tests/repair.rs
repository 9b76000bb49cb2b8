//! What is damaged is made good by what is whole: another copy, or the next full read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_repo::{ErrorKind, FaultPoint, Faulty, FileName, MemoryStorage, Storage, verify};

use support::{backup, disk, init, key, name, open, restore};

fn files(storage: &MemoryStorage, folder: &str) -> Vec<FileName> {
    let mut files = Vec::new();
    let listed = storage.list(&folder.parse().unwrap(), &mut |name, _| {
        files.push(name.clone());
        Ok(())
    });
    listed.unwrap();
    files
}

/// The packs of class data: those with guests' bytes.
fn data_packs(storage: &MemoryStorage) -> Vec<FileName> {
    let mut packs = files(storage, "packs");
    packs.retain(|name| storage.read(name, 10..11).unwrap() == [0]);
    packs
}

fn change(storage: &MemoryStorage, pack: &FileName) {
    storage.damage(pack, |bytes| bytes[200] ^= 1);
}

fn shared(storage: &Arc<MemoryStorage>) -> Arc<dyn Storage> {
    Arc::clone(storage) as Arc<dyn Storage>
}

#[test]
fn a_damaged_copy_of_a_chunk_is_made_good_by_another() {
    let (memory, key, bytes) = (Arc::new(MemoryStorage::new()), key(), disk(1, 7));
    init(&shared(&memory), &key).unwrap();
    // Neither sees what the other stores.
    let two = [open(&shared(&memory), &key), open(&shared(&memory), &key)];
    for (repository, text) in two.iter().zip(["1", "2"]) {
        backup(repository.as_ref().unwrap(), &name(text), None, &bytes).unwrap();
    }
    let packs = data_packs(&memory);
    assert_eq!(packs.len(), 2, "{packs:?}");
    for pack in &packs {
        let one_is_damaged = Arc::new(memory.fork());
        // Also one whose key no longer opens.
        for position in [200, 60] {
            one_is_damaged.damage(pack, |bytes| bytes[position] ^= 1);
            let repository = open(&shared(&one_is_damaged), &key).unwrap();
            assert!(restore(&repository, &name("1")).unwrap() == bytes);
            assert!(restore(&repository, &name("2")).unwrap() == bytes);
            let damage = verify(&repository).unwrap().damage;
            assert_eq!(damage.len(), 1, "{damage:?}");
            assert_eq!(damage[0].object, pack.as_str());
        }
    }
    for pack in &packs {
        change(&memory, pack);
    }
    let repository = open(&shared(&memory), &key).unwrap();
    let error = restore(&repository, &name("1")).expect_err("no copy is left");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("in pack"), "{error}");
}

#[test]
fn every_archive_that_shares_a_damaged_chunk_is_named() {
    let (memory, key, bytes) = (Arc::new(MemoryStorage::new()), key(), disk(1, 7));
    let repository = init(&shared(&memory), &key).unwrap();
    for text in ["1", "2", "3"] {
        backup(&repository, &name(text), None, &bytes).unwrap();
    }
    let pack = data_packs(&memory).remove(0);
    change(&memory, &pack);
    let report = verify(&open(&shared(&memory), &key).unwrap()).unwrap();
    let named: Vec<_> = report.damage.iter().map(|d| d.object.as_str()).collect();
    let archives = ["main/vm/100/1", "main/vm/100/2", "main/vm/100/3"];
    assert_eq!(named, [&[pack.as_str()], &archives[..]].concat());
    assert_eq!(report.snapshots, 0);
}

/// What docs/FORMAT.md says of a pack that was changed inside.
#[test]
fn a_changed_pack_that_is_moved_away_is_healed_by_the_next_backup() {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let (old, new) = (disk(1, 7), {
        let mut new = disk(1, 7);
        new[..10].fill(9);
        new
    });
    let repository = init(&shared(&memory), &key).unwrap();
    backup(&repository, &name("1"), None, &old).unwrap();
    let pack = data_packs(&memory).remove(0);
    // The second blob, which the guest's disk still has.
    memory.damage(&pack, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });

    let repository = open(&shared(&memory), &key).unwrap();
    let damage = verify(&repository).unwrap().damage;
    assert_eq!(damage[0].object, pack.as_str());
    assert_eq!(damage[1].object, "main/vm/100/1");
    // Nobody who looks at lengths only can know; so the hand has to help.
    let first = repository.snapshot(&name("1")).unwrap();
    (repository.check_whole(&first.disks[0])).expect("a change inside is not seen");

    let moved = memory.read(&pack, 0..memory.length(&pack).unwrap());
    memory.remove(&pack).unwrap();
    let repository = open(&shared(&memory), &key).unwrap();
    let error = (repository.check_whole(&first.disks[0])).expect_err("its chunks are absent");
    assert!(error.to_string().contains("is in no pack"), "{error}");
    backup(&repository, &name("2"), None, &new).unwrap();
    assert!(restore(&repository, &name("2")).unwrap() == new);
    restore(&repository, &name("1")).expect_err("its first chunk is only in the pack");

    memory.put(&pack, &moved.unwrap()).unwrap();
    let repository = open(&shared(&memory), &key).unwrap();
    assert!(restore(&repository, &name("1")).unwrap() == old);
    assert!(restore(&repository, &name("2")).unwrap() == new);
    let damage = verify(&repository).unwrap().damage;
    assert_eq!(damage.len(), 1, "only the pack: {damage:?}");
}

/// Then nothing that is there names the pack.
#[test]
fn a_pack_that_is_lost_together_with_the_index_is_missed() {
    let (memory, key, old) = (Arc::new(MemoryStorage::new()), key(), disk(1, 200));
    let repository = init(&shared(&memory), &key).unwrap();
    let first = backup(&repository, &name("1"), None, &old).unwrap();
    for file in [data_packs(&memory), files(&memory, "index")].concat() {
        memory.remove(&file).unwrap();
    }
    let repository = open(&shared(&memory), &key).unwrap();
    let error = (repository.check_whole(&first.disks[0])).expect_err("it has no chunk");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("is in no pack"), "{error}");
}

#[test]
fn what_another_host_commits_after_the_opening_is_read_and_is_no_damage() {
    let (memory, key, bytes) = (Arc::new(MemoryStorage::new()), key(), disk(1, 3));
    init(&shared(&memory), &key).unwrap();
    let [first, second, other] = [(); 3].map(|()| open(&shared(&memory), &key).unwrap());
    let snapshot = backup(&other, &name("1"), None, &bytes).unwrap();
    let report = verify(&first).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert!(restore(&second, &name("1")).unwrap() == bytes);
    let bytes = disk(2, 4);
    backup(&other, &name("2"), None, &bytes).unwrap();
    assert!(restore(&second, &name("2")).unwrap() == bytes);
    second.check_whole(&snapshot.disks[0]).unwrap();
}

#[test]
fn packs_that_could_not_be_indexed_are_by_the_next_backup() {
    let (memory, key, bytes) = (Arc::new(MemoryStorage::new()), key(), disk(1, 3));
    backup(
        &init(&shared(&memory), &key).unwrap(),
        &name("1"),
        None,
        &bytes,
    )
    .unwrap();
    for file in files(&memory, "index") {
        memory.remove(&file).unwrap();
    }
    let faulty = |point| {
        let files = Arc::new(memory.fork());
        (Arc::clone(&files), Arc::new(Faulty::new(files, point)))
    };
    let opened = |faulty: &Arc<Faulty>| open(&(Arc::clone(faulty) as Arc<dyn Storage>), &key);
    let (_, counted) = faulty(FaultPoint::Never);
    backup(&opened(&counted).unwrap(), &name("2"), None, &bytes).unwrap();
    // Nothing is new, so its last deeds are an index object, whose time is asked for twice, and
    // the snapshot with a look for sweeps before and after it.
    let (kept, failing) = faulty(FaultPoint::Only(counted.count() - 6));
    let repository = opened(&failing).unwrap();
    let error = backup(&repository, &name("2"), None, &bytes).expect_err("not indexed");
    assert!(error.to_string().contains("on index/"), "{error}");
    assert!(files(&kept, "index").is_empty());
    backup(&repository, &name("3"), None, &bytes).unwrap();
    assert_eq!(files(&kept, "index").len(), 1);
}

#[test]
fn files_that_are_none_of_the_repository_change_nothing() {
    let (memory, key, bytes) = (Arc::new(MemoryStorage::new()), key(), disk(1, 7));
    let repository = init(&shared(&memory), &key).unwrap();
    backup(&repository, &name("1"), None, &bytes).unwrap();
    let pack = files(&memory, "packs").remove(0);
    let copy = pack.as_str().replace("packs/", "packs/copies/");
    let strays = [
        "snapshots/README",
        "snapshots/main/vm/100/old/1",
        "index/README",
        "index/0123/00000000",
        "packs/README",
        "keys/README",
        copy.as_str(),
    ];
    for stray in strays {
        memory.put(&stray.parse().unwrap(), b"stray").unwrap();
    }
    let repository = open(&shared(&memory), &key).unwrap();
    assert_eq!(repository.snapshots().unwrap(), [name("1")]);
    assert_eq!(repository.keys().unwrap().len(), 1);
    assert!(restore(&repository, &name("1")).unwrap() == bytes);
    let report = verify(&repository).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    backup(&repository, &name("2"), None, &bytes).unwrap();
}

#[test]
fn the_slot_of_an_interrupted_init_does_not_keep_its_key_from_opening() {
    let key = key();
    for _ in 0..8 {
        // Slots are tried in the order of their random names.
        let memory = Arc::new(MemoryStorage::new());
        init(&shared(&memory), &key).unwrap();
        memory.remove(&"config".parse().unwrap()).unwrap();
        init(&shared(&memory), &key).unwrap();
        open(&shared(&memory), &key).expect("one slot holds the right key");
    }
}
