//! What opens a repository stays able to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    ErrorKind, FaultPoint, Faulty, FileName, HeadPlace, KeyFile, MemoryStorage, Protect,
    Repository, Storage, SystemRandom, Unlock, verify,
};

use support::{CHUNK, backup, disk, init, key, name, open, restore};

fn shared(storage: &Arc<MemoryStorage>) -> Arc<dyn Storage> {
    Arc::clone(storage) as Arc<dyn Storage>
}

fn protect(key: &KeyFile) -> Protect {
    Protect::KeyFile(key.clone())
}

#[test]
fn the_key_in_use_is_not_removed_even_beside_one_that_opens_nothing() {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let other = init(&shared(&memory), &key).unwrap();
    let strange = other.keys().unwrap().remove(0).name;
    memory.remove(&"config".parse().unwrap()).unwrap();
    // That slot now holds the key of no repository.
    let made = init(&shared(&memory), &key).unwrap();
    let slots = made.keys().unwrap();
    let used = slots.iter().find(|slot| slot.name != strange).unwrap();
    for repository in [&made, &open(&shared(&memory), &key).unwrap()] {
        let error = repository
            .remove_key(&used.name)
            .expect_err("nothing else opens");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("in use"), "{error}");
    }
    made.remove_key(&strange).unwrap();
    open(&shared(&memory), &key).unwrap();
}

#[test]
fn a_key_is_removed_by_one_that_stays() {
    let (memory, old, new) = (Arc::new(MemoryStorage::new()), key(), key());
    let repository = init(&shared(&memory), &old).unwrap();
    let used = repository.keys().unwrap().remove(0).name;
    let added = repository.add_key(&protect(&new), None).unwrap();
    let by_new = open(&shared(&memory), &new).unwrap();
    // If the slot in use is lost meanwhile, the other is the last.
    let file = format!("keys/{added}").parse().unwrap();
    let slot = memory
        .read(&file, 0..memory.length(&file).unwrap())
        .unwrap();
    memory.damage(&file, |bytes| bytes[20] ^= 1);
    by_new.remove_key(&used).expect_err("its own is damaged");
    memory.put(&file, &slot).unwrap();
    by_new.remove_key(&used).unwrap();
    open(&shared(&memory), &old).expect_err("it was removed");
    open(&shared(&memory), &new).unwrap();
}

#[test]
fn the_recovery_kit_removes_what_cannot_be_read() {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let made = init(&shared(&memory), &key).unwrap();
    let slot = made.keys().unwrap().remove(0).name;
    let file = format!("keys/{slot}").parse().unwrap();
    memory.damage(&file, |bytes| bytes[20] ^= 1);
    let unlock = Unlock::Recovery(made.recovery_kit().unwrap());
    let by_kit = Repository::open(shared(&memory), Arc::new(SystemRandom), &unlock).unwrap();
    by_kit.add_key(&protect(&key), None).unwrap();
    by_kit.remove_key(&slot).unwrap();
    open(&shared(&memory), &key).unwrap();
}

#[test]
fn junk_among_the_keys_hides_none() {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    init(&shared(&memory), &key).unwrap();
    for number in 0..200 {
        let file = format!("keys/{number:016x}").parse().unwrap();
        memory.put(&file, b"junk").unwrap();
    }
    let repository = open(&shared(&memory), &key).unwrap();
    assert_eq!(repository.keys().unwrap().len(), 1);
    repository.add_key(&protect(&key), None).unwrap();
}

#[test]
fn there_are_no_more_keys_than_are_tried() {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let repository = init(&shared(&memory), &key).unwrap();
    for _ in 1..64 {
        repository.add_key(&protect(&key), None).unwrap();
    }
    let error = repository
        .add_key(&protect(&key), None)
        .expect_err("one more");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_slot_that_asks_for_too_much_does_not_keep_the_others_from_opening() {
    let memory = Arc::new(MemoryStorage::new());
    let cost = snapkeep_repo::Stretch {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
    };
    let pass = || "secret".to_owned().into();
    let protect = Protect::Stretched(pass(), cost);
    Repository::init(shared(&memory), Arc::new(SystemRandom), &protect, CHUNK).unwrap();
    let salt = "0".repeat(64);
    let body = format!(
        r#"{{"kind":"passphrase","argon2id":{{"memory_kib":4294967295,"passes":1,"lanes":1}},"salt":"{salt}","sealed":"00"}}"#
    );
    let mut file = b"SNAPKEEPK\x01\0\0".to_vec();
    file.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    file.extend_from_slice(body.as_bytes());
    let sum = *blake3::hash(&file).as_bytes();
    file.extend_from_slice(&sum);
    (memory.put(&"keys/0000000000000000".parse().unwrap(), &file)).unwrap();
    let unlock = Unlock::Passphrase(pass());
    Repository::open(shared(&memory), Arc::new(SystemRandom), &unlock).unwrap();
}

#[test]
fn no_repository_is_made_over_the_archives_of_one_without_config() {
    let (memory, key, bytes) = (Arc::new(MemoryStorage::new()), key(), disk(1, 3));
    let repository = init(&shared(&memory), &key).unwrap();
    backup(&repository, &name("1"), None, &bytes).unwrap();
    let file = "config".parse().unwrap();
    let config = memory
        .read(&file, 0..memory.length(&file).unwrap())
        .unwrap();
    memory.remove(&file).unwrap();
    let error = init(&shared(&memory), &key).expect_err("there are archives");
    assert_eq!(error.kind(), ErrorKind::Exists);
    memory.put(&file, &config).unwrap();
    let repository = open(&shared(&memory), &key).unwrap();
    assert!(restore(&repository, &name("1")).unwrap() == bytes);
}

/// The kinds of keys, whose they are, and what is told of them.
type Told = Vec<(&'static str, Option<String>, Option<&'static str>)>;

fn told(repository: &Repository) -> Told {
    let keys = repository.keys().unwrap().into_iter();
    keys.map(|slot| (slot.kind, slot.label, slot.doubt))
        .collect()
}

#[test]
fn a_changed_key_opens_and_the_old_one_does_not() {
    let (memory, old, new) = (Arc::new(MemoryStorage::new()), key(), key());
    let made = init(&shared(&memory), &old).unwrap();
    made.change_key(&protect(&new), Some("office")).unwrap();
    let error = open(&shared(&memory), &old).expect_err("it was changed");
    assert_eq!(error.kind(), ErrorKind::WrongKey);
    let by_new = open(&shared(&memory), &new).unwrap();
    assert_eq!(
        told(&by_new),
        [("key-file", Some("office".to_owned()), None)]
    );
    by_new.change_key(&protect(&old), None).unwrap();
    let by_old = open(&shared(&memory), &old).unwrap();
    assert_eq!(
        told(&by_old),
        [("key-file", Some("office".to_owned()), None)]
    );
    open(&shared(&memory), &new).expect_err("it was changed back");
    let unlock = Unlock::Recovery(by_old.recovery_kit().unwrap());
    let by_kit = Repository::open(shared(&memory), Arc::new(SystemRandom), &unlock).unwrap();
    let error = by_kit
        .change_key(&protect(&new), None)
        .expect_err("a kit never changes");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn wherever_a_change_of_keys_is_killed_the_old_or_the_new_one_opens() {
    let (old, new) = (key(), key());
    let mut seen = [false; 3];
    let fresh = Arc::new(MemoryStorage::new());
    let repository = init(&shared(&fresh), &old).unwrap();
    backup(&repository, &name("1"), None, &disk(1, 2)).unwrap();
    let before = repository.counts();
    let counted = Arc::new(Faulty::new(shared(&fresh), FaultPoint::Never));
    open(&(Arc::clone(&counted) as Arc<dyn Storage>), &old).unwrap();
    for number in counted.count().. {
        let mut last = true;
        for point in [FaultPoint::Before(number), FaultPoint::After(number)] {
            let memory = Arc::new(fresh.fork());
            let faulty: Arc<dyn Storage> = Arc::new(Faulty::new(shared(&memory), point));
            let changed = open(&faulty, &old)
                .unwrap()
                .change_key(&protect(&new), None);
            last &= changed.is_ok();
            let by_old = open(&shared(&memory), &old).ok();
            let by_new = open(&shared(&memory), &new).ok();
            match (&by_old, &by_new) {
                (Some(_), None) => seen[0] = true,
                (Some(_), Some(_)) => seen[1] = true,
                (None, Some(_)) => seen[2] = true,
                (None, None) => panic!("nothing opens after {point:?}"),
            }
            assert!(changed.is_err() || by_old.is_none(), "{point:?}");
            let opened = by_new.or(by_old).unwrap();
            assert_eq!(opened.counts(), before);
            assert!(restore(&opened, &name("1")).unwrap() == disk(1, 2));
        }
        if last {
            break;
        }
    }
    assert_eq!(seen, [true; 3], "it was killed before, between and after");
}

/// Puts a slot there as somebody without a key can.
fn put_slot(memory: &MemoryStorage, name: &str, body: &str) {
    let mut file = b"SNAPKEEPK\x01\0\0".to_vec();
    file.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    file.extend_from_slice(body.as_bytes());
    let sum = *blake3::hash(&file).as_bytes();
    file.extend_from_slice(&sum);
    memory
        .put(&format!("keys/{name}").parse().unwrap(), &file)
        .unwrap();
}

fn body_of(memory: &MemoryStorage, name: &str) -> String {
    let file = format!("keys/{name}").parse().unwrap();
    let bytes = memory
        .read(&file, 0..memory.length(&file).unwrap())
        .unwrap();
    String::from_utf8(bytes[16..bytes.len() - 32].to_vec()).unwrap()
}

#[test]
fn an_open_slot_that_somebody_put_there_opens_nothing_and_is_told() {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let made = init(&shared(&memory), &key).unwrap();
    let root = "ab".repeat(32);
    let body = format!(r#"{{"kind":"open","root":"{root}"}}"#);
    put_slot(&memory, "00000000000000aa", &body);
    let random = Arc::new(SystemRandom);
    let error = Repository::open(shared(&memory), random, &Unlock::Open).expect_err("encrypted");
    assert_eq!(error.kind(), ErrorKind::WrongKey);
    assert!(
        error.to_string().contains("keys/00000000000000aa"),
        "{error}"
    );
    let opened = open(&shared(&memory), &key).unwrap();
    assert!(opened.is_encrypted().unwrap());
    let doubted = told(&opened)
        .into_iter()
        .find(|(kind, ..)| *kind == "open")
        .unwrap();
    assert!(doubted.2.unwrap().contains("it opens nothing"));
    made.remove_key("00000000000000aa").unwrap();
}

#[test]
fn whoever_gives_a_secret_opens_no_repository_that_is_not_encrypted() {
    // Somebody without a key put it in the place of the encrypted one.
    let memory = Arc::new(MemoryStorage::new());
    let random = Arc::new(SystemRandom);
    Repository::init(shared(&memory), random, &Protect::Open, 64 << 10).unwrap();
    let by = |unlock: &Unlock| {
        let opened = Repository::open(shared(&memory), Arc::new(SystemRandom), unlock);
        opened.expect_err("it is not encrypted").kind()
    };
    assert_eq!(by(&Unlock::KeyFile(key())), ErrorKind::WrongKey);
    let passphrase = Unlock::Passphrase("secret".to_owned().into());
    assert_eq!(by(&passphrase), ErrorKind::WrongKey);
}

#[test]
fn a_label_that_was_changed_or_taken_from_another_slot_is_not_believed() {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let made = init(&shared(&memory), &key).unwrap();
    let a = made
        .add_key(&Protect::Writer(self::key()), Some("node-a"))
        .unwrap();
    let b = made
        .add_key(&Protect::Writer(self::key()), Some("node-b"))
        .unwrap();
    let (body_a, body_b) = (body_of(&memory, &a), body_of(&memory, &b));
    let label = |body: &str| body[body.find(r#""label""#).unwrap()..].to_owned();
    let swapped = body_a.replace(&label(&body_a), &label(&body_b));
    for body in [body_a.replace("node-a", "node-c"), swapped] {
        assert_ne!(body, body_a);
        memory
            .remove(&format!("keys/{a}").parse().unwrap())
            .unwrap();
        put_slot(&memory, &a, &body);
        let keys = made.keys().unwrap();
        let slot = keys.iter().find(|slot| slot.name == a).unwrap();
        assert_eq!(slot.label, None);
        assert!(slot.doubt.unwrap().contains("label was changed"));
    }
    for text in ["", "a\u{1b}[2J", &"x".repeat(129)] {
        let error = made
            .add_key(&protect(&key), Some(text))
            .expect_err("no label");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

/// What somebody without a key can do to `config` and to slots, and what is said then.
#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn a_repository_that_was_made_to_look_weaker_is_refused_by_name() {
    type Deed = fn(&MemoryStorage, &str);
    fn config(memory: &MemoryStorage, from: &str, to: &str) {
        let file: FileName = "config".parse().unwrap();
        let bytes = memory
            .read(&file, 0..memory.length(&file).unwrap())
            .unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let signed = format!("{}\n{}\n", lines[0], lines[1]).replace(from, to);
        assert!(!text.starts_with(&signed), "{from} is there");
        let sum = blake3::hash(signed.as_bytes()).to_hex();
        memory.remove(&file).unwrap();
        let text = format!("{signed}blake3 {sum}\n{}\n", lines[3]);
        memory.put(&file, text.as_bytes()).unwrap();
    }
    fn slot(memory: &MemoryStorage, name: &str, from: &str, to: &str) {
        let body = body_of(memory, name);
        let changed = body.replace(from, to);
        assert_ne!(body, changed);
        memory
            .remove(&format!("keys/{name}").parse().unwrap())
            .unwrap();
        put_slot(memory, name, &changed);
    }
    let cases: &[(&str, Deed, ErrorKind, &str)] = &[
        (
            "a field that says it is not encrypted",
            |memory, _| config(memory, r#""version":1"#, r#""version":1,"encrypted":false"#),
            ErrorKind::Version,
            "config",
        ),
        (
            "another chunk size",
            |memory, _| config(memory, "65536", "131072"),
            ErrorKind::Corrupt,
            "config was changed",
        ),
        (
            "one feature more that a reader must know",
            |memory, _| {
                let none = r#""incompatible":[]"#;
                config(memory, none, r#""incompatible":["trees-1"]"#);
            },
            ErrorKind::Corrupt,
            "config was changed",
        ),
        (
            "cheaper stretching",
            |memory, name| slot(memory, name, r#""passes":2"#, r#""passes":1"#),
            ErrorKind::WrongKey,
            "opens none",
        ),
        (
            "stretching that costs all memory",
            |memory, name| {
                slot(
                    memory,
                    name,
                    r#""memory_kib":64"#,
                    r#""memory_kib":4294967295"#,
                );
            },
            ErrorKind::WrongKey,
            "more work than is allowed",
        ),
        (
            "stretching in no lanes",
            |memory, name| slot(memory, name, r#""lanes":1"#, r#""lanes":0"#),
            ErrorKind::WrongKey,
            "cannot stretch",
        ),
        (
            "another kind",
            |memory, name| slot(memory, name, "passphrase", "key-stone"),
            ErrorKind::Corrupt,
            "is not readable",
        ),
    ];
    let cost = snapkeep_repo::Stretch {
        memory_kib: 64,
        passes: 2,
        lanes: 1,
    };
    let pass = || "secret".to_owned().into();
    for (what, deed, kind, said) in cases {
        let memory = Arc::new(MemoryStorage::new());
        let random = Arc::new(SystemRandom);
        let protect = Protect::Stretched(pass(), cost);
        let made = Repository::init(shared(&memory), random.clone(), &protect, CHUNK).unwrap();
        let name = made.keys().unwrap().remove(0).name;
        deed(&memory, &name);
        let opened = Repository::open(shared(&memory), random, &Unlock::Passphrase(pass()));
        let error = opened.expect_err(what);
        assert_eq!(error.kind(), *kind, "{what}: {}", error.chain());
        assert!(error.chain().contains(said), "{what}: {}", error.chain());
    }
}

#[test]
fn a_snapshot_that_was_put_there_unsealed_is_damage_and_not_restored() {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let repository = init(&shared(&memory), &key).unwrap();
    let made = backup(&repository, &name("1"), None, &disk(1, 3)).unwrap();
    let body = serde_json::to_vec(&made).unwrap();
    let mut file = b"SNAPKEEPS\x01\0\0".to_vec();
    file.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    file.extend_from_slice(&body);
    let sum = *blake3::hash(&file).as_bytes();
    file.extend_from_slice(&sum);
    let put = "snapshots/main/vm/100/2".parse().unwrap();
    memory.put(&put, &file).unwrap();
    let error = restore(&repository, &name("2")).expect_err("it is not sealed");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.chain().contains("main/vm/100/2"), "{}", error.chain());
}

#[test]
fn verification_names_damaged_slots_and_heads() {
    let (memory, key) = (Arc::new(MemoryStorage::new()), key());
    let repository = init(&shared(&memory), &key).unwrap();
    let slot = repository.add_key(&protect(&key), None).unwrap();
    let place = HeadPlace::new(&name("1"), "store").unwrap();
    repository.put_head(&place, &name("1")).unwrap();
    assert!(verify(&repository).unwrap().damage.is_empty());
    let mut damaged = Vec::new();
    let mut note = |file: &FileName, _| {
        damaged.push(file.clone());
        Ok(())
    };
    memory.list(&"heads".parse().unwrap(), &mut note).unwrap();
    damaged.insert(0, format!("keys/{slot}").parse().unwrap());
    assert_eq!(damaged.len(), 2);
    for file in &damaged {
        memory.damage(file, |bytes| bytes[20] ^= 1);
    }
    let found = verify(&repository).unwrap().damage;
    let named: Vec<_> = found.iter().map(|d| d.object.as_str()).collect();
    assert_eq!(
        named,
        damaged.iter().map(FileName::as_str).collect::<Vec<_>>()
    );
}
