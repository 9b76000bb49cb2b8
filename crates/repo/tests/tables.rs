//! Tables of the index: made of what index objects say, and as good as these.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    Counted, FaultPoint, Faulty, FileName, KeyFile, MemoryStorage, Merge, Merged, Repository,
    Result, Storage, SystemRandom, Unlock, verify,
};

use support::{backup, disk, init, key, name, open, restore};

fn files(storage: &dyn Storage, folder: &str) -> Vec<FileName> {
    let mut files = Vec::new();
    let listed = storage.list(&folder.parse().unwrap(), &mut |name, _| {
        files.push(name.clone());
        Ok(())
    });
    listed.unwrap();
    files
}

fn remove_all(storage: &dyn Storage, folder: &str) {
    for file in files(storage, folder) {
        storage.remove(&file).unwrap();
    }
}

fn merge(storage: &Arc<dyn Storage>, key: &KeyFile) -> Result<(Arc<Repository>, Merged)> {
    let unlock = Unlock::KeyFile(key.clone());
    let random = Arc::new(SystemRandom);
    Repository::open_merged(Arc::clone(storage), random, &unlock, Merge::Always)
        .map(|(repository, merged)| (Arc::new(repository), merged))
}

/// A repository with archives `1` to this one, none of which shares anything with another.
fn with_archives(count: u8) -> (Arc<MemoryStorage>, Arc<dyn Storage>, KeyFile) {
    let memory = Arc::new(MemoryStorage::new());
    let (storage, key) = (Arc::clone(&memory) as Arc<dyn Storage>, key());
    init(&storage, &key).unwrap();
    (1..=count).for_each(|number| add(&storage, &key, number));
    (memory, storage, key)
}

fn add(storage: &Arc<dyn Storage>, key: &KeyFile, number: u8) {
    let repository = open(storage, key).unwrap();
    backup(
        &repository,
        &name(&number.to_string()),
        None,
        &disk(number, 5),
    )
    .unwrap();
}

fn check(storage: &Arc<dyn Storage>, key: &KeyFile, count: u8) {
    let repository = open(storage, key).unwrap();
    for number in 1..=count {
        let found = restore(&repository, &name(&number.to_string())).unwrap();
        assert!(found == disk(number, 5), "archive {number}");
    }
    let mut report = verify(&repository).unwrap();
    // Nothing depends on them.
    (report.damage).retain(|damage| !damage.object.starts_with("tables/"));
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!(report.snapshots, u64::from(count));
}

#[test]
fn tables_are_enough_to_restore_and_to_store_nothing_twice() {
    let (memory, storage, key) = with_archives(3);
    let (repository, merged) = merge(&storage, &key).unwrap();
    assert_eq!(merged.objects, 3);
    assert_eq!(merged.written, merged.entries);
    assert_eq!(repository.counts(), open(&storage, &key).unwrap().counts());
    let whole = memory.fork();
    remove_all(&*storage, "index");
    check(&storage, &key, 3);
    // Without index objects packs count as what a killed writer left, unless a table names them.
    let counted = Arc::new(Counted::new(Arc::clone(&storage)));
    let packs = files(&*storage, "packs").len();
    open(&(Arc::clone(&counted) as Arc<dyn Storage>), &key).unwrap();
    let with_tables = counted.take().operations();
    remove_all(&*storage, "tables");
    open(&(Arc::clone(&counted) as Arc<dyn Storage>), &key).unwrap();
    let without = counted.take().operations();
    assert!(
        with_tables + packs as u64 <= without,
        "{with_tables} {without}"
    );
    let storage = Arc::new(whole) as Arc<dyn Storage>;
    let repository = open(&storage, &key).unwrap();
    let stats = backup(&repository, &name("again"), None, &disk(2, 5))
        .unwrap()
        .stats;
    let first = restore(&repository, &name("again")).unwrap();
    assert!(first == disk(2, 5));
    assert_eq!(stats.stored, 0, "everything was there");
}

#[test]
fn a_second_merge_takes_what_is_new_and_small_generations() {
    let (_, storage, key) = with_archives(1);
    merge(&storage, &key).unwrap();
    assert_eq!(
        merge(&storage, &key).unwrap().1.written,
        0,
        "nothing is new"
    );
    for number in 2..=12 {
        add(&storage, &key, number);
        let merged = merge(&storage, &key).unwrap().1;
        assert_eq!(merged.objects, 1);
        let generations = files(&*storage, "tables");
        let generations = generations
            .iter()
            .filter(|n| n.as_str().ends_with("/cover"));
        let most = u8::BITS - number.leading_zeros() + 1;
        assert!(generations.count() <= most as usize, "after {number}");
    }
    remove_all(&*storage, "index");
    check(&storage, &key, 12);
}

#[test]
fn a_table_that_is_replaced_while_a_repository_is_open_is_no_damage() {
    let (_, storage, key) = with_archives(1);
    let opened = merge(&storage, &key).unwrap().0;
    add(&storage, &key, 2);
    let before = files(&*storage, "tables");
    merge(&storage, &key).unwrap();
    let after = files(&*storage, "tables");
    assert!(
        before.iter().all(|file| !after.contains(file)),
        "{before:?} {after:?}"
    );
    for number in 1..=2 {
        let found = restore(&opened, &name(&number.to_string())).unwrap();
        assert!(found == disk(number, 5));
    }
}

#[test]
fn a_damaged_table_is_made_good_by_index_objects_and_packs() {
    let (memory, storage, key) = with_archives(2);
    merge(&storage, &key).unwrap();
    for file in files(&*storage, "tables") {
        let length = storage.length(&file).unwrap();
        // Those in the middle of a block are seen only when it is read.
        for position in [0, 20, 60, length - 1, length - 20] {
            let damaged = Arc::new(memory.fork());
            damaged.damage(&file, |bytes| {
                bytes[usize::try_from(position).unwrap()] ^= 1;
            });
            let storage = Arc::clone(&damaged) as Arc<dyn Storage>;
            check(&storage, &key, 2);
            add(&storage, &key, 3);
            merge(&storage, &key).unwrap();
            check(&storage, &key, 3);
        }
    }
}

#[test]
fn a_merge_that_is_cut_off_at_any_operation_leaves_a_whole_index() {
    let (memory, storage, key) = with_archives(3);
    merge(&storage, &key).unwrap();
    add(&storage, &key, 4);
    add(&storage, &key, 5);
    let mut operations = 0;
    for point in 0.. {
        let copy = Arc::new(memory.fork()) as Arc<dyn Storage>;
        let faulty = Arc::new(Faulty::new(Arc::clone(&copy), FaultPoint::Before(point)));
        let done = merge(&(Arc::clone(&faulty) as Arc<dyn Storage>), &key).is_ok();
        check(&copy, &key, 5);
        merge(&copy, &key).unwrap();
        check(&copy, &key, 5);
        if done && faulty.count() <= point {
            operations = point;
            break;
        }
    }
    assert!(operations > 20, "{operations}");
}
