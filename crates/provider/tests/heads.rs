//! Dirty bitmaps with fixed names: read incrementally where the storage's head proves the base, in
//! full wherever it does not, and never wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_api::{BitmapMode, Level};
use snapkeep_repo::{FileName, MemoryStorage, Repository, Storage, SystemRandom, Unlock};

use support::{End, Log, Vm, memory, process, provider, repository_storage, restored};

/// A guest, backed up once by storage `one`.
fn backed_up() -> (Arc<MemoryStorage>, Vm, support::Done) {
    let storage = repository_storage();
    let mut vm = Vm::new(8);
    let first = vm.back_up(&one(&storage), "one", End::Committed);
    assert_eq!(first.mode, BitmapMode::New);
    (storage, vm, first)
}

fn one(storage: &Arc<MemoryStorage>) -> snapkeep_provider::RepositoryProvider {
    provider(storage, "main", Some("one"), &Log::default())
}

/// Backs up once more: how, and that what was made equals the disk.
fn next(storage: &Arc<MemoryStorage>, vm: &mut Vm) -> BitmapMode {
    vm.write(3, 0xa3);
    let provider = one(storage);
    let done = vm.back_up(&provider, "one", End::Committed);
    assert!(restored(&provider, &done.archive) == vm.disk);
    let read = done.stats.unwrap().read;
    assert_eq!(read < vm.disk.len() as u64, done.mode == BitmapMode::Reuse);
    done.mode
}

fn heads(storage: &MemoryStorage) -> Vec<FileName> {
    let mut heads = Vec::new();
    let place = "heads/main/vm/100/one".parse().unwrap();
    storage
        .list(&place, &mut |name, _| {
            heads.push(name.clone());
            Ok(())
        })
        .unwrap();
    heads
}

fn remove_archive(storage: &MemoryStorage, archive: &snapkeep_api::ArchiveName) {
    let file = format!("snapshots/{archive}").parse().unwrap();
    assert!(storage.length(&file).is_ok());
    storage.remove(&file).unwrap();
}

#[test]
fn a_bitmap_of_the_last_archive_of_this_storage_is_used() {
    let (storage, mut vm, _) = backed_up();
    for _ in 0..3 {
        assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
        assert_eq!(heads(&storage).len(), 1, "old heads are removed");
    }
}

#[test]
fn two_storages_that_alternate_use_a_bitmap_each() {
    let (storage, mut vm, _) = backed_up();
    let two = provider(&storage, "main", Some("two"), &Log::default());
    for round in 0..3 {
        vm.write(round, 0x20);
        let done = vm.back_up(&two, "two", End::Committed);
        assert_eq!(done.mode == BitmapMode::Reuse, round > 0);
        assert!(restored(&two, &done.archive) == vm.disk);
        vm.write(round, 0x21);
        assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
    }
}

#[test]
fn the_bitmap_of_another_storage_is_not_used() {
    let (storage, mut vm, _) = backed_up();
    vm.write(1, 0x10);
    let done = vm.back_up(&one(&storage), "two", End::Committed);
    assert_eq!(done.mode, BitmapMode::New);
    assert!(restored(&one(&storage), &done.archive) == vm.disk);
}

#[test]
fn a_bitmap_whose_archive_was_deleted_is_not_used() {
    let (storage, mut vm, _) = backed_up();
    vm.write(1, 0x10);
    let second = vm.back_up(&one(&storage), "one", End::Committed);
    remove_archive(&storage, &second.archive);
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn a_bitmap_whose_archive_was_forgotten_is_not_used() {
    let (storage, mut vm, first) = backed_up();
    vm.write(1, 0x10);
    let forget = |archive: &snapkeep_api::ArchiveName| {
        let random = Arc::new(SystemRandom);
        let files = Arc::clone(&storage) as Arc<dyn Storage>;
        let repository = Repository::open(files, random, &Unlock::Open).unwrap();
        repository
            .forget(&archive.as_str().parse().unwrap())
            .unwrap();
    };
    forget(&first.archive);
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn deleting_an_older_archive_costs_nothing() {
    let (storage, mut vm, first) = backed_up();
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
    remove_archive(&storage, &first.archive);
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn after_a_failed_backup_the_merged_bitmap_is_used_with_the_old_base() {
    let (storage, mut vm, _) = backed_up();
    vm.write(1, 0x10);
    vm.write(2, 0x10);
    vm.write(5, 0x10);
    vm.back_up(&one(&storage), "one", End::Failed);
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn after_a_killed_backup_no_bitmap_is_used() {
    let (storage, mut vm, _) = backed_up();
    vm.write(1, 0x10);
    vm.back_up(&one(&storage), "one", End::Killed);
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn a_failure_after_the_commit_leaves_the_new_base() {
    let (storage, mut vm, _) = backed_up();
    vm.write(1, 0x10);
    vm.back_up(&one(&storage), "one", End::FailedLater);
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn after_a_rollback_the_bitmap_that_came_back_is_not_used() {
    for vmgenid in [None, Some([7; 16])] {
        let (storage, mut vm, _) = backed_up();
        vm.incarnation.vmgenid = vmgenid;
        next(&storage, &mut vm);
        let saved = vm.clone();
        vm.write(1, 0x10);
        assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
        vm.roll_back(&saved);
        assert_eq!(next(&storage, &mut vm), BitmapMode::New);
    }
}

#[test]
fn a_migrated_guest_keeps_its_bitmap_if_its_generation_id_shows_that_it_is_the_same() {
    let (storage, mut vm, _) = backed_up();
    vm.incarnation.process = Some(process(2000, 1));
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
    vm.incarnation.vmgenid = Some([7; 16]);
    next(&storage, &mut vm);
    vm.incarnation.process = Some(process(3000, 1));
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn an_archive_that_another_host_wrote_is_no_base() {
    let (storage, mut vm, _) = backed_up();
    let mut other = Vm::new(8);
    other.incarnation.process = Some(process(77, 1));
    other.write(6, 0x66);
    other.back_up(&one(&storage), "one", End::Committed);
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
    // In a namespace of its own it disturbs nobody.
    let elsewhere = provider(&storage, "other", Some("one"), &Log::default());
    other.back_up(&elsewhere, "one", End::Committed);
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn a_lost_head_is_no_head() {
    let (storage, mut vm, _) = backed_up();
    next(&storage, &mut vm);
    for head in heads(&storage) {
        storage.remove(&head).unwrap();
    }
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
}

#[test]
fn a_head_that_came_back_from_an_older_time_is_not_believed() {
    let (storage, mut vm, _) = backed_up();
    let old = heads(&storage).pop().unwrap();
    let bytes = storage
        .read(&old, 0..storage.length(&old).unwrap())
        .unwrap();
    next(&storage, &mut vm);
    // Older than the one that counts: it changes nothing.
    storage.put(&old, &bytes).unwrap();
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
    // Under the newest one's name it does not open.
    let newest = heads(&storage).pop().unwrap();
    storage.put(&newest, &bytes).unwrap();
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
}

#[test]
fn a_repository_that_was_put_back_is_recognised_and_told() {
    let (storage, mut vm, _) = backed_up();
    let earlier = Arc::new(storage.fork());
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
    vm.write(5, 0xa5);
    let log = Log::default();
    let provider = provider(&earlier, "main", Some("one"), &log);
    let done = vm.back_up(&provider, "one", End::Committed);
    assert_eq!(done.mode, BitmapMode::New);
    assert!(restored(&provider, &done.archive) == vm.disk);
    let told = |(level, line): &(Level, String)| {
        *level == Level::Warn && line.contains("was put back from another time")
    };
    assert!(log.lines().iter().any(told), "{:?}", log.lines());
    assert_eq!(next(&earlier, &mut vm), BitmapMode::Reuse);
    // And where it was put back from lies the other way round.
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
}

#[test]
fn another_repository_under_the_same_storage_is_no_base() {
    let (storage, mut vm, _) = backed_up();
    let other = repository_storage();
    assert_eq!(next(&other, &mut vm), BitmapMode::New);
    assert_eq!(next(&other, &mut vm), BitmapMode::Reuse);
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
}

#[test]
fn a_host_that_remembers_nothing_believes_no_head() {
    let (storage, mut vm, _) = backed_up();
    let log = Log::default();
    let elsewhere = storage.clone();
    let done = std::thread::scope(|scope| {
        // Another thread has another memory.
        let run = || {
            let provider = provider(&elsewhere, "main", Some("one"), &log);
            vm.back_up(&provider, "one", End::Committed)
        };
        scope.spawn(run).join().unwrap()
    });
    assert_eq!(done.mode, BitmapMode::New);
    assert!(
        (log.lines().iter())
            .any(|(_, line)| line.contains("no backup of this guest is remembered"))
    );
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
}

#[test]
fn a_damaged_or_foreign_head_is_told_and_does_not_keep_backups_from_running() {
    let (storage, mut vm, _) = backed_up();
    let newest = heads(&storage).pop().unwrap();
    storage.damage(&newest, |bytes| bytes[40] ^= 1);
    let log = Log::default();
    let provider = provider(&storage, "main", Some("one"), &log);
    let done = vm.back_up(&provider, "one", End::Committed);
    assert_eq!(done.mode, BitmapMode::New);
    let told = |(level, line): &(Level, String)| {
        *level == Level::Info && line.contains(newest.as_str()) && line.contains("checksum")
    };
    assert!(log.lines().iter().any(told), "{:?}", log.lines());
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
    let foreign = "heads/main/vm/100/one/readme".parse().unwrap();
    storage.put(&foreign, b"?").unwrap();
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
}

#[test]
fn two_heads_of_one_sequence_are_not_believed() {
    let (storage, mut vm, _) = backed_up();
    let head = heads(&storage).pop().unwrap();
    let twin = format!(
        "{}0000000000000000",
        &head.as_str()[..head.as_str().len() - 16]
    );
    storage.put(&twin.parse().unwrap(), b"?").unwrap();
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn a_base_that_lost_a_pack_is_no_base() {
    let (storage, mut vm, _) = backed_up();
    let mut packs = Vec::new();
    storage
        .list(&"packs".parse().unwrap(), &mut |name, length| {
            packs.push((length, name.clone()));
            Ok(())
        })
        .unwrap();
    for (_, pack) in packs {
        let copy = Arc::new(storage.fork());
        copy.remove(&pack).unwrap();
        let remembered = memory().0.lock().unwrap().clone();
        assert_eq!(next(&copy, &mut vm.clone()), BitmapMode::New, "{pack}");
        *memory().0.lock().unwrap() = remembered;
    }
    assert_eq!(next(&storage, &mut vm), BitmapMode::Reuse);
}

#[test]
fn a_disk_that_grew_is_read_again() {
    let (storage, mut vm, _) = backed_up();
    vm.disk.resize(9 * support::CLUSTER, 9);
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
}

#[test]
fn without_a_storage_id_no_bitmap_with_a_fixed_name_is_made() {
    let (storage, mut vm, _) = backed_up();
    let nameless = provider(&storage, "main", None, &Log::default());
    vm.write(1, 0x10);
    let done = vm.back_up(&nameless, "one", End::Committed);
    assert_eq!(done.mode, BitmapMode::None);
    assert!(vm.bitmaps.is_empty(), "the old one is dropped");
    assert_eq!(next(&storage, &mut vm), BitmapMode::New);
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// Whatever happens, in whatever order, each archive is the disk as it was.
#[test]
fn no_order_of_events_makes_a_wrong_archive() {
    let mut reused = 0;
    for seed in 0..24 {
        let mut dice = Dice(seed * 977 + 5);
        let mut storage = repository_storage();
        let mut vm = Vm::new(6);
        vm.incarnation.vmgenid = Some([1; 16]).filter(|_| seed % 2 == 0);
        let mut saved = vm.clone();
        let mut archives: Vec<(snapkeep_api::ArchiveName, Vec<u8>)> = Vec::new();
        let mut copy = (Arc::new(storage.fork()), archives.clone());
        for step in 0..40 {
            let value = u8::try_from(100 + step).unwrap();
            match dice.below(9) {
                8 if dice.below(2) == 0 => {
                    copy = (Arc::new(storage.fork()), archives.clone());
                }
                8 => (storage, archives) = (Arc::new(copy.0.fork()), copy.1.clone()),
                0 => saved = vm.clone(),
                1 if dice.below(2) == 0 => vm.roll_back(&saved),
                2 if archives.len() > 1 => {
                    let (archive, _) = archives.remove(dice.below(archives.len()));
                    remove_archive(&storage, &archive);
                }
                3 => {
                    // Migrated: the bitmaps come along.
                    let last = vm.incarnation.process;
                    vm.incarnation.process = last.map(|now| process(now.id + 1, now.start + 1));
                }
                4 => {
                    let heads = heads(&storage);
                    if let Some(head) = heads.last().filter(|_| dice.below(3) == 0) {
                        storage.remove(head).unwrap();
                    }
                }
                _ => {
                    vm.write(dice.below(6), value);
                    let id = ["one", "two"][dice.below(2)];
                    let ends = [End::Committed, End::Committed, End::FailedLater];
                    let end = match dice.below(5) {
                        0 => End::Failed,
                        1 => End::Killed,
                        _ => ends[dice.below(3)],
                    };
                    let provider = provider(&storage, "main", Some(id), &Log::default());
                    let done = vm.back_up(&provider, id, end);
                    if done.stats.is_some() {
                        reused += u32::from(done.mode == BitmapMode::Reuse);
                        assert!(
                            restored(&provider, &done.archive) == vm.disk,
                            "{seed} {step}"
                        );
                        archives.push((done.archive, vm.disk.clone()));
                    }
                }
            }
        }
        let provider = one(&storage);
        for (archive, disk) in &archives {
            assert!(restored(&provider, archive) == *disk, "{seed} {archive}");
        }
    }
    assert!(reused > 20, "{reused} bitmaps were used");
}
