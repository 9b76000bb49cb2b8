//! How much a verification reads, what it calls damage, and what it remembers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "how much was tried is to be seen")]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use snapkeep_repo::{
    Counted, Depth, ErrorKind, FileName, Follow, KeyFile, MemoryStorage, Repository, Result,
    SnapshotName, Storage, VerificationMode, VerificationState, is_verified_since,
    keep_verification, plan_repair, verify, verify_with,
};

use support::odd::{Odd, OddStorage};
use support::tree::{directory, file, noise, store};
use support::{backup, disk, init, key, name, open};

/// A repository with two disks of their own data and a tree.
struct Made {
    memory: Arc<MemoryStorage>,
    key: KeyFile,
}

impl Made {
    fn new() -> Self {
        let (memory, key) = (Arc::new(MemoryStorage::new()), key());
        let storage: Arc<dyn Storage> = Arc::clone(&memory) as _;
        let repository = init(&storage, &key).unwrap();
        backup(&repository, &name("1"), None, &disk(1, 40)).unwrap();
        backup(&repository, &name("2"), None, &disk(2, 40)).unwrap();
        let tree = directory([
            (b"large".to_vec(), file(&noise(1, 300_000))),
            (b"small".to_vec(), file(b"in a bundle")),
        ]);
        store(&repository, "3", &tree).unwrap();
        Self { memory, key }
    }

    /// Opened on a storage that answers as it is told to from here on.
    fn odd(&self) -> (Arc<OddStorage>, Arc<Repository>) {
        let storage = OddStorage::new(Arc::new(self.memory.fork()));
        let repository = open(&(Arc::clone(&storage) as Arc<dyn Storage>), &self.key).unwrap();
        storage.arm(None);
        (storage, repository)
    }

    fn open(&self) -> Arc<Repository> {
        open(&(Arc::clone(&self.memory) as Arc<dyn Storage>), &self.key).unwrap()
    }

    /// The data packs, in the order of the archives.
    fn data_packs(&self) -> Vec<FileName> {
        let mut packs = Vec::new();
        let listed = self.memory.list(&"packs".parse().unwrap(), &mut |name, _| {
            packs.push(name.clone());
            Ok(())
        });
        listed.unwrap();
        packs.retain(|pack| self.memory.read(pack, 10..11).unwrap() == [0]);
        packs
    }
}

fn sample(share: u16, seed: u64) -> Depth {
    Depth::Sample { share, seed }
}

const DEPTHS: [Depth; 3] = [
    Depth::Everything,
    Depth::Metadata,
    Depth::Sample {
        share: 500,
        seed: 7,
    },
];

#[test]
fn what_a_storage_answers_wrongly_once_is_never_called_damage() {
    let made = Made::new();
    let mut tried = 0;
    for depth in DEPTHS {
        let (storage, repository) = made.odd();
        verify_with(&repository, depth, None, &()).unwrap();
        for at in 0..storage.count() {
            for odd in [Odd::Wrong, Odd::Short, Odd::Cut, Odd::Fails] {
                let (storage, repository) = made.odd();
                storage.arm(Some((at, odd)));
                let report = verify_with(&repository, depth, None, &()).unwrap();
                let what = format!("{depth:?}, read {at} is {odd:?}");
                assert!(report.damage.is_empty(), "{what}: {:?}", report.damage);
                assert!(
                    odd == Odd::Fails || report.unread.is_empty(),
                    "{what}: {:?}",
                    report.unread
                );
                // Two threads may both read what one would have read for the other.
                tried += u32::from(storage.count() > at);
            }
        }
    }
    println!("{tried} odd answers, none called damage");
    assert!(tried > 100, "{tried}");
}

#[test]
fn an_index_that_is_read_wrongly_once_is_never_called_damage() {
    let made = Made::new();
    let storage = OddStorage::new(Arc::new(made.memory.fork()));
    let opened =
        |storage: &Arc<OddStorage>| open(&(Arc::clone(storage) as Arc<dyn Storage>), &made.key);
    opened(&storage).unwrap();
    for at in 0..storage.count() {
        let storage = OddStorage::new(Arc::new(made.memory.fork()));
        storage.arm(Some((at, Odd::Wrong)));
        // Its config and its keys may keep it from opening.
        let Ok(repository) = opened(&storage) else {
            assert!(at < 2, "{at}");
            continue;
        };
        let report = verify(&repository).unwrap();
        assert!(report.damage.is_empty(), "{at}: {:?}", report.damage);
    }
}

#[test]
fn what_a_storage_cannot_read_is_unread_and_keeps_nothing() {
    let made = Made::new();
    let (storage, repository) = made.odd();
    let judged = Memory::default();
    for at in 0.. {
        storage.arm(Some((at, Odd::Fails)));
        let report = verify_with(&repository, Depth::Everything, None, &judged).unwrap();
        assert!(report.damage.is_empty(), "{at}: {:?}", report.damage);
        if storage.count() <= at {
            assert!(report.unread.is_empty());
            break;
        }
    }
    assert!(judged.damaged.lock().unwrap().is_empty());
}

#[test]
fn damage_stays_damage_when_it_is_read_again() {
    let made = Made::new();
    let pack = &made.data_packs()[0];
    made.memory.damage(pack, |bytes| bytes[200] ^= 1);
    let report = verify(&made.open()).unwrap();
    let named: Vec<_> = report.damage.iter().map(|d| d.object.as_str()).collect();
    assert!(named.contains(&pack.as_str()), "{named:?}");
    assert_eq!(named.len(), 2, "the pack and an archive: {named:?}");
}

#[test]
fn metadata_alone_reads_no_data_and_names_packs_that_are_gone_or_cut() {
    let made = Made::new();
    let packs = made.data_packs();
    let (storage, repository) = made.odd();
    let report = verify_with(&repository, Depth::Metadata, None, &()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert_eq!(report.snapshots, 3);
    let reads = storage.reads();
    assert!(!reads.is_empty());
    assert!(
        reads.iter().all(|(name, _)| !packs.contains(name)),
        "{reads:?}"
    );
    for gone in [true, false] {
        let cut = made.memory.fork();
        if gone {
            cut.remove(&packs[0]).unwrap();
        } else {
            cut.damage(&packs[0], |bytes| bytes.truncate(bytes.len() - 1));
        }
        let repository = open(&(Arc::new(cut) as Arc<dyn Storage>), &made.key).unwrap();
        let report = verify_with(&repository, Depth::Metadata, None, &()).unwrap();
        let damaged = report.archives.iter().filter(|(_, found)| found.is_err());
        assert_eq!(damaged.count(), 1, "{:?}", report.archives);
        let named = report.damage.iter().any(|d| d.object == packs[0].as_str());
        assert!(named, "{:?}", report.damage);
    }
}

#[test]
fn a_pack_that_is_gone_is_named_with_the_archives_that_need_it_however_little_is_read() {
    let made = Made::new();
    backup(&made.open(), &name("4"), None, &disk(1, 40)).unwrap();
    let all: Vec<FileName> = files(&made.memory, "packs");
    let data = made.data_packs();
    let mut shared = Vec::new();
    for pack in &all {
        let cut = Arc::new(made.memory.fork());
        cut.remove(pack).unwrap();
        let repository = open(&(Arc::clone(&cut) as Arc<dyn Storage>), &made.key).unwrap();
        let mut needing = BTreeSet::new();
        for depth in DEPTHS {
            for chosen in [None, Some(repository.all_snapshots_of(None).unwrap())] {
                let report = verify_with(&repository, depth, chosen.as_deref(), &()).unwrap();
                let told: Vec<_> = (report.damage.iter())
                    .filter(|damage| damage.object.starts_with("packs/"))
                    .collect();
                assert_eq!(told.len(), 1, "{depth:?}: {:?}", report.damage);
                assert_eq!(told[0].object, pack.as_str());
                let damaged = (report.archives.iter()).filter(|(_, judged)| judged.is_err());
                let damaged: BTreeSet<_> = damaged.map(|(name, _)| name.to_string()).collect();
                let said = told[0].error.to_string();
                assert!(damaged.iter().all(|name| said.contains(name)), "{said}");
                let others = (report.archives.iter()).filter(|(_, judged)| judged.is_ok());
                for (other, _) in others {
                    assert!(!said.contains(other.as_str()), "{said}");
                }
                needing = damaged;
            }
        }
        if data.contains(pack) && needing.contains(name("1").as_str()) {
            assert!(needing.contains(name("4").as_str()), "{needing:?}");
            shared.push(pack.clone());
        }
        let plan = plan_repair(&repository, &()).unwrap();
        assert!(plan.packs.is_empty(), "{plan:?}");
        let others: Vec<_> = plan.others.iter().map(|d| d.object.as_str()).collect();
        assert_eq!(others, [pack.as_str()]);
    }
    // One that nobody needs is missed by nobody.
    let cut = Arc::new(made.memory.fork());
    let [shared] = &shared[..] else {
        panic!("{shared:?}")
    };
    cut.remove(shared).unwrap();
    for number in ["1", "4"] {
        let snapshot = format!("snapshots/{}", name(number));
        cut.remove(&snapshot.parse().unwrap()).unwrap();
    }
    let report = verify(&open(&(cut as Arc<dyn Storage>), &made.key).unwrap()).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

fn files(memory: &MemoryStorage, folder: &str) -> Vec<FileName> {
    let mut files = Vec::new();
    let listed = memory.list(&folder.parse().unwrap(), &mut |name, _| {
        files.push(name.clone());
        Ok(())
    });
    listed.unwrap();
    files
}

#[test]
fn a_seed_chooses_the_same_sample_again_and_another_seed_another() {
    let made = Made::new();
    let reads = |depth| {
        let (storage, repository) = made.odd();
        let report = verify_with(&repository, depth, None, &()).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        // Two threads may both read what one would have read for the other.
        let reads: BTreeSet<_> = (storage.reads().into_iter())
            .map(|(name, range)| (name, range.start, range.end))
            .collect();
        reads
    };
    assert_eq!(reads(sample(300, 7)), reads(sample(300, 7)));
    let samples: BTreeSet<_> = (0..20).map(|seed| reads(sample(300, seed))).collect();
    assert!(samples.len() > 15, "{}", samples.len());
    let bytes = |depth| {
        let reads = reads(depth);
        reads.iter().map(|(_, from, to)| to - from).sum::<u64>()
    };
    assert!(bytes(sample(0, 1)) <= bytes(Depth::Metadata));
    assert!(bytes(sample(1000, 1)) >= bytes(Depth::Everything));
}

#[test]
fn samples_find_damage_some_time() {
    let made = Made::new();
    let pack = &made.data_packs()[0];
    made.memory.damage(pack, |bytes| bytes[200] ^= 1);
    let repository = made.open();
    let found = (0..40)
        .filter(|seed| {
            let report = verify_with(&repository, sample(300, *seed), None, &()).unwrap();
            !report.damage.is_empty()
        })
        .count();
    assert!((1..40).contains(&found), "{found}");
}

#[test]
fn archives_that_are_named_are_read_alone() {
    let made = Made::new();
    let (storage, repository) = made.odd();
    let wanted = [name("1")];
    let report = verify_with(&repository, Depth::Everything, Some(&wanted), &()).unwrap();
    assert_eq!((report.snapshots, report.packs), (1, 0));
    let read: BTreeSet<_> = (storage.reads().into_iter().map(|(name, _)| name))
        .filter(|name| made.data_packs().contains(name))
        .collect();
    assert_eq!(read.len(), 1, "{read:?}");
}

/// Remembers what was proven.
#[derive(Default)]
struct Memory {
    proven: Mutex<BTreeSet<String>>,
    damaged: Mutex<BTreeSet<String>>,
}

impl Follow for Memory {
    fn was_proven(&self, object: &str) -> bool {
        self.proven.lock().unwrap().contains(object)
    }

    fn proven(&self, object: &str) {
        self.proven.lock().unwrap().insert(object.to_owned());
    }

    fn judged(&self, archive: &SnapshotName, found: &Result<()>) {
        match found {
            Ok(()) => self.proven(archive.as_str()),
            Err(_) => drop(self.damaged.lock().unwrap().insert(archive.to_string())),
        }
    }
}

#[test]
fn an_interrupted_verification_goes_on_where_it_was() {
    let made = Made::new();
    let (storage, repository) = made.odd();
    let whole = verify(&repository).unwrap();
    let reads = storage.count();
    for at in 0..reads {
        let memory = Memory::default();
        let (storage, repository) = made.odd();
        storage.arm(Some((at, Odd::Cancelled)));
        let error = verify_with(&repository, Depth::Everything, None, &memory).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        assert!(memory.damaged.lock().unwrap().is_empty());
        let proven = memory.proven.lock().unwrap().clone();
        storage.arm(None);
        let report = verify_with(&repository, Depth::Everything, None, &memory).unwrap();
        assert!(report.damage.is_empty() && report.unread.is_empty());
        assert_eq!(report.packs + report.packs_before, whole.packs, "{at}");
        assert_eq!(report.snapshots + report.snapshots_before, 3, "{at}");
        assert_eq!(
            proven.len() as u64,
            report.packs_before + report.snapshots_before
        );
        for (file, _) in storage.reads() {
            let data = made.data_packs().contains(&file);
            assert!(
                !data || !proven.contains(file.as_str()),
                "{file} was read again"
            );
        }
    }
}

#[test]
fn damage_is_not_remembered_as_proven() {
    let made = Made::new();
    let pack = &made.data_packs()[0];
    made.memory.damage(pack, |bytes| bytes[200] ^= 1);
    let (memory, repository) = (Memory::default(), made.open());
    let verify = || verify_with(&repository, Depth::Everything, None, &memory).unwrap();
    let first = verify();
    let again = verify();
    assert_eq!((first.damage.len(), again.damage.len()), (2, 2));
    assert_eq!((again.packs, again.snapshots_before), (1, 2));
}

#[test]
fn a_result_of_less_neither_hides_damage_nor_the_age_of_a_whole_one() {
    let made = Made::new();
    let repository = made.open();
    let archive = name("1");
    let keep = |found: &Result<()>, depth, time| {
        keep_verification(&repository, &archive, found, depth, time, "test").unwrap();
        repository
            .attributes(&archive)
            .unwrap()
            .verification
            .unwrap()
    };
    let some = sample(10, 1);
    let damage = Err(snapkeep_repo::Error::new(ErrorKind::Corrupt, "damage"));
    let good = VerificationState::Good;
    let bad = VerificationState::Damaged;
    let whole = keep(&Ok(()), Depth::Everything, 1000);
    assert_eq!(
        (whole.state, whole.good_by_everything()),
        (good, Some(1000))
    );
    // Both times are told.
    let sampled = keep(&Ok(()), some, 2000);
    assert_eq!(
        (sampled.mode, sampled.time),
        (VerificationMode::Sample, 2000)
    );
    assert_eq!(sampled.good_by_everything(), Some(1000));
    assert!(is_verified_since(Some(&sampled), some, 2000));
    assert!(is_verified_since(Some(&sampled), Depth::Metadata, 2000));
    assert!(!is_verified_since(Some(&sampled), Depth::Everything, 1001));
    assert!(is_verified_since(Some(&sampled), Depth::Everything, 1000));
    let listed = keep(&Ok(()), Depth::Metadata, 3000);
    assert_eq!(listed.good_by_everything(), Some(1000));
    assert!(!is_verified_since(Some(&listed), some, 2000));
    // Damage that a sample found stays until everything was read.
    let found = keep(&damage, some, 4000);
    assert_eq!((found.state, found.good_by_everything()), (bad, Some(1000)));
    assert!(!is_verified_since(Some(&found), Depth::Metadata, 0));
    for depth in [Depth::Metadata, some] {
        assert_eq!(keep(&Ok(()), depth, 5000), found);
    }
    assert_eq!(keep(&Ok(()), Depth::Everything, 6000).state, good);
    // What was missing and is there again, every look can tell.
    assert_eq!(keep(&damage, Depth::Metadata, 7000).state, bad);
    assert_eq!(keep(&Ok(()), Depth::Metadata, 8000).state, good);
    assert!(!is_verified_since(None, Depth::Metadata, 0));
}

/// How often a verification asks for ranges if so many archives of one tree miss the same pack.
fn reads_with_a_missing_pack(archives: usize) -> u64 {
    let memory = Arc::new(MemoryStorage::new());
    let (storage, key) = (Arc::clone(&memory) as Arc<dyn Storage>, key());
    let repository = init(&storage, &key).unwrap();
    let large = (b"large".to_vec(), file(&noise(1, 300_000)));
    store(&repository, "0", &directory([large.clone()])).unwrap();
    let packs = data_packs(&memory);
    assert_eq!(packs.len(), 1);
    let folder = |number: usize| {
        let text = |n: usize| format!("{number}-{n}-{}", "x".repeat(200)).into_bytes();
        let files = (0..150).map(|n| (text(n), file(&text(n))));
        (text(0), directory(files.collect::<Vec<_>>()))
    };
    let mut entries: Vec<_> = (0..30).map(folder).collect();
    entries.push(large);
    let tree = directory(entries);
    for number in 1..=archives {
        store(&repository, &number.to_string(), &tree).unwrap();
    }
    memory.remove(packs.first().unwrap()).unwrap();
    let counted = Arc::new(Counted::new(storage));
    let repository = open(&(Arc::clone(&counted) as Arc<dyn Storage>), &key).unwrap();
    counted.take();
    let damage = verify(&repository).unwrap().damage;
    let pack = packs.first().unwrap().to_string();
    let told = damage.iter().find(|damage| damage.object == pack);
    let told = told.expect("the pack is named").error.to_string();
    assert!(told.contains("archives that need it"), "{told}");
    counted.take().reads
}

fn data_packs(memory: &MemoryStorage) -> BTreeSet<FileName> {
    let mut packs = BTreeSet::new();
    let listed = memory.list(&"packs".parse().unwrap(), &mut |name, _| {
        packs.insert(name.clone());
        Ok(())
    });
    listed.unwrap();
    packs.retain(|pack| memory.read(pack, 10..11).unwrap() == [0]);
    packs
}

#[test]
fn what_is_whole_in_one_damaged_archive_is_not_looked_at_again_in_the_next() {
    let (few, many) = (reads_with_a_missing_pack(2), reads_with_a_missing_pack(12));
    println!("reads with 2 damaged archives: {few}, with 12: {many}");
    assert!(many - few < 10 * 12, "{few} {many}");
}
