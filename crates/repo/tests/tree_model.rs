//! Random trees come back as they were.

mod support;

use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use snapkeep_repo::{Attributes, MemoryStorage, NodeKind, Storage, Timestamp, TreeReader, verify};

use support::tree::{Entries, Entry, Kind, noise, read, store};
use support::{init, key};

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'a'), Just(0xff), Just(1), any::<u8>()];
    vec(byte, 1..4).prop_map(|mut name| {
        for byte in &mut name {
            if matches!(byte, 0 | b'/' | b'.') {
                *byte = b'x';
            }
        }
        name
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let numbers = (0..0o10000u16, any::<u32>(), any::<u32>(), any::<u32>());
    let time = (any::<i64>(), 0..1_000_000_000u32);
    let xattrs = btree_map(name(), vec(any::<u8>(), 0..5), 0..3);
    (numbers, time, xattrs).prop_map(|((mode, uid, gid, flags), (seconds, nanos), xattrs)| {
        Attributes {
            mode,
            uid,
            gid,
            flags,
            mtime: Timestamp { seconds, nanos },
            xattrs: xattrs.into_iter().collect(),
        }
    })
}

/// Data and holes by turns, of sizes that lie near the limits of bundles and chunks.
fn content() -> impl Strategy<Value = Kind> {
    let size = prop_oneof![
        8 => 0..3000usize,
        2 => (128 << 10) - 2..(128 << 10) + 2usize,
        1 => 200_000..6_000_000usize
    ];
    (1..3u32, any::<u64>(), vec((1..10_000u64, size), 0..12)).prop_map(|(links, seed, parts)| {
        let (mut offset, mut pieces) = (0, Vec::new());
        for (number, (hole, length)) in (seed..=u64::MAX).zip(parts) {
            // The first byte of the file is a hole or data, and so is the last.
            offset += if hole % 5 == 0 && pieces.is_empty() {
                0
            } else {
                hole
            };
            if length > 0 {
                pieces.push((offset, noise(number % 4, length)));
            }
            offset += length as u64;
        }
        Kind::File(links, offset, pieces)
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let text = || vec(1..=255u8, 1..20);
    let leaf = prop_oneof![
        6 => content(),
        1 => text().prop_map(|target| Kind::Other(NodeKind::Symlink { target })),
        1 => name().prop_map(|path| Kind::Other(NodeKind::HardLink { path })),
        1 => (any::<u32>(), any::<u32>())
            .prop_map(|(major, minor)| Kind::Other(NodeKind::CharDevice { major, minor })),
        1 => Just(Kind::Other(NodeKind::Fifo)),
    ];
    let leaf = (attributes(), leaf).prop_map(|(mut attributes, kind)| {
        if matches!(kind, Kind::Other(NodeKind::HardLink { .. })) {
            (attributes.flags, attributes.xattrs) = (0, Vec::new());
        }
        Entry { attributes, kind }
    });
    leaf.prop_recursive(5, 120, 30, |entry| {
        (attributes(), btree_map(name(), entry, 0..30)).prop_map(|(attributes, entries)| Entry {
            attributes,
            kind: Kind::Directory(entries),
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_come_back(root in attributes(), entries in btree_map(name(), entry(), 0..20)) {
        let entries: Entries = entries;
        let root = Entry { attributes: root, kind: Kind::Directory(entries) };
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let repository = init(&storage, &key()).expect("a new repository");
        let record = store(&repository, "1", &root).expect("a backup");
        let reader = TreeReader::open(Arc::clone(&repository), &record).expect("it opens");
        prop_assert!(read(&reader).expect("it is read") == root);
        let report = verify(&repository).expect("a verification");
        prop_assert!(report.damage.is_empty(), "{:?}", report.damage);
    }
}
