//! What opens a repository stays able to.

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    ErrorKind, FileName, HeadPlace, KeyFile, MemoryStorage, Protect, Repository, Storage,
    SystemRandom, Unlock, verify,
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
