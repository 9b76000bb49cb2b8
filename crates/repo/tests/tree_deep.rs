//! Trees as deep as they may be, and many directories of which none is finished.

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    ErrorKind, MemoryStorage, NodeKind, Repository, Storage, TreeNode, TreeReader, TreeRecord,
    WitnessedDirectory, limits, verify,
};

use support::tree::{attributes, store_counted, witness};
use support::{init, key};

fn repository() -> Arc<Repository> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    init(&storage, &key()).expect("a new repository")
}

fn fifo(name: Vec<u8>) -> TreeNode {
    TreeNode {
        name,
        attributes: attributes(0),
        kind: NodeKind::Fifo,
    }
}

/// Goes down a tree along directories of this name; how many there are, and the entries of the
/// last. What compares goes with it and must find the same.
fn descend(repository: &Arc<Repository>, record: &TreeRecord, name: &[u8]) -> (usize, usize) {
    let reader = TreeReader::open(Arc::clone(repository), record).expect("it opens");
    let reader = Arc::new(reader);
    let mut beside = vec![WitnessedDirectory::root(Arc::clone(&reader))];
    let mut found = beside[0].seek(b"").expect("it is read").expect("the root");
    let mut depth = 0;
    loop {
        let NodeKind::Directory(directory) = &found.node.kind else {
            panic!("it is a directory");
        };
        let next = reader.lookup(directory, name).expect("it is read");
        let here = beside.last_mut().expect("where it was found");
        let mut within = here.enter(&found).expect("it is entered");
        let known = within.seek(name).expect("it is read");
        assert_eq!(known.as_ref().map(|known| &known.node), next.as_ref());
        let Some(known) = known else {
            let entries = reader.list(directory, None, usize::MAX).expect("a list");
            // On the way back the directories above go on where they were.
            for above in beside.iter_mut().skip(1) {
                assert!(above.seek(b"zzz").expect("it is read").is_some());
            }
            return (depth, entries.len());
        };
        assert!(known.witness.is_some());
        beside.push(within);
        found = known;
        depth += 1;
    }
}

#[test]
fn a_tree_may_be_as_deep_as_the_limit_and_no_deeper() {
    let repository = repository();
    let plain = attributes(0o755);
    let (record, _) = store_counted(&repository, "1", |tree| {
        tree.enter(b"", &plain, None)?;
        for _ in 1..limits::TREE_DEPTH_MAX {
            tree.enter(b"d", &plain, Some(witness(b"d")))?;
        }
        tree.add(fifo(b"last".to_vec()), None)?;
        tree.enter(b"too deep", &plain, None)?;
        let error = tree
            .add(fifo(b"f".to_vec()), None)
            .expect_err("it is too deep");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().ends_with("is deeper than is allowed"));
        tree.leave()?;
        for _ in 1..limits::TREE_DEPTH_MAX {
            tree.leave()?;
            tree.add(fifo(b"zzz".to_vec()), Some(witness(b"z")))?;
        }
        tree.leave()
    })
    .expect("a backup");
    let report = verify(&repository).expect("a verification");
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let (depth, entries) = descend(&repository, &record, b"d");
    assert_eq!((depth, entries), (limits::TREE_DEPTH_MAX - 1, 2));
}

#[test]
fn nodes_of_many_unfinished_directories_are_stored_before_they_are_too_many() {
    const DEEP: u64 = 800;
    const EACH: u64 = 300;
    let repository = repository();
    let plain = attributes(0o755);
    let mut most_new = 0;
    let (record, counts) = store_counted(&repository, "1", |tree| {
        tree.enter(b"", &plain, None)?;
        for level in 0..DEEP {
            for number in 0..EACH {
                let name = format!("{number:04}{level}{}", "-".repeat(180));
                tree.add(fifo(name.into_bytes()), None)?;
            }
            tree.enter(b"d", &plain, Some(witness(b"d")))?;
        }
        // What was given, less what is still held.
        most_new = tree.counts().nodes_new;
        for _ in 0..DEEP {
            tree.leave()?;
            tree.add(fifo(b"zzz".to_vec()), None)?;
        }
        tree.leave()
    })
    .expect("a backup");
    let held = counts.nodes_new - most_new;
    assert!(
        held < 33 << 20 && counts.nodes_new > 48 << 20,
        "{held} {counts:?}"
    );
    assert_eq!(record.entries, 1 + DEEP * (EACH + 2));
    let report = verify(&repository).expect("a verification");
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    let (depth, entries) = descend(&repository, &record, b"d");
    assert_eq!((depth as u64, entries), (DEEP, 0));
}

#[test]
fn attributes_of_the_directories_around_are_bounded() {
    const MOST: usize = limits::TREE_OPEN_BYTES_MAX >> 20;
    let repository = repository();
    let mut large = attributes(0o755);
    // 15 values of 64 KiB.
    large.xattrs = (b'a'..=b'o')
        .map(|name| (vec![name], vec![7; limits::XATTR_VALUE_MAX]))
        .collect();
    let made = store_counted(&repository, "1", |tree| {
        tree.enter(b"", &attributes(0o755), None)?;
        // Directories that were left do not count.
        for (name, path) in [(b"d", "/d/d/d"), (b"e", "/e/e/e")] {
            let mut entered = 0;
            let error = loop {
                match tree.enter(name, &large, None) {
                    Ok(()) => entered += 1,
                    Err(error) => break error,
                }
                assert!(entered <= MOST * 16 / 15, "{entered}");
            };
            assert!(entered >= MOST, "{entered}");
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let told = error.to_string();
            assert!(
                told.contains(path) && told.contains("remove some"),
                "{told}"
            );
            for _ in 0..entered {
                tree.leave()?;
            }
        }
        tree.leave()
    });
    made.expect("a backup");
    let report = verify(&repository).expect("a verification");
    assert!(report.damage.is_empty(), "{:?}", report.damage);
}
