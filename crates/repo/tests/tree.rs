//! A directory tree that is stored comes back: every kind of entry, and how files lie in chunks.

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    Attributes, ErrorKind, FaultPoint, Faulty, MemoryStorage, NodeKind, Repository, Storage,
    Timestamp, TreeNode, TreeReader, TreeRecord, WitnessedDirectory, Writer, verify, write_tree,
};

use support::tree::{
    Entry, Kind, attributes, commit, directory, file, give, noise, read, store, store_counted,
    witness,
};
use support::{init, key, name, open};

fn repository() -> Arc<Repository> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    init(&storage, &key()).expect("a new repository")
}

fn reader(repository: &Arc<Repository>, record: &TreeRecord) -> TreeReader {
    TreeReader::open(Arc::clone(repository), record).expect("the tree opens")
}

fn other(kind: NodeKind) -> Entry {
    Entry {
        attributes: attributes(0o600),
        kind: Kind::Other(kind),
    }
}

/// One of everything, with strange names, owners, times and attributes.
fn everything() -> Entry {
    let strange = Attributes {
        mode: 0o7777,
        uid: u32::MAX,
        gid: 0,
        mtime: Timestamp {
            seconds: i64::MIN,
            nanos: 999_999_999,
        },
        flags: 0x10,
        xattrs: vec![
            (b"security.capability".to_vec(), vec![1, 0, 0, 2]),
            (b"user.empty".to_vec(), vec![]),
            (b"user.large".to_vec(), noise(1, 64 << 10)),
        ],
    };
    let target = b"../\xff\n/target".to_vec();
    let path = b"a directory/\xfe".to_vec();
    let mut sparse = file(b"");
    sparse.kind = Kind::File(
        2,
        1 << 40,
        vec![(4096, noise(2, 5000)), (1 << 30, noise(3, 1))],
    );
    let mut hole = file(b"");
    hole.kind = Kind::File(1, 12_345, vec![]);
    let mut special = file(b"content");
    special.attributes = strange.clone();
    let entries = [
        (vec![1], special),
        (vec![b'x'; 255], file(b"the longest name")),
        (b"\xff\xfe".to_vec(), file(b"no UTF-8")),
        (b"empty".to_vec(), file(b"")),
        (b"hole".to_vec(), hole),
        (b"large".to_vec(), file(&noise(4, 9 << 20))),
        (b"sparse".to_vec(), sparse),
        (b"symlink".to_vec(), other(NodeKind::Symlink { target })),
        (b"hard link".to_vec(), other(NodeKind::HardLink { path })),
        (b"fifo".to_vec(), other(NodeKind::Fifo)),
        (b"socket".to_vec(), other(NodeKind::Socket)),
        (
            b"null".to_vec(),
            other(NodeKind::CharDevice { major: 1, minor: 3 }),
        ),
        (
            b"sda".to_vec(),
            other(NodeKind::BlockDevice {
                major: 8,
                minor: 1 << 20,
            }),
        ),
        (
            b"a directory".to_vec(),
            directory([(vec![0xfe], file(b"first name"))]),
        ),
        (b"empty directory".to_vec(), directory([])),
    ];
    let mut root = directory(entries);
    root.attributes = strange;
    root
}

#[test]
fn every_kind_of_entry_comes_back() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let key = key();
    let root = everything();
    let record = store(&init(&storage, &key).expect("a repository"), "1", &root).expect("a backup");
    let repository = open(&storage, &key).expect("it opens again");
    let snapshot = repository.snapshot(&name("1")).expect("the snapshot");
    assert_eq!(snapshot.needs, ["trees-1"]);
    assert_eq!(snapshot.tree, Some(record.clone()));
    assert_eq!(record.entries, 17);
    let found = read(&reader(&repository, &record)).expect("it is read");
    assert!(found == root, "{found:#?}");
    let report = verify(&repository).expect("a verification");
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}

#[test]
fn a_file_is_read_at_any_offset_and_its_holes_are_zeroes() {
    let repository = repository();
    let mut bytes = noise(5, 7 << 20);
    bytes[1 << 20..3 << 20].fill(0);
    let mut large = file(b"");
    let pieces = [0..1 << 20, 3 << 20..6 << 20].map(|r| (r.start as u64, bytes[r].to_vec()));
    bytes[6 << 20..].fill(0);
    large.kind = Kind::File(1, bytes.len() as u64, pieces.to_vec());
    let root = directory([(b"f".to_vec(), large)]);
    let record = store(&repository, "1", &root).expect("a backup");
    let reader = reader(&repository, &record);
    let NodeKind::Directory(top) = &reader.root().kind else {
        panic!("the root is a directory");
    };
    let node = reader.lookup(top, b"f").expect("it is read").expect("f");
    let NodeKind::File(file) = &node.kind else {
        panic!("f is a file");
    };
    for (offset, length) in [
        (0, 7 << 20),
        (1, 100),
        ((1 << 20) - 5, 10),
        (2 << 20, 2 << 20),
    ] {
        let mut found = vec![0xee; length];
        reader
            .read_at(file, offset as u64, &mut found)
            .expect("it is read");
        assert!(found == bytes[offset..offset + length], "{offset} {length}");
    }
    let past = reader.read_at(file, (7 << 20) - 1, &mut [0; 2]);
    assert_eq!(past.expect_err("past the end").kind(), ErrorKind::Invalid);
    assert_eq!(reader.next_data(file, 6 << 20).expect("it is read"), None);
    assert_eq!(reader.lookup(top, b"g").expect("it is read"), None);
}

#[test]
fn what_is_known_of_each_entry_is_found_beside_a_new_walk() {
    let repository = repository();
    let many = (0..5000).map(|n| (format!("{n:04}").into_bytes(), file(b"")));
    let root = directory([
        (b"many".to_vec(), directory(many)),
        (b"some".to_vec(), directory([(b"x".to_vec(), file(b"y"))])),
    ]);
    let record = store(&repository, "1", &root).expect("a backup");
    let reader = Arc::new(reader(&repository, &record));
    let mut top = WitnessedDirectory::root(reader);
    let root = top.seek(b"").expect("it is read").expect("the root");
    assert_eq!(root.witness, Some(witness(b"")));
    let mut root = top.enter(&root).expect("it is entered");
    assert!(root.seek(b"a new one").expect("it is read").is_none());
    let many = root.seek(b"many").expect("it is read").expect("many");
    let mut within = root.enter(&many).expect("it is entered");
    for number in (0..5000).filter(|n| n % 3 == 0 || (1000..3000).contains(n)) {
        let name = format!("{number:04}").into_bytes();
        let found = within.seek(&name).expect("it is read").expect("an entry");
        assert_eq!(found.node.name, name);
        let path = [b"/many/", &name[..]].concat();
        assert_eq!(found.witness, Some(witness(&path)));
        let new = [&name[..], b" new"].concat();
        assert!(within.seek(&new).expect("it is read").is_none());
        assert!(within.seek(&name).expect("it is read").is_none(), "passed");
    }
    let some = root.seek(b"some").expect("it is read").expect("some");
    let mut within = root.enter(&some).expect("it is entered");
    let found = within.seek(b"x").expect("it is read").expect("x");
    assert_eq!(found.witness, Some(witness(b"/some/x")));
    assert!(root.seek(b"zzz").expect("it is read").is_none());
    let error = root.enter(&found).expect_err("a file");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn calls_out_of_order_fail_by_name_and_change_nothing() {
    let repository = repository();
    let writer = Writer::new(Arc::clone(&repository)).expect("a writer");
    let plain = attributes(0o755);
    let fifo = |name: &[u8]| TreeNode {
        name: name.to_vec(),
        attributes: attributes(0),
        kind: NodeKind::Fifo,
    };
    let record = write_tree(&writer, 1, &|_| {}, |tree| {
        let invalid = |result: snapkeep_repo::Result<()>, words: &str| {
            let error = result.expect_err(words);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        };
        invalid(tree.enter(b"x", &plain, None), "the one root");
        invalid(tree.add(fifo(b"x"), None), "in no directory");
        invalid(tree.leave(), "left already");
        tree.enter(b"", &plain, None)?;
        tree.enter(b"etc", &plain, None)?;
        tree.add(fifo(b"m"), None)?;
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'n'; 256]] {
            invalid(tree.add(fifo(bad), None), "a name that no entry");
        }
        invalid(tree.add(fifo(b"m"), None), "/etc/m is not behind");
        invalid(tree.enter(b"l\n", &plain, None), "/etc/l\\n is not behind");
        invalid(tree.data(b"x"), "no file");
        invalid(tree.end_file(None), "no file");
        tree.begin_file(b"passwd", &plain, 1)?;
        invalid(tree.leave(), "/etc/passwd is a file that was not ended");
        invalid(tree.begin_file(b"q", &plain, 1), "not ended");
        tree.data(b"some")?;
        invalid(tree.hole(u64::MAX), "larger file");
        tree.abandon_file()?;
        tree.begin_file(b"passwd", &plain, 1)?;
        tree.data(b"root")?;
        tree.end_file(None)?;
        let mut bad = plain.clone();
        bad.xattrs = vec![(b"b".to_vec(), vec![]), (b"a".to_vec(), vec![])];
        invalid(tree.enter(b"z", &bad, None), "not in order");
        let kind = NodeKind::Symlink { target: vec![] };
        let link = TreeNode { kind, ..fifo(b"z") };
        invalid(tree.add(link, None), "no symbolic link");
        let path = b"etc/passwd".to_vec();
        let kind = NodeKind::HardLink { path };
        let mut link = TreeNode { kind, ..fifo(b"z") };
        link.attributes.flags = 0x10;
        invalid(
            tree.add(link.clone(), None),
            "/etc/z is a hard link with what",
        );
        link.attributes.flags = 0;
        link.attributes.xattrs = vec![(b"user.a".to_vec(), vec![])];
        invalid(tree.add(link, None), "/etc/z is a hard link with what");
        invalid(
            tree.begin_file(b"z", &plain, 0),
            "/etc/z is a file that had",
        );
        tree.leave()?;
        tree.leave()?;
        invalid(tree.enter(b"", &plain, None), "the one root");
        // Nothing is stored of a file that was abandoned.
        assert_eq!(tree.counts().new, 4);
        Ok::<_, snapkeep_repo::Error>(())
    });
    let record = record.expect("the good calls made a tree");
    commit(writer, "1", record.clone()).expect("a commit");
    let passwd = file(b"root").kind;
    let found = read(&reader(&repository, &record)).expect("it is read");
    let Kind::Directory(top) = &found.kind else {
        panic!("the root is a directory")
    };
    let Kind::Directory(etc) = &top[&b"etc"[..]].kind else {
        panic!("etc is a directory")
    };
    assert_eq!(etc.keys().collect::<Vec<_>>(), [&b"m"[..], b"passwd"]);
    assert_eq!(etc[&b"passwd"[..]].kind, passwd);
    assert_eq!((record.entries, record.size, record.witness), (4, 4, None));
}

#[test]
fn after_a_tree_that_was_given_up_nothing_is_committed() {
    let repository = repository();
    let writer = Writer::new(Arc::clone(&repository)).expect("a writer");
    let made = write_tree(&writer, 1, &|_| {}, |tree| {
        give(tree, b"", &everything())?;
        Err(snapkeep_repo::Error::new(
            ErrorKind::Io,
            "the guest is gone",
        ))
    });
    assert_eq!(
        made.expect_err("it was given up").to_string(),
        "the guest is gone"
    );
    let record = store(&repository, "2", &directory([])).expect("another writer goes on");
    let error = commit(writer, "1", record).expect_err("nothing is committed");
    assert!(error.to_string().contains("given up"), "{error}");
    assert_eq!(repository.snapshots().expect("a list"), [name("2")]);
    let missing = write_tree(
        &Writer::new(repository).expect("a writer"),
        1,
        &|_| {},
        |tree| tree.enter(b"", &attributes(0), None),
    );
    let error: snapkeep_repo::Error = missing.expect_err("the root was not left");
    assert!(error.to_string().contains("was not left"), "{error}");
}

#[test]
fn a_sum_of_sizes_that_no_number_can_say_is_the_largest() {
    let repository = repository();
    let plain = attributes(0o644);
    let (record, _) = store_counted(&repository, "1", |tree| {
        tree.enter(b"", &plain, None)?;
        for name in [b"a", b"b", b"c"] {
            tree.begin_file(name, &plain, 1)?;
            tree.hole(i64::MAX.unsigned_abs())?;
            tree.end_file(None)?;
        }
        tree.leave()
    })
    .expect("a backup");
    assert_eq!(record.size, u64::MAX);
    let snapshot = repository.snapshot(&name("1")).expect("the snapshot");
    assert_eq!(snapshot.tree.map(|tree| tree.size), Some(u64::MAX));
}

#[test]
fn after_a_panic_of_who_gives_the_tree_nothing_is_committed() {
    let repository = repository();
    let writer = Writer::new(Arc::clone(&repository)).expect("a writer");
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        write_tree(&writer, 1, &|_| {}, |tree| {
            give(tree, b"", &everything()).map(|()| panic!("a panic of the test"))
        })
        .map(|_| ())
    }));
    assert!(made.is_err());
    let record = store(&repository, "2", &directory([])).expect("another writer goes on");
    let error = commit(writer, "1", record).expect_err("nothing is committed");
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[test]
fn after_a_flush_that_failed_nothing_is_committed() {
    let stored = |point| {
        let memory = Arc::new(MemoryStorage::new());
        let faulty = Arc::new(Faulty::new(memory, point));
        let storage: Arc<dyn Storage> = Arc::clone(&faulty) as _;
        let repository = init(&storage, &key()).expect("a repository");
        let writer = Writer::new(repository).expect("a writer");
        let record = write_tree(&writer, 1, &|_| {}, |tree| give(tree, b"", &everything()));
        (writer, record.expect("a tree"), faulty.count())
    };
    let (_, _, flush) = stored(FaultPoint::Never);
    // A pack of nodes, one of data, the index object.
    for operation in flush..flush + 3 {
        let (writer, record, _) = stored(FaultPoint::Only(operation));
        let failed = writer.flush().expect_err("the storage fails");
        assert_eq!(failed.kind(), ErrorKind::Io, "{failed}");
        let error = commit(writer, "1", record).expect_err("nothing is committed");
        assert_eq!(error.to_string(), failed.to_string());
    }
}
