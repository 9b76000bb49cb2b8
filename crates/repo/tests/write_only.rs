//! Hosts that may only write: they back up, list and keep facts, and read nothing that guests hold.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fmt::Debug;
use std::sync::Arc;

use snapkeep_repo::{
    AttributeChange, BlobRef, Class, DiskReader, ErrorKind, KeyFile, MemoryStorage, NodeKind,
    Protect, Repository, Result, Storage, TreeReader, Writer, verify,
};

use support::{backup, disk, init, key, name, open, restore, tree};

/// A repository with an archive of its owner, and a host's key to it.
struct Scene {
    storage: Arc<MemoryStorage>,
    owner: Arc<Repository>,
    host: KeyFile,
    bytes: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let (storage, bytes) = (Arc::new(MemoryStorage::new()), disk(1, 130));
        let owner = init(&shared(&storage), &key()).unwrap();
        backup(&owner, &name("1"), None, &bytes).unwrap();
        let host = key();
        let protect = Protect::Writer(host.clone());
        owner.add_key(&protect, Some("node-a")).unwrap();
        Self {
            storage,
            owner,
            host,
            bytes,
        }
    }

    /// As the host opens it.
    fn open(&self) -> Arc<Repository> {
        open(&shared(&self.storage), &self.host).unwrap()
    }
}

fn shared(storage: &Arc<MemoryStorage>) -> Arc<dyn Storage> {
    Arc::clone(storage) as Arc<dyn Storage>
}

#[track_caller]
fn refused<T: Debug>(result: Result<T>) {
    let error = result.expect_err("a key that may only write must not do this");
    assert_eq!(error.kind(), ErrorKind::WrongKey, "{}", error.chain());
    assert!(
        error.chain().contains("this key may only write"),
        "{}",
        error.chain()
    );
}

#[test]
fn what_such_a_host_stores_in_full_and_incrementally_the_owner_restores() {
    let scene = Scene::new();
    let host = scene.open();
    let base = host.snapshot(&name("1")).unwrap().disks.remove(0);
    host.check_whole(&base).unwrap();
    let mut changed = scene.bytes.clone();
    changed[70 * support::CHUNK..][..100].fill(9);
    let before = scene.owner.counts().0;
    backup(&host, &name("2"), Some((&base, &scene.bytes)), &changed).unwrap();
    let full = disk(2, 70);
    backup(&host, &name("3"), None, &full).unwrap();
    backup(&host, &name("4"), None, &scene.bytes).unwrap();
    for (archive, wanted) in [
        ("1", &scene.bytes),
        ("2", &changed),
        ("3", &full),
        ("4", &scene.bytes),
    ] {
        assert!(
            restore(&scene.owner, &name(archive)).unwrap() == *wanted,
            "{archive}"
        );
    }
    assert!(verify(&scene.owner).unwrap().damage.is_empty());
    // The fourth stored nothing that the first had; the second one chunk and the nodes above it.
    assert!(
        scene.owner.counts().0 < before + 75,
        "chunks are stored once"
    );
}

#[test]
fn such_a_host_reads_no_data_not_even_what_it_stored_a_moment_ago() {
    let scene = Scene::new();
    let host = scene.open();
    let own = disk(3, 5);
    backup(&host, &name("2"), None, &own).unwrap();
    for archive in ["1", "2"] {
        let record = host.snapshot(&name(archive)).unwrap().disks.remove(0);
        let reader = DiskReader::new(Arc::clone(&host), record);
        let mut buffer = [0xee; 512];
        refused(reader.read_at(10, &mut buffer));
        assert_eq!(buffer, [0xee; 512], "nothing was read");
        // The map is metadata.
        assert!(reader.next_data(0).unwrap().is_some());
    }
    let writer = Writer::new(Arc::clone(&host)).unwrap();
    let config = b"name: web\n";
    let stored = writer.worker().store(Class::Data, config).unwrap();
    writer.flush().unwrap();
    let chunk = Some(stored.id);
    let length = u32::try_from(config.len()).unwrap();
    let config_blob = BlobRef { chunk, length };
    refused(host.read_blob(&config_blob));
    let log = host.store_task_log(b"INFO: done\n").unwrap();
    refused(host.read_task_log(&log));
    refused(verify(&host));
    scene.owner.snapshots().unwrap();
    assert_eq!(scene.owner.read_task_log(&log).unwrap(), b"INFO: done\n");
    assert_eq!(scene.owner.read_blob(&config_blob).unwrap(), config);
}

#[test]
fn such_a_host_gives_no_keys_away_and_takes_none() {
    let scene = Scene::new();
    let host = scene.open();
    refused(host.recovery_kit());
    for protect in [
        Protect::KeyFile(key()),
        Protect::Writer(key()),
        Protect::Passphrase("secret".to_owned().into()),
        Protect::Open,
    ] {
        refused(host.add_key(&protect, None));
    }
    let keys = host.keys().unwrap();
    let kinds: Vec<_> = keys.iter().map(|slot| (slot.kind, slot.used)).collect();
    assert!(kinds.contains(&("writer", true)) && kinds.contains(&("key-file", false)));
    let label = keys.iter().find_map(|slot| slot.label.as_deref());
    assert_eq!(label, Some("node-a"));
    for slot in &keys {
        refused(host.remove_key(&slot.name));
    }
    assert_eq!(scene.owner.keys().unwrap().len(), 2);
}

#[test]
fn such_a_host_keeps_facts_and_forgets() {
    let scene = Scene::new();
    let host = scene.open();
    let change = AttributeChange {
        notes: Some("before the upgrade".to_owned()),
        ..AttributeChange::default()
    };
    host.change_attributes(&name("1"), &change).unwrap();
    host.protect(&name("1"), true).unwrap();
    let error = host.forget(&name("1")).expect_err("it is protected");
    assert_eq!(error.kind(), ErrorKind::Protected);
    host.protect(&name("1"), false).unwrap();
    host.forget(&name("1")).unwrap();
    assert!(scene.owner.snapshots().unwrap().is_empty());
    host.take_back(&name("1")).unwrap();
    let kept = scene.owner.attributes(&name("1")).unwrap();
    assert_eq!(kept.notes.as_deref(), Some("before the upgrade"));
}

#[test]
fn a_revoked_key_opens_nothing_and_the_last_that_reads_stays() {
    let scene = Scene::new();
    let keys = scene.owner.keys().unwrap();
    let (writer, reader) = (
        keys.iter().find(|slot| slot.kind == "writer").unwrap(),
        keys.iter().find(|slot| slot.kind == "key-file").unwrap(),
    );
    let kit = snapkeep_repo::Unlock::Recovery(scene.owner.recovery_kit().unwrap());
    let random = Arc::new(snapkeep_repo::SystemRandom);
    let by_kit = Repository::open(shared(&scene.storage), random, &kit).unwrap();
    let error = by_kit.remove_key(&reader.name).expect_err("no other reads");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    scene.owner.remove_key(&writer.name).unwrap();
    let error = open(&shared(&scene.storage), &scene.host).expect_err("it was revoked");
    assert_eq!(error.kind(), ErrorKind::WrongKey);
}

#[test]
fn such_a_host_finds_what_lies_in_packs_that_no_index_names() {
    let scene = Scene::new();
    let mut objects = Vec::new();
    let index = "index".parse().unwrap();
    (scene.storage)
        .list(&index, &mut |file, _| {
            objects.push(file.clone());
            Ok(())
        })
        .unwrap();
    for file in &objects {
        scene.storage.remove(file).unwrap();
    }
    let host = scene.open();
    let base = host.snapshot(&name("1")).unwrap().disks.remove(0);
    host.check_whole(&base).unwrap();
    let stats = backup(&host, &name("2"), None, &scene.bytes).unwrap().stats;
    // An index object alone: it names the packs that were left behind.
    assert!(
        stats.stored < 64 << 10,
        "nothing is stored again: {}",
        stats.stored
    );
    assert!(restore(&scene.owner, &name("2")).unwrap() == scene.bytes);
}

#[test]
fn such_a_host_walks_trees_and_reads_no_file() {
    let scene = Scene::new();
    let root = tree::directory([(b"motd".to_vec(), tree::file(&[7; 4000]))]);
    let record = tree::store(&scene.open(), "2", &root).unwrap();
    let host = scene.open();
    let reader = TreeReader::open(Arc::clone(&host), &record).unwrap();
    let NodeKind::Directory(top) = &reader.root().kind else {
        panic!("the root is a directory");
    };
    let names: Vec<_> = (reader.list(top, None, 10).unwrap().into_iter())
        .map(|node| node.name)
        .collect();
    assert_eq!(names, [b"motd".to_vec()]);
    refused(tree::read(&reader));
    scene.owner.snapshots().unwrap();
    let reader = TreeReader::open(Arc::clone(&scene.owner), &record).unwrap();
    assert_eq!(tree::read(&reader).unwrap(), root);
}
