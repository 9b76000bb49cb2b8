//! Files of a repository that are swapped, cut, longer, gone or another's: the error names the
//! object, other archives restore, and the next full backup is right.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_repo::{ErrorKind, FileName, KeyFile, MemoryStorage, Storage, verify};

use support::{backup, disk, init, key, name, open, restore};

/// A repository with two archives of different disks of one size.
struct Two {
    storage: Arc<MemoryStorage>,
    key: KeyFile,
    disks: [Vec<u8>; 2],
    /// For each archive its data pack, index object and snapshot.
    files: [[FileName; 3]; 2],
}

fn list(storage: &MemoryStorage, folder: &str) -> Vec<FileName> {
    let mut found = Vec::new();
    let listed = storage.list(&folder.parse().unwrap(), &mut |name, _| {
        found.push(name.clone());
        Ok(())
    });
    listed.unwrap();
    found
}

fn read(storage: &MemoryStorage, name: &FileName) -> Vec<u8> {
    storage
        .read(name, 0..storage.length(name).unwrap())
        .unwrap()
}

fn shared(storage: &Arc<MemoryStorage>) -> Arc<dyn Storage> {
    Arc::clone(storage) as Arc<dyn Storage>
}

impl Two {
    fn make() -> Self {
        let (storage, key) = (Arc::new(MemoryStorage::new()), key());
        let disks = [disk(1, 7), disk(2, 7)];
        init(&shared(&storage), &key).unwrap();
        let mut known: Vec<FileName> = Vec::new();
        let files = ["1", "2"].map(|text| {
            let repository = open(&shared(&storage), &key).unwrap();
            let bytes = &disks[usize::from(text != "1")];
            backup(&repository, &name(text), None, bytes).unwrap();
            ["packs", "index", "snapshots"].map(|folder| {
                let mut new = list(&storage, folder);
                new.retain(|file| !known.contains(file));
                known.extend(new.iter().cloned());
                // Of the packs the one with guests' bytes.
                new.retain(|file| folder != "packs" || read(&storage, file)[10] == 0);
                assert_eq!(new.len(), 1, "{new:?}");
                new.remove(0)
            })
        });
        Self {
            storage,
            key,
            disks,
            files,
        }
    }

    fn copy(&self) -> Self {
        Self {
            storage: Arc::new(self.storage.fork()),
            key: self.key.clone(),
            disks: self.disks.clone(),
            files: self.files.clone(),
        }
    }

    /// The first archive restores, the second does or its error has one of these words, and a
    /// full backup of the second disk is right; whether the second restored before and after.
    fn judge(&self, what: &str, words: &[&str]) -> (bool, bool) {
        let repository = open(&shared(&self.storage), &self.key).unwrap();
        assert!(
            restore(&repository, &name("1")).unwrap() == self.disks[0],
            "{what}"
        );
        let second = || match restore(&repository, &name("2")) {
            Ok(bytes) => {
                assert!(bytes == self.disks[1], "{what}: other bytes");
                true
            }
            Err(e) => {
                let chain = e.chain();
                assert!(words.iter().any(|w| chain.contains(w)), "{what}: {chain}");
                false
            }
        };
        let before = second();
        backup(&repository, &name("3"), None, &self.disks[1]).unwrap();
        (before, second())
    }
}

type Change = fn(&mut Vec<u8>);

#[test]
fn a_pack_that_is_cut_longer_or_gone_is_healed_by_the_next_full_backup() {
    let two = Two::make();
    let cases: [(&str, Change); 4] = [
        ("cut", |bytes| bytes.truncate(bytes.len() - 1)),
        ("cut to nothing", Vec::clear),
        ("longer", |bytes| bytes.push(0)),
        ("gone", Vec::clear),
    ];
    for (what, change) in cases {
        let two = two.copy();
        let [pack, ..] = &two.files[1];
        two.storage.damage(pack, change);
        if what == "gone" {
            two.storage.remove(pack).unwrap();
        }
        let report = verify(&open(&shared(&two.storage), &two.key).unwrap()).unwrap();
        let named: Vec<&str> = report.damage.iter().map(|d| d.object.as_str()).collect();
        assert!(named.contains(&"main/vm/100/2"), "{what}: {named:?}");
        assert!(
            what == "gone" || named.contains(&pack.as_str()),
            "{what}: {named:?}"
        );
        let id = pack.as_str().rsplit_once('/').unwrap().1;
        let (before, after) = two.judge(what, &["is in no pack", id]);
        assert!(!before && after, "{what}: {before} {after}");
    }
}

#[test]
fn packs_under_each_others_names_are_named_and_never_read_as_other_bytes() {
    let two = Two::make();
    let packs = [&two.files[0][0], &two.files[1][0]];
    let [first, second] = packs.map(|pack| read(&two.storage, pack));
    two.storage.put(packs[0], &second).unwrap();
    two.storage.put(packs[1], &first).unwrap();
    let repository = open(&shared(&two.storage), &two.key).unwrap();
    let report = verify(&repository).unwrap();
    for pack in packs {
        let named = report.damage.iter().any(|d| d.object == pack.as_str());
        assert!(named, "{pack}: {:?}", report.damage);
    }
    for (text, bytes) in ["1", "2"].iter().zip(&two.disks) {
        match restore(&repository, &name(text)) {
            Ok(found) => assert!(found == *bytes, "other bytes"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "{e}"),
        }
    }
    // By hand: each to the name that is its hash.
    two.storage.put(packs[0], &first).unwrap();
    two.storage.put(packs[1], &second).unwrap();
    let repository = open(&shared(&two.storage), &two.key).unwrap();
    assert!(verify(&repository).unwrap().damage.is_empty());
}

#[test]
fn a_damaged_index_object_is_named_and_nothing_is_lost() {
    let two = Two::make();
    let object = two.files[1][1].clone();
    two.storage.damage(&object, |bytes| bytes[30] ^= 1);
    let report = verify(&open(&shared(&two.storage), &two.key).unwrap()).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    assert_eq!(report.damage[0].object, object.as_str());
    assert_eq!(two.judge("a damaged index object", &[]), (true, true));
}

#[test]
fn files_of_somebody_elses_repository_are_named() {
    let (two, other) = (Two::make(), Two::make());
    // A snapshot, under the name of ours.
    let mixed = two.copy();
    let snapshot = &two.files[1][2];
    let theirs = read(&other.storage, snapshot);
    mixed.storage.put(snapshot, &theirs).unwrap();
    let judged = mixed.judge("their snapshot", &[snapshot.as_str()]);
    assert_eq!(judged, (false, false));
    // Their packs and index objects among ours.
    let mixed = two.copy();
    for file in &other.files[1][..2] {
        mixed
            .storage
            .put(file, &read(&other.storage, file))
            .unwrap();
    }
    assert_eq!(mixed.judge("their packs", &[]), (true, true));
    let report = verify(&open(&shared(&mixed.storage), &two.key).unwrap()).unwrap();
    let mut named: Vec<&str> = report.damage.iter().map(|d| d.object.as_str()).collect();
    named.sort_unstable();
    let [pack, object, _] = &other.files[1];
    assert_eq!(named, [object.as_str(), pack.as_str()]);
    // Their config, and the whole of theirs at our place.
    let mixed = two.copy();
    let config = "config".parse().unwrap();
    mixed
        .storage
        .put(&config, &read(&other.storage, &config))
        .unwrap();
    let error = open(&shared(&mixed.storage), &two.key).expect_err("their config");
    assert!(error.to_string().contains("config"), "{error}");
    let error = open(&shared(&other.storage), &two.key).expect_err("their repository");
    assert_eq!(error.kind(), ErrorKind::WrongKey, "{error}");
}

#[test]
fn what_has_a_packs_name_and_is_none_is_named_and_harms_nothing() {
    let two = Two::make();
    let mut junk: Vec<FileName> = (1..=100)
        .map(|length| {
            let bytes = vec![7; length * 5];
            let id = blake3::hash(&bytes).to_hex();
            let name = format!("packs/{}/{id}", &id[..2]).parse().unwrap();
            two.storage.put(&name, &bytes).unwrap();
            name
        })
        .collect();
    junk.sort();
    let report = verify(&open(&shared(&two.storage), &two.key).unwrap()).unwrap();
    let named: Vec<&str> = report.damage.iter().map(|d| d.object.as_str()).collect();
    let expected: Vec<&str> = junk.iter().map(FileName::as_str).collect();
    assert_eq!(named, expected);
    assert_eq!(report.snapshots, 2);
    assert_eq!(two.judge("junk among the packs", &[]), (true, true));
}

#[test]
fn a_newer_version_of_config_is_refused_by_its_number() {
    let two = Two::make();
    let config = "config".parse().unwrap();
    let text = String::from_utf8(read(&two.storage, &config)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let json = lines[1].replace("\"version\":1", "\"version\":2");
    assert_ne!(json, lines[1]);
    let covered = format!("{}\n{json}\n", lines[0]);
    let sum = blake3::hash(covered.as_bytes()).to_hex();
    let newer = format!("{covered}blake3 {sum}\n{}\n", lines[3]);
    two.storage.put(&config, newer.as_bytes()).unwrap();
    let error = open(&shared(&two.storage), &two.key).expect_err("it is newer");
    assert_eq!(error.kind(), ErrorKind::Version);
    assert!(error.to_string().contains("format 2"), "{error}");
    two.storage.put(&config, text.as_bytes()).unwrap();
    assert_eq!(two.judge("the old one is back", &[]), (true, true));
}
