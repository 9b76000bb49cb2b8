//! Repairs: what is told, what is healed, what a crash leaves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "how much was tried is to be seen")]

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    AttributeChange, ErrorKind, FaultPoint, Faulty, FileName, KeyFile, Lost, MemoryStorage,
    RepairPlan, Report, Repository, Storage, TreeReader, Unlock, apply_repair, plan_repair,
    rebuild_index, recover_config, verify,
};

use support::tree::{directory, file, noise, read, store};
use support::{CHUNK, backup, disk, init, key, name, open, restore};

const DATA: u8 = 0;
const NODES: u8 = 1;

/// A repository in memory and what opens it.
struct Made {
    memory: Arc<MemoryStorage>,
    key: KeyFile,
}

fn shared(memory: &Arc<MemoryStorage>) -> Arc<dyn Storage> {
    Arc::clone(memory) as _
}

impl Made {
    fn new() -> Self {
        let (memory, key) = (Arc::new(MemoryStorage::new()), key());
        init(&shared(&memory), &key).unwrap();
        Self { memory, key }
    }

    /// An archive of a disk, stored by a process of its own.
    fn back_up(&self, text: &str, bytes: &[u8]) {
        backup(&self.open(), &name(text), None, bytes).unwrap();
    }

    fn fork(&self) -> Self {
        Self {
            memory: Arc::new(self.memory.fork()),
            key: self.key.clone(),
        }
    }

    fn open(&self) -> Arc<Repository> {
        open(&shared(&self.memory), &self.key).unwrap()
    }

    fn files(&self, folder: &str) -> Vec<FileName> {
        let mut found = Vec::new();
        let listed = self.memory.list(&folder.parse().unwrap(), &mut |name, _| {
            found.push(name.clone());
            Ok(())
        });
        listed.unwrap();
        found
    }

    fn packs(&self, class: u8) -> Vec<FileName> {
        let mut packs = self.files("packs");
        packs.retain(|name| self.memory.read(name, 10..11).unwrap() == [class]);
        packs
    }

    fn plan(&self) -> (Arc<Repository>, RepairPlan) {
        let repository = self.open();
        let plan = plan_repair(&repository, &()).unwrap();
        (repository, plan)
    }

    fn repair(&self) -> RepairPlan {
        let (repository, plan) = self.plan();
        let done = apply_repair(&repository, &plan).unwrap();
        assert!(done.left.is_empty(), "{:?}", done.left);
        plan
    }

    fn verify(&self) -> Report {
        verify(&self.open()).unwrap()
    }

    /// Nothing is damaged, and the disk of this archive is what was backed up.
    #[track_caller]
    fn is_whole(&self, text: &str, bytes: &[u8]) {
        let report = self.verify();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert!(restore(&self.open(), &name(text)).unwrap() == bytes);
    }
}

fn flip(made: &Made, file: &FileName, at: usize) {
    made.memory.damage(file, |bytes| bytes[at] ^= 1);
}

fn range(offset: usize, length: usize) -> Lost {
    Lost::Range {
        device: "drive-scsi0".to_owned(),
        offset: offset as u64,
        length: length as u64,
    }
}

#[test]
fn a_data_pack_that_was_changed_inside_loses_one_chunk_and_the_next_backup_heals_it() {
    let (made, bytes) = (Made::new(), disk(1, 7));
    made.back_up("1", &bytes);
    let pack = made.packs(DATA).remove(0);
    // The second chunk of the disk is the largest: noise.
    flip(&made, &pack, 40_000);
    let before = made.memory.fork();
    let (repository, plan) = made.plan();
    assert_eq!(plan.packs.len(), 1, "{plan:?}");
    assert_eq!(
        (plan.packs[0].object.clone(), plan.packs[0].lost),
        (pack.clone(), 1)
    );
    assert!(plan.packs[0].kept > 2, "{plan:?}");
    assert_eq!(plan.archives.len(), 1);
    assert_eq!(plan.archives[0].lost, [range(CHUNK, CHUNK)]);
    assert_eq!(plan.damage_count(), 2);
    // A plan writes nothing.
    for folder in ["packs", "index", "snapshots", "attributes"] {
        let now = made.files(folder);
        let then = Made {
            memory: Arc::new(before.fork()),
            key: made.key.clone(),
        };
        assert_eq!(now, then.files(folder), "{folder}");
    }
    let done = apply_repair(&repository, &plan).unwrap();
    assert_eq!((done.packs, done.copied), (1, plan.packs[0].kept));
    assert!(!made.files("packs").contains(&pack));
    // The archive stays listed, and damaged, and what it misses is named.
    let report = made.verify();
    let named: Vec<_> = report.damage.iter().map(|d| d.object.as_str()).collect();
    assert_eq!(named, ["main/vm/100/1", pack.as_str()]);
    let again = made.plan().1;
    assert_eq!(again.archives[0].lost, [range(CHUNK, CHUNK)]);
    made.back_up("2", &bytes);
    made.is_whole("1", &bytes);
}

#[test]
fn a_chunk_that_was_found_damaged_is_not_used_again() {
    let (made, bytes) = (Made::new(), disk(1, 7));
    made.back_up("1", &bytes);
    flip(&made, &made.packs(DATA)[0].clone(), 40_000);
    made.repair();
    let packs = made.packs(DATA);
    made.back_up("2", &bytes);
    // Its chunk was stored anew, and no other.
    let new: Vec<_> = (made.packs(DATA).into_iter())
        .filter(|pack| !packs.contains(pack))
        .collect();
    assert_eq!(new.len(), 1);
    let length = usize::try_from(made.memory.length(&new[0]).unwrap()).unwrap();
    assert!((CHUNK..CHUNK + 1000).contains(&length), "{length}");
    made.is_whole("2", &bytes);
}

#[test]
fn packs_of_nodes_and_of_data_are_repaired_together_with_what_lies_beside() {
    let made = Made::new();
    let disks = [disk(1, 200), disk(2, 200)];
    made.back_up("1", &disks[0]);
    made.back_up("2", &disks[1]);
    let root = directory([
        (
            b"a".to_vec(),
            directory([(b"large".to_vec(), file(&noise(1, 400_000)))]),
        ),
        (b"b".to_vec(), file(&noise(2, 200_000))),
    ]);
    store(&made.open(), "3", &root).unwrap();
    let change = AttributeChange {
        notes: Some("x".to_owned()),
        ..AttributeChange::default()
    };
    made.open().change_attributes(&name("1"), &change).unwrap();
    for pack in [made.packs(DATA), made.packs(NODES)].concat() {
        flip(&made, &pack, 200);
    }
    let (index, attributes) = (made.files("index"), made.files("attributes"));
    flip(&made, &index[0], 70);
    flip(&made, &attributes[0], 70);
    let (_, plan) = made.plan();
    assert_eq!(plan.packs.len(), 6, "{plan:?}");
    assert_eq!(
        (plan.index.len(), plan.attributes.len()),
        (1, 1),
        "{plan:?}"
    );
    assert_eq!(plan.archives.len(), 3);
    assert!(
        plan.archives.iter().all(|archive| !archive.lost.is_empty()),
        "{plan:?}"
    );
    made.repair();
    assert!(made.open().attributes(&name("1")).unwrap().protected);
    let report = made.verify();
    let (archives, packs): (Vec<_>, Vec<_>) =
        (report.damage.iter()).partition(|damage| damage.object.starts_with("main/vm/100/"));
    assert_eq!(archives.len(), 3, "{:?}", report.damage);
    assert!(
        packs
            .iter()
            .all(|damage| damage.error.kind() == ErrorKind::NotFound),
        "{packs:?}"
    );
    made.back_up("4", &disks[0]);
    made.back_up("5", &disks[1]);
    store(&made.open(), "6", &root).unwrap();
    made.is_whole("1", &disks[0]);
    made.is_whole("2", &disks[1]);
    let record = made.open().snapshot(&name("3")).unwrap().tree.unwrap();
    assert!(read(&TreeReader::open(made.open(), &record).unwrap()).unwrap() == root);
}

#[test]
fn the_files_that_a_tree_has_lost_are_named() {
    let made = Made::new();
    let root = directory([
        (
            b"a".to_vec(),
            directory([(b"large".to_vec(), file(&noise(1, 400_000)))]),
        ),
        (b"b".to_vec(), file(b"whole")),
    ]);
    store(&made.open(), "1", &root).unwrap();
    let pack = made.packs(DATA).remove(0);
    flip(&made, &pack, 100_000);
    let (_, plan) = made.plan();
    assert_eq!(plan.archives[0].lost, [Lost::File(b"/a/large".to_vec())]);
}

type Change = fn(&Made, &[FileName]);

#[test]
fn packs_that_are_cut_swapped_or_without_a_header_keep_what_opens() {
    let bytes = [disk(1, 7), disk(2, 7)];
    let made = Made::new();
    made.back_up("1", &bytes[0]);
    made.back_up("2", &bytes[1]);
    let packs = made.packs(DATA);
    let cases: [(&str, Change, u64, u64); 5] = [
        (
            "cut",
            |made, packs| made.memory.damage(&packs[0], |b| b.truncate(b.len() - 500)),
            4,
            2,
        ),
        (
            "longer",
            |made, packs| made.memory.damage(&packs[0], |b| b.push(0)),
            6,
            0,
        ),
        (
            "without a header",
            |made, packs| flip(made, &packs[0], 60),
            0,
            6,
        ),
        (
            "zeroes",
            |made, packs| made.memory.damage(&packs[0], |b| b.fill(0)),
            0,
            6,
        ),
        (
            "swapped",
            |made, packs| {
                let read = |at: usize| {
                    let length = made.memory.length(&packs[at]).unwrap();
                    made.memory.read(&packs[at], 0..length).unwrap()
                };
                let both = [read(0), read(1)];
                made.memory.put(&packs[0], &both[1]).unwrap();
                made.memory.put(&packs[1], &both[0]).unwrap();
            },
            12,
            0,
        ),
    ];
    let mut seen = Vec::new();
    for (what, change, most, least_lost) in cases {
        let made = made.fork();
        change(&made, &packs);
        let plan = made.repair();
        let kept: u64 = plan.packs.iter().map(|pack| pack.kept).sum();
        let lost: u64 = plan.packs.iter().map(|pack| pack.lost).sum();
        seen.push(format!("{what}: {kept} kept, {lost} lost"));
        assert!(kept <= most && lost >= least_lost, "{seen:?}");
        assert!(kept > 0 || most == 0, "{seen:?}");
        assert_eq!(plan.lossy() > 0, lost > 0, "{what}: {plan:?}");
        if lost == 0 {
            made.is_whole("1", &bytes[0]);
        }
        made.back_up("3", &bytes[0]);
        made.back_up("4", &bytes[1]);
        made.is_whole("1", &bytes[0]);
        made.is_whole("2", &bytes[1]);
    }
    println!("{seen:?}");
}

#[test]
fn what_nobody_knows_stays_until_it_is_moved_away_by_name() {
    let (made, bytes) = (Made::new(), disk(1, 3));
    made.back_up("1", &bytes);
    let junk = vec![7; 500];
    let id = blake3::hash(&junk).to_hex();
    let file: FileName = format!("packs/{}/{id}", &id[..2]).parse().unwrap();
    made.memory.put(&file, &junk).unwrap();
    let plan = made.repair();
    assert_eq!(plan.strange.len(), 1, "{plan:?}");
    assert_eq!(plan.strange[0].object, file.as_str());
    assert!(made.files("packs").contains(&file));
    let (repository, plan) = made.plan();
    let good = made.packs(DATA).remove(0);
    let refused = repository.take_away(&plan, good.as_str(), &mut |_| Ok(()));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    let mut kept = Vec::new();
    let mut keep = |bytes: &[u8]| {
        kept.extend_from_slice(bytes);
        Ok(())
    };
    repository
        .take_away(&plan, file.as_str(), &mut keep)
        .unwrap();
    assert!(kept == junk);
    made.is_whole("1", &bytes);
}

#[test]
fn an_index_is_rebuilt_whatever_became_of_the_old_one() {
    let (made, bytes) = (Made::new(), disk(1, 7));
    made.back_up("1", &bytes);
    made.back_up("2", &disk(2, 3));
    let objects = made.files("index");
    made.memory.remove(&objects[0]).unwrap();
    flip(&made, &objects[1], 50);
    assert_eq!(rebuild_index(&made.open()).unwrap(), 1);
    let report = made.verify();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    // Nobody has to read a pack's own table from here on.
    let counted = Arc::new(Faulty::new(shared(&made.memory), FaultPoint::Never));
    open(&(Arc::clone(&counted) as Arc<dyn Storage>), &made.key).unwrap();
    for pack in made.files("packs") {
        made.memory.damage(&pack, |bytes| {
            let length = bytes.len();
            bytes[length - 20] ^= 1;
        });
    }
    let repository = made.open();
    assert!(restore(&repository, &name("1")).unwrap() == bytes);
}

#[test]
fn a_lost_config_is_made_again_by_the_recovery_kit_and_a_snapshot() {
    let (made, bytes) = (Made::new(), disk(1, 3));
    let config: FileName = "config".parse().unwrap();
    let storage = shared(&made.memory);
    let kit = made.open().recovery_kit().unwrap();
    let lost = made.fork();
    lost.memory.remove(&config).unwrap();
    let none = recover_config(&shared(&lost.memory), &kit, true).unwrap_err();
    assert_eq!(
        none.kind(),
        ErrorKind::WrongKey,
        "it has no snapshot: {none}"
    );
    made.back_up("1", &bytes);
    let whole = recover_config(&storage, &kit, true).unwrap_err();
    assert_eq!(whole.kind(), ErrorKind::Exists);
    let old = made
        .memory
        .read(&config, 0..made.memory.length(&config).unwrap())
        .unwrap();
    for lost in [true, false] {
        if lost {
            made.memory.remove(&config).unwrap();
        } else {
            flip(&made, &config, 100);
        }
        let other = Made::new().open().recovery_kit().unwrap();
        let wrong = recover_config(&storage, &other, true).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::WrongKey);
        recover_config(&storage, &kit, false).unwrap();
        let unlock = Unlock::KeyFile(made.key.clone());
        let random = Arc::new(snapkeep_repo::SystemRandom);
        assert!(Repository::open(Arc::clone(&storage), random, &unlock).is_err());
        recover_config(&storage, &kit, true).unwrap();
        let new = made
            .memory
            .read(&config, 0..made.memory.length(&config).unwrap());
        assert!(new.unwrap() == old);
        made.is_whole("1", &bytes);
    }
}

/// What of a repository's archives nobody can read.
fn losses(made: &Made) -> Vec<(String, Vec<Lost>)> {
    let (_, plan) = made.plan();
    let losses = plan.archives.into_iter();
    losses
        .map(|archive| (archive.archive.to_string(), archive.lost))
        .filter(|(_, lost)| !lost.is_empty())
        .collect()
}

#[test]
fn a_crash_at_any_operation_of_a_repair_loses_nothing_more() {
    let (made, bytes) = (Made::new(), [disk(1, 40), disk(2, 40)]);
    made.back_up("1", &bytes[0]);
    made.back_up("2", &bytes[1]);
    let change = AttributeChange {
        notes: Some("x".to_owned()),
        ..AttributeChange::default()
    };
    made.open().change_attributes(&name("1"), &change).unwrap();
    flip(&made, &made.packs(DATA)[0].clone(), 40_000);
    flip(&made, &made.packs(NODES)[1].clone(), 200);
    flip(&made, &made.files("index")[0].clone(), 70);
    flip(&made, &made.files("attributes")[0].clone(), 70);
    let expected = losses(&made);
    assert!(!expected.is_empty());
    let mut tried = 0;
    for after in [false, true] {
        for operation in 0.. {
            let crashed = made.fork();
            let point = |at| {
                if after {
                    FaultPoint::After(at)
                } else {
                    FaultPoint::Before(at)
                }
            };
            let counter = Arc::new(Faulty::new(shared(&crashed.memory), FaultPoint::Never));
            let opened = open(&(Arc::clone(&counter) as Arc<dyn Storage>), &crashed.key).unwrap();
            let plan = plan_repair(&opened, &()).unwrap();
            // From here on operations count.
            let begun = counter.count();
            counter.turn(point(begun + operation));
            let done = apply_repair(&opened, &plan);
            let ended = done.as_ref().is_ok_and(|done| done.left.is_empty());
            drop(opened);
            let what = point(operation);
            assert_eq!(losses(&crashed), expected, "{what:?}");
            crashed.repair();
            assert_eq!(losses(&crashed), expected, "{what:?}, then repaired");
            crashed.back_up("3", &bytes[0]);
            crashed.back_up("4", &bytes[1]);
            crashed.is_whole("1", &bytes[0]);
            crashed.is_whole("2", &bytes[1]);
            if ended && counter.count() <= begun + operation {
                break;
            }
            tried += 1;
        }
    }
    println!("a repair: {tried} crashes, nothing more lost, all healed by the next backups");
    assert!(tried > 20, "{tried}");
}
