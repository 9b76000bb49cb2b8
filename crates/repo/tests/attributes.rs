//! Attributes of archives: of each field the newest counts, a crash loses nothing that was set, and
//! what cannot be read is told and keeps its archive from being forgotten.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::{Arc, OnceLock};

use snapkeep_repo::{
    ArchiveAttributes, AttributeChange, Depth, ErrorKind, FaultPoint, Faulty, FileName, KeyFile,
    MemoryStorage, Repository, Storage, VerificationState, keep_verification, limits, verify,
};

use support::{backup, disk, init, name, open};

/// Of all repositories here.
fn key() -> KeyFile {
    static KEY: OnceLock<KeyFile> = OnceLock::new();
    KEY.get_or_init(support::key).clone()
}

fn notes(text: &str) -> AttributeChange {
    AttributeChange {
        notes: Some(text.to_owned()),
        ..AttributeChange::default()
    }
}

fn with_archive() -> (Arc<dyn Storage>, Arc<Repository>) {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let repository = init(&storage, &key()).unwrap();
    backup(&repository, &name("1"), None, &disk(1, 2)).unwrap();
    (storage, repository)
}

fn objects(storage: &dyn Storage) -> Vec<FileName> {
    let mut found = Vec::new();
    let folder = "attributes".parse().unwrap();
    let mut note = |file: &FileName, _| {
        found.push(file.clone());
        Ok(())
    };
    storage.list(&folder, &mut note).unwrap();
    found
}

#[test]
fn what_was_set_last_counts_and_what_it_replaced_is_removed() {
    let (storage, repository) = with_archive();
    assert_eq!(
        repository.attributes(&name("1")).unwrap(),
        ArchiveAttributes::default()
    );
    repository
        .change_attributes(&name("1"), &notes("one"))
        .unwrap();
    repository.protect(&name("1"), true).unwrap();
    repository
        .change_attributes(&name("1"), &notes("two"))
        .unwrap();
    let found = open(&storage, &key())
        .unwrap()
        .attributes(&name("1"))
        .unwrap();
    assert_eq!(found.notes.as_deref(), Some("two"));
    assert!(found.protected && !found.forgotten);
    assert_eq!(objects(&*storage).len(), 2);
    repository
        .change_attributes(&name("1"), &notes(""))
        .unwrap();
    assert_eq!(repository.attributes(&name("1")).unwrap().notes, None);
}

#[test]
fn two_writers_keep_different_fields_and_agree_on_the_same() {
    let (storage, _) = with_archive();
    let hosts = [1, 2].map(|_| open(&storage, &key()).unwrap());
    std::thread::scope(|scope| {
        for (number, host) in hosts.iter().enumerate() {
            scope.spawn(move || {
                for turn in 0..20 {
                    let text = format!("{number} {turn}");
                    host.change_attributes(&name("1"), &notes(&text)).unwrap();
                    if number == 0 {
                        host.protect(&name("1"), true).unwrap();
                    }
                }
            });
        }
    });
    let [one, two] = hosts.map(|host| host.attributes(&name("1")).unwrap());
    assert_eq!(one, two);
    assert!(one.protected);
    assert!(one.notes.unwrap().ends_with(" 19"));
}

#[test]
fn a_forgotten_archive_is_not_listed_or_opened_until_it_is_taken_back() {
    let (_, repository) = with_archive();
    backup(&repository, &name("2"), None, &disk(2, 2)).unwrap();
    repository.forget(&name("1")).unwrap();
    assert_eq!(repository.snapshots().unwrap(), [name("2")]);
    assert_eq!(
        repository.snapshots_of(name("1").group()).unwrap(),
        [name("2")]
    );
    assert_eq!(
        repository.all_snapshots_of(None).unwrap(),
        [name("1"), name("2")]
    );
    let error = repository.snapshot(&name("1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("forget --undo"), "{error}");
    repository.take_back(&name("1")).unwrap();
    assert_eq!(repository.snapshots().unwrap(), [name("1"), name("2")]);
    repository.snapshot(&name("1")).unwrap();
}

#[test]
fn a_protected_archive_is_not_forgotten_also_if_two_hosts_disagree() {
    let (_, repository) = with_archive();
    repository.protect(&name("1"), true).unwrap();
    let error = repository.forget(&name("1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protected);
    assert!(error.to_string().contains("unprotect"), "{error}");
    // As a host would that saw it before it was protected.
    let forgotten = AttributeChange {
        forgotten: Some(true),
        ..AttributeChange::default()
    };
    repository
        .change_attributes(&name("1"), &forgotten)
        .unwrap();
    assert_eq!(repository.snapshots().unwrap(), [name("1")]);
    repository.protect(&name("1"), false).unwrap();
    assert_eq!(repository.snapshots().unwrap(), [name("1")]);
    repository.forget(&name("1")).unwrap();
    assert!(repository.snapshots().unwrap().is_empty());
}

#[test]
fn attributes_that_do_not_open_are_told_and_keep_their_archive() {
    let (storage, repository) = with_archive();
    repository.forget(&name("1")).unwrap();
    let [file] = &objects(&*storage)[..] else {
        panic!("one object");
    };
    let length = storage.length(file).unwrap();
    let mut bytes = storage.read(file, 0..length).unwrap();
    bytes[40] ^= 1;
    storage.remove(file).unwrap();
    storage.put(file, &bytes).unwrap();
    let error = repository.attributes(&name("1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(repository.snapshots().unwrap(), [name("1")]);
    repository.snapshot(&name("1")).unwrap();
    let error = repository.forget(&name("1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protected);
    let damage = verify(&repository).unwrap().damage;
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].object, format!("attributes/{}", name("1")));
}

#[test]
fn an_object_of_another_archive_or_with_an_odd_name_is_told() {
    let (storage, repository) = with_archive();
    backup(&repository, &name("2"), None, &disk(2, 2)).unwrap();
    repository
        .change_attributes(&name("1"), &notes("mine"))
        .unwrap();
    let [file] = &objects(&*storage)[..] else {
        panic!("one object");
    };
    let bytes = storage
        .read(file, 0..storage.length(file).unwrap())
        .unwrap();
    let last = file.as_str().rsplit_once('/').unwrap().1;
    let moved = format!("attributes/{}/{last}", name("2")).parse().unwrap();
    storage.put(&moved, &bytes).unwrap();
    assert!(repository.attributes(&name("2")).is_err());
    assert!(repository.attributes(&name("1")).is_ok());
    let odd = format!("attributes/{}/odd", name("1")).parse().unwrap();
    storage.put(&odd, b"x").unwrap();
    assert!(repository.attributes(&name("1")).is_err());
    let all = repository.attributes_of(None).unwrap();
    assert!(all.len() == 2 && all.values().all(Result::is_err));
}

#[test]
fn what_is_too_long_is_refused_before_anything_is_written() {
    let (storage, repository) = with_archive();
    let long = "x".repeat(limits::NOTES_MAX + 1);
    let error = repository
        .change_attributes(&name("1"), &notes(&long))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(objects(&*storage).is_empty());
    let error = repository
        .change_attributes(&name("9"), &notes("x"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // All of it escaped: an object is not larger than a reader takes.
    let escaped = "\u{1}".repeat(limits::NOTES_MAX);
    repository
        .change_attributes(&name("1"), &notes(&escaped))
        .unwrap();
    assert_eq!(
        repository.attributes(&name("1")).unwrap().notes,
        Some(escaped)
    );
}

#[test]
fn the_first_attribute_keeps_programs_that_do_not_know_them_from_writing() {
    let (storage, repository) = with_archive();
    let feature: FileName = "features/read_only_compatible-attributes-1"
        .parse()
        .unwrap();
    assert!(storage.length(&feature).is_err());
    repository
        .change_attributes(&name("1"), &notes("x"))
        .unwrap();
    assert_eq!(storage.length(&feature).unwrap(), 0);
    open(&storage, &key()).unwrap().may_write().unwrap();
}

#[test]
fn a_task_log_is_read_again_and_verified() {
    let (storage, repository) = with_archive();
    let log: Vec<u8> = (0..limits::CHUNK_MAX + 5)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let record = repository.store_task_log(&log).unwrap();
    assert_eq!(record.chunks.len(), 2);
    let change = AttributeChange {
        task_log: Some(record),
        ..AttributeChange::default()
    };
    repository.change_attributes(&name("1"), &change).unwrap();
    let other = open(&storage, &key()).unwrap();
    let record = other.attributes(&name("1")).unwrap().task_log.unwrap();
    assert!(other.read_task_log(&record).unwrap() == log);
    let report = verify(&other).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let (archive, found) = &report.archives[0];
    keep_verification(&other, archive, found, Depth::Everything, 77, "test 1").unwrap();
    let found = other.attributes(&name("1")).unwrap().verification.unwrap();
    assert_eq!((found.state, found.time), (VerificationState::Good, 77));
    let long = vec![0; limits::TASK_LOG_MAX + 1];
    let error = repository.store_task_log(&long).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_value_or_the_new() {
    for after in [false, true] {
        for operation in 0.. {
            let (storage, repository) = with_archive();
            repository
                .change_attributes(&name("1"), &notes("old"))
                .unwrap();
            repository.protect(&name("1"), true).unwrap();
            let never = FaultPoint::Never;
            let counted = Arc::new(Faulty::new(Arc::clone(&storage), never));
            let opened = open(&(Arc::clone(&counted) as Arc<dyn Storage>), &key()).unwrap();
            let begun = counted.count();
            drop(opened);
            let number = begun + operation;
            let point = if after {
                FaultPoint::After(number)
            } else {
                FaultPoint::Before(number)
            };
            let faulty = Arc::new(Faulty::new(Arc::clone(&storage), point));
            let host = open(&(Arc::clone(&faulty) as Arc<dyn Storage>), &key()).unwrap();
            let done = host.change_attributes(&name("1"), &notes("new"));
            let ended = faulty.count() <= number;
            let found = open(&storage, &key())
                .unwrap()
                .attributes(&name("1"))
                .unwrap();
            let text = found.notes.unwrap();
            assert!(found.protected, "{operation}");
            match done {
                Ok(()) => assert_eq!(text, "new", "{operation}"),
                Err(_) => assert!(text == "old" || text == "new", "{operation}: {text}"),
            }
            if ended {
                assert!(operation > 5, "{operation}");
                break;
            }
        }
    }
}
