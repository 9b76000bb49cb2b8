//! Copies of archives in another repository, under other keys and in other chunks.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "how much was tried is to be seen")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use snapkeep_repo::{
    AttributeChange, Copier, CopyOutcome, ErrorKind, FaultPoint, Faulty, FileName, KeyFile,
    MemoryStorage, Repository, SnapshotName, Stats, Storage, TreeReader, verify,
};

use support::odd::OddStorage;
use support::tree::{Entry, directory, file, noise, read, store};
use support::{CHUNK, backup, disk, init, key, name, open, restore};

/// A repository that counts what is read from it.
struct Place {
    memory: Arc<MemoryStorage>,
    odd: Arc<OddStorage>,
    key: KeyFile,
}

impl Place {
    fn new() -> Self {
        let (memory, key) = (Arc::new(MemoryStorage::new()), key());
        init(&(Arc::clone(&memory) as Arc<dyn Storage>), &key).unwrap();
        let odd = OddStorage::new(Arc::clone(&memory) as Arc<dyn Storage>);
        Self { memory, odd, key }
    }

    fn open(&self) -> Arc<Repository> {
        open(&(Arc::clone(&self.odd) as Arc<dyn Storage>), &self.key).unwrap()
    }

    fn data_packs(&self) -> BTreeSet<FileName> {
        let mut packs = BTreeSet::new();
        let listed = self.memory.list(&"packs".parse().unwrap(), &mut |name, _| {
            packs.insert(name.clone());
            Ok(())
        });
        listed.unwrap();
        packs.retain(|pack| self.memory.read(pack, 10..11).unwrap() == [0]);
        packs
    }

    fn bytes(&self) -> u64 {
        let mut bytes = 0;
        for folder in ["packs", "index", "snapshots"] {
            let listed = self
                .memory
                .list(&folder.parse().unwrap(), &mut |_, length| {
                    bytes += length;
                    Ok(())
                });
            listed.unwrap();
        }
        bytes
    }
}

fn copy(source: &Place, target: &Place, name: &SnapshotName) -> CopyOutcome {
    let mut copier = Copier::new(source.open(), target.open()).unwrap();
    copier.copy(name).unwrap()
}

#[track_caller]
fn stats(outcome: &CopyOutcome) -> (Option<SnapshotName>, Stats) {
    match outcome {
        CopyOutcome::Copied { base, stats } => (base.clone(), *stats),
        CopyOutcome::Skipped => panic!("it was skipped"),
    }
}

#[track_caller]
fn is_sound(place: &Place) {
    let report = verify(&place.open()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

fn tree(place: &Place, text: &str) -> Entry {
    let record = place.open().snapshot(&name(text)).unwrap().tree.unwrap();
    read(&TreeReader::open(place.open(), &record).unwrap()).unwrap()
}

#[test]
fn a_disk_is_copied_byte_for_byte_and_the_next_one_reads_only_what_changed() {
    let (source, target) = (Place::new(), Place::new());
    let old = disk(1, 200);
    let mut new = old.clone();
    new[CHUNK..2 * CHUNK].fill(77);
    backup(&source.open(), &name("1"), None, &old).unwrap();
    backup(&source.open(), &name("2"), None, &new).unwrap();
    let (base, first) = stats(&copy(&source, &target, &name("1")));
    assert_eq!(base, None);
    assert!(first.new > 4_000_000, "{first:?}");
    assert!(restore(&target.open(), &name("1")).unwrap() == old);
    source.odd.arm(None);
    let (base, second) = stats(&copy(&source, &target, &name("2")));
    assert_eq!(base, Some(name("1")));
    assert!(second.new < 80_000, "{second:?}");
    // One chunk of data, and the nodes above it of both maps.
    assert!(second.read < CHUNK as u64 + 20_000, "{second:?}");
    let packs = source.data_packs();
    let data = source
        .odd
        .reads()
        .into_iter()
        .filter(|(name, _)| packs.contains(name));
    let ranges: BTreeSet<_> = data.map(|(name, range)| (name, range.start)).collect();
    assert!(ranges.len() <= 2, "a header and a chunk: {ranges:?}");
    assert!(restore(&target.open(), &name("2")).unwrap() == new);
    is_sound(&target);
    let origin = target.open().snapshot(&name("2")).unwrap().origin.unwrap();
    assert_eq!(origin.archive, name("2").as_str());
    assert_eq!(origin.repository, source.open().config().repository);
    // Nothing of the one key opens the other repository.
    let wrong = open(&(Arc::clone(&target.odd) as Arc<dyn Storage>), &source.key).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::WrongKey);
}

#[test]
fn an_archive_that_is_there_is_skipped_and_its_attributes_are_copied_once() {
    let (source, target) = (Place::new(), Place::new());
    backup(&source.open(), &name("1"), None, &disk(1, 3)).unwrap();
    let change = AttributeChange {
        notes: Some("kept".to_owned()),
        protected: Some(true),
        task_log: Some(source.open().store_task_log(b"the log").unwrap()),
        ..AttributeChange::default()
    };
    source
        .open()
        .change_attributes(&name("1"), &change)
        .unwrap();
    copy(&source, &target, &name("1"));
    let found = target.open().attributes(&name("1")).unwrap();
    assert_eq!(
        (found.notes.as_deref(), found.protected),
        (Some("kept"), true)
    );
    let log = target
        .open()
        .read_task_log(&found.task_log.unwrap())
        .unwrap();
    assert_eq!(log, b"the log");
    let other = AttributeChange {
        notes: Some("of the copy".to_owned()),
        ..AttributeChange::default()
    };
    target.open().change_attributes(&name("1"), &other).unwrap();
    let bytes = target.bytes();
    assert_eq!(copy(&source, &target, &name("1")), CopyOutcome::Skipped);
    assert_eq!(target.bytes(), bytes);
    let found = target.open().attributes(&name("1")).unwrap();
    assert_eq!(found.notes.as_deref(), Some("of the copy"));
    let same = Copier::new(source.open(), source.open()).unwrap_err();
    assert_eq!(same.kind(), ErrorKind::Invalid);
}

/// A container with files of every size, in a directory of several nodes too.
fn container(changed: bool) -> Entry {
    let many = (0..3000u64).map(|number| {
        let name = format!("{number:05}-{}", "x".repeat(40)).into_bytes();
        (name, file(format!("file {number}").as_bytes()))
    });
    // So large that its extents lie in nodes.
    let mut pieces = noise(1, 12_000_000);
    if changed {
        pieces[6_000_000..6_000_010].fill(1);
    }
    let mut root = vec![
        (b"large".to_vec(), file(&pieces)),
        (b"many".to_vec(), directory(many)),
        (
            b"same".to_vec(),
            directory([(b"a".to_vec(), file(&noise(2, 500_000)))]),
        ),
        (
            b"small".to_vec(),
            directory([(b"b".to_vec(), file(b"inline"))]),
        ),
    ];
    if changed {
        root.push((b"z".to_vec(), file(&noise(3, 300_000))));
    }
    directory(root)
}

#[test]
fn a_tree_is_copied_and_the_next_one_reads_only_what_changed() {
    let (source, target) = (Place::new(), Place::new());
    let (old, new) = (container(false), container(true));
    store(&source.open(), "1", &old).unwrap();
    store(&source.open(), "2", &new).unwrap();
    let (_, first) = stats(&copy(&source, &target, &name("1")));
    assert!(first.new > 12_000_000, "{first:?}");
    assert!(tree(&target, "1") == old);
    let (base, second) = stats(&copy(&source, &target, &name("2")));
    assert_eq!(base, Some(name("1")));
    println!("read {} of {}, new {}", second.read, first.read, second.new);
    assert!(second.read < 6_000_000, "{second:?}");
    assert!(second.new < 6_000_000, "{second:?}");
    assert!(tree(&target, "2") == new);
    // The same again under another name needs nothing but its own record.
    store(&source.open(), "3", &new).unwrap();
    let (base, third) = stats(&copy(&source, &target, &name("3")));
    assert_eq!((base, third.new, third.read), (Some(name("2")), 0, 0));
    assert!(tree(&target, "3") == new);
    is_sound(&target);
}

#[test]
fn a_copy_that_is_not_whole_is_no_base() {
    let (source, target) = (Place::new(), Place::new());
    let bytes = disk(1, 50);
    backup(&source.open(), &name("1"), None, &bytes).unwrap();
    backup(&source.open(), &name("2"), None, &bytes).unwrap();
    copy(&source, &target, &name("1"));
    for pack in target.data_packs() {
        target.memory.remove(&pack).unwrap();
    }
    let (base, second) = stats(&copy(&source, &target, &name("2")));
    assert_eq!(base, None);
    assert!(second.new > 1_000_000, "{second:?}");
    assert!(restore(&target.open(), &name("2")).unwrap() == bytes);
    assert!(restore(&target.open(), &name("1")).unwrap() == bytes);
    is_sound(&target);
}

#[test]
fn damage_in_the_source_is_never_copied() {
    let (source, target) = (Place::new(), Place::new());
    backup(&source.open(), &name("1"), None, &disk(1, 7)).unwrap();
    for pack in source.data_packs() {
        source.memory.damage(&pack, |bytes| bytes[40_000] ^= 1);
    }
    let mut copier = Copier::new(source.open(), target.open()).unwrap();
    let error = copier.copy(&name("1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(target.open().snapshots().unwrap().is_empty());
}

#[test]
fn a_copy_that_was_killed_sends_nothing_again_that_has_arrived() {
    let source = Place::new();
    let bytes = disk(1, 900);
    backup(&source.open(), &name("1"), None, &bytes).unwrap();
    let whole = {
        let target = Place::new();
        copy(&source, &target, &name("1"));
        target.bytes()
    };
    let mut tried = 0;
    let mut resumed = 0;
    for operation in 0.. {
        let target = Place::new();
        let faulty = Arc::new(Faulty::new(
            Arc::clone(&target.memory) as Arc<dyn Storage>,
            FaultPoint::Never,
        ));
        let opened = open(&(Arc::clone(&faulty) as Arc<dyn Storage>), &target.key).unwrap();
        let at = faulty.count() + operation;
        faulty.turn(FaultPoint::After(at));
        let mut copier = Copier::new(source.open(), opened).unwrap();
        let killed = copier.copy(&name("1"));
        let arrived: BTreeSet<_> = target.data_packs();
        copy(&source, &target, &name("1"));
        assert!(arrived.is_subset(&target.data_packs()));
        assert!(
            restore(&target.open(), &name("1")).unwrap() == bytes,
            "{operation}"
        );
        assert!(
            target.bytes() < whole + 200_000,
            "{operation}: {} of {whole}",
            target.bytes()
        );
        resumed += usize::from(!arrived.is_empty());
        is_sound(&target);
        if killed.is_ok() {
            break;
        }
        tried += 1;
    }
    println!("a copy: {tried} kills, {resumed} after packs had arrived, nothing sent twice");
    assert!(tried > 5 && resumed > 1, "{tried} {resumed}");
}

#[test]
fn a_copy_does_not_build_on_an_archive_that_was_forgotten() {
    let (source, target) = (Place::new(), Place::new());
    let old = disk(1, 200);
    let mut new = old.clone();
    new[CHUNK..2 * CHUNK].fill(77);
    backup(&source.open(), &name("1"), None, &old).unwrap();
    backup(&source.open(), &name("2"), None, &new).unwrap();
    copy(&source, &target, &name("1"));
    target.open().forget(&name("1")).unwrap();
    // Its chunks may be condemned, and about to go.
    let (base, _) = stats(&copy(&source, &target, &name("2")));
    assert_eq!(base, None);
    assert!(restore(&target.open(), &name("2")).unwrap() == new);
}
