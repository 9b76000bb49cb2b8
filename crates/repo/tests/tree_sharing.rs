//! What two trees have in common is stored once, and a change stores little.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    ErrorKind, MemoryStorage, NodeKind, Repository, Storage, TreeNode, TreeReader, TreeRecord,
    Writer, write_tree,
};

use support::tree::{
    Entry, Kind, attributes, directory, file, give, noise, read, store, store_counted, witness,
};
use support::{init, key, open};

fn repository() -> Arc<Repository> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    init(&storage, &key()).expect("a new repository")
}

/// So many files of about 3 KB in one directory, which is in the root.
fn small_files(count: u64) -> Entry {
    let files = (0..count).map(|number| {
        let length = usize::try_from(1000 + number * 37 % 4000).unwrap();
        (
            format!("file {number:06}").into_bytes(),
            file(&noise(number, length)),
        )
    });
    directory([(b"files".to_vec(), directory(files))])
}

fn entry<'a>(root: &'a mut Entry, path: &[&str]) -> &'a mut Entry {
    path.iter().fold(root, |entry, name| {
        let Kind::Directory(entries) = &mut entry.kind else {
            panic!("{name} is in no directory");
        };
        entries
            .get_mut(name.as_bytes())
            .expect("the entry is there")
    })
}

fn lookup(
    repository: &Arc<Repository>,
    record: &TreeRecord,
    path: &[&str],
) -> (TreeReader, TreeNode) {
    let reader = TreeReader::open(Arc::clone(repository), record).expect("it opens");
    let mut node = reader.root().clone();
    for name in path {
        let NodeKind::Directory(directory) = &node.kind else {
            panic!("{name} is in no directory");
        };
        node = reader
            .lookup(directory, name.as_bytes())
            .unwrap()
            .expect("the entry is there");
    }
    (reader, node)
}

#[test]
fn equal_trees_share_everything() {
    let repository = repository();
    let mut root = small_files(3000);
    let one = store(&repository, "1", &root).expect("a backup");
    let (two, counts) = store_counted(&repository, "2", |t| give(t, b"", &root)).unwrap();
    assert_eq!((two, counts.new, counts.nodes_new), (one.clone(), 0, 0));
    // Elsewhere, beside something else, the directory is the same.
    let Kind::Directory(entries) = &mut root.kind else {
        panic!("the root is a directory");
    };
    entries.insert(b"a".to_vec(), file(b""));
    let (three, counts) = store_counted(&repository, "3", |t| give(t, b"", &root)).unwrap();
    assert!(
        three != one && counts.new == 0 && counts.nodes_new < 1000,
        "{counts:?}"
    );
}

#[test]
fn a_tree_on_another_host_differs_in_its_witnesses_alone() {
    let repository = repository();
    let plain = attributes(0o755);
    let make = |name, inode: u64| {
        store_counted(&repository, name, |tree| {
            let witness = |number: u64| {
                Some(snapkeep_repo::Witness {
                    inode: inode + number,
                    ..witness(b"")
                })
            };
            tree.enter(b"", &plain, witness(0))?;
            for number in 0..3000_u64 {
                tree.begin_file(format!("{number:04}").as_bytes(), &plain, 1)?;
                tree.end_file(witness(number))?;
            }
            tree.leave()
        })
        .unwrap()
    };
    let ((one, _), (two, counts)) = (make("1", 1), make("2", 1 << 40));
    assert!(one.root == two.root && one.witness != two.witness);
    // A witness takes 22 bytes, a node of them 8, and naming one 33.
    assert!(counts.nodes_new < 22 * 3001 + 41 * 20, "{counts:?}");
}

#[test]
fn one_changed_file_of_many_stores_few_nodes_and_one_or_two_bundles() {
    let repository = repository();
    let mut root = small_files(10_000);
    let (_, all) = store_counted(&repository, "1", |t| give(t, b"", &root)).unwrap();
    *entry(&mut root, &["files", "file 004711"]) = file(&noise(1 << 32, 500));
    let (record, counts) = store_counted(&repository, "2", |t| give(t, b"", &root)).unwrap();
    assert!(all.nodes_new > 1_000_000 && all.new > 25_000_000, "{all:?}");
    assert!(
        counts.nodes_new < 400_000 && counts.new < 2_500_000,
        "{counts:?}"
    );
    let reader = TreeReader::open(Arc::clone(&repository), &record).unwrap();
    assert!(read(&reader).unwrap() == root);
}

#[test]
fn a_new_file_at_the_beginning_moves_few_cuts() {
    let repository = repository();
    let mut root = small_files(10_000);
    store(&repository, "1", &root).expect("a backup");
    let files = entry(&mut root, &["files"]);
    let Kind::Directory(entries) = &mut files.kind else {
        panic!("it is a directory");
    };
    entries.insert(b"a new one".to_vec(), file(&noise(1 << 33, 2222)));
    let (_, counts) = store_counted(&repository, "2", |t| give(t, b"", &root)).unwrap();
    assert!(
        counts.nodes_new < 400_000 && counts.new < 2_500_000,
        "{counts:?}"
    );
}

#[test]
fn an_insertion_in_a_large_file_stores_few_chunks() {
    let repository = repository();
    let mut bytes = noise(1, 48 << 20);
    let tree = |bytes: &[u8]| directory([(b"large".to_vec(), file(bytes))]);
    store(&repository, "1", &tree(&bytes)).expect("a backup");
    bytes.splice(10 << 20..10 << 20, *b"inserted");
    let root = tree(&bytes);
    let (record, counts) = store_counted(&repository, "2", |t| give(t, b"", &root)).unwrap();
    assert!(
        counts.new < 9 << 20 && counts.reused > 38 << 20,
        "{counts:?}"
    );
    let reader = TreeReader::open(Arc::clone(&repository), &record).unwrap();
    assert!(read(&reader).unwrap() == root);
}

#[test]
fn a_file_that_has_not_changed_is_stored_without_being_read() {
    let repository = repository();
    let root = directory([
        (b"large".to_vec(), file(&noise(1, 20 << 20))),
        (b"small".to_vec(), file(&noise(2, 2000))),
    ]);
    let one = store(&repository, "1", &root).expect("a backup");
    let (two, counts) = store_counted(&repository, "2", |tree| {
        tree.enter(b"", &root.attributes, Some(witness(b"")))?;
        for name in ["large", "small"] {
            let (reader, node) = lookup(&repository, &one, &[name]);
            let NodeKind::File(file) = &node.kind else {
                panic!("it is a file");
            };
            assert!(reader.is_present(file)?);
            tree.reuse(&node, Some(witness(format!("/{name}").as_bytes())))?;
        }
        tree.leave()
    })
    .unwrap();
    assert_eq!(two, one);
    assert_eq!((counts.new, counts.reused, counts.nodes_new), (0, 0, 0));
}

#[test]
fn content_that_is_not_in_the_repository_is_not_reused() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let key = key();
    let repository = init(&storage, &key).expect("a new repository");
    let root = directory([
        (b"large".to_vec(), file(&noise(1, 20 << 20))),
        (b"small".to_vec(), file(&noise(2, 2000))),
    ]);
    let record = store(&repository, "1", &root).expect("a backup");
    let mut packs = Vec::new();
    let list = storage.list(&"packs".parse().unwrap(), &mut |name, length| {
        packs.push((name.clone(), length));
        Ok(())
    });
    list.expect("a list");
    // The packs with data are the two largest.
    packs.sort_by_key(|(_, length)| *length);
    for (name, _) in packs.iter().rev().take(2) {
        storage.remove(name).expect("a pack is lost");
    }
    let repository = open(&storage, &key).expect("it opens");
    let writer = Writer::new(Arc::clone(&repository)).expect("a writer");
    for name in ["large", "small"] {
        let (reader, node) = lookup(&repository, &record, &[name]);
        let NodeKind::File(file) = &node.kind else {
            panic!("it is a file");
        };
        assert!(!reader.is_present(file).expect("the index tells"));
        let made = write_tree(&writer, 1, &|_| {}, |tree| {
            tree.enter(b"", &root.attributes, None)?;
            tree.reuse(&node, None)?;
            tree.leave()
        });
        // The large one's nodes are there, which is all that is looked at.
        match made {
            Ok(_) => assert_eq!(name, "large"),
            Err(error) => assert_eq!((name, error.kind()), ("small", ErrorKind::NotFound)),
        }
    }
}
