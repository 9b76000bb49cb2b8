//! Nodes of a tree that no writer makes are refused by name, in reading and in verifying; what is
//! damaged beside the tree costs nothing but speed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use snapkeep_repo::{
    ChunkId, Class, ErrorKind, MemoryStorage, NodeKind, Repository, Result, Storage, TreeReader,
    TreeRecord, WitnessedDirectory, Writer, limits, verify,
};

use support::tree::{commit, directory, file, read, store};
use support::{init, key, name};

/// A node as docs/FORMAT.md 3.9 has it.
fn node(kind: u8, level: u8, items: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(items.len()).unwrap().to_le_bytes();
    [&[kind, 1, level, 0][..], &count, &items.concat()].concat()
}

fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap().to_le_bytes()
}

/// An entry without extended attributes: its kind, and what the kind has.
fn entry(name: &[u8], kind: u8, rest: &[u8]) -> Vec<u8> {
    let name = [&[u8::try_from(name.len()).unwrap()][..], name].concat();
    [
        &name[..],
        &[kind],
        &[0; 2 + 4 + 4 + 8 + 4 + 4],
        &[0; 2],
        rest,
    ]
    .concat()
}

fn fifo(name: &[u8]) -> Vec<u8> {
    entry(name, 5, &[])
}

fn symlink(target: &[u8]) -> Vec<u8> {
    entry(b"l", 3, &[&number(target.len())[..], target].concat())
}

fn extent(offset: u64, chunk: ChunkId, within: u32, length: u32) -> Vec<u8> {
    let (within, length) = (within.to_le_bytes(), length.to_le_bytes());
    [
        &offset.to_le_bytes()[..],
        chunk.as_bytes(),
        &within,
        &length,
    ]
    .concat()
}

fn regular(size: u64, extents: &[Vec<u8>]) -> Vec<u8> {
    let count = [u8::try_from(extents.len()).unwrap()];
    let rest = [
        &size.to_le_bytes()[..],
        &[1, 0, 0, 0],
        &count,
        &extents.concat(),
    ]
    .concat();
    entry(b"f", 1, &rest)
}

/// A repository in which nodes are made by hand.
struct Forge {
    repository: Arc<Repository>,
    writer: Writer,
}

impl Forge {
    fn new() -> Self {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let repository = init(&storage, &key()).expect("a new repository");
        let writer = Writer::new(Arc::clone(&repository)).expect("a writer");
        Self { repository, writer }
    }

    fn chunk(&self, class: Class, body: &[u8]) -> ChunkId {
        self.writer.worker().store(class, body).unwrap().id
    }

    fn node(&self, body: &[u8]) -> ChunkId {
        self.chunk(Class::Metadata, body)
    }

    /// The tree whose root has this node.
    fn tree(&self, root: ChunkId) -> TreeRecord {
        let place = [&[2], &root.as_bytes()[..]].concat();
        let root = self.node(&node(b'D', 0, &[entry(b"", 2, &place)]));
        let witness = None;
        TreeRecord {
            root,
            witness,
            entries: 0,
            size: 0,
            id_map: None,
            left_out: 0,
        }
    }

    /// Commits, reads everything and verifies: all of it must be refused with these words.
    fn expect_refused(self, record: &TreeRecord, words: &[&str]) {
        let Self { repository, writer } = self;
        commit(writer, "1", record.clone()).expect("a commit");
        let opened = TreeReader::open(Arc::clone(&repository), record);
        let error = opened
            .and_then(|reader| read_all(&reader))
            .expect_err(words[0]);
        let report = verify(&repository).expect("a verification");
        assert_eq!((report.damage.len(), report.snapshots), (1, 0), "{words:?}");
        assert_eq!(report.damage[0].object, name("1").to_string());
        for error in [&error, &report.damage[0].error] {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            let chain = error.chain();
            assert!(
                words.iter().all(|word| chain.contains(word)),
                "{words:?}: {chain}"
            );
        }
    }
}

fn read_all(reader: &TreeReader) -> Result<()> {
    read(reader).map(drop)
}

#[test]
fn nodes_that_no_writer_makes_are_refused_by_name() {
    let mut version = node(b'D', 0, &[fifo(b"f")]);
    version[1] = 2;
    let mut padded = node(b'D', 0, &[fifo(b"f")]);
    padded[3] = 1;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("too short", vec![b'D', 1, 0, 0, 1]),
        ("another type or version", version),
        ("another type or version", padded),
        ("another type or version", node(b'X', 0, &[fifo(b"f")])),
        ("a higher level", node(b'D', 8, &[fifo(b"f")])),
        ("an impossible number of items", node(b'D', 0, &[])),
        ("cut short", node(b'D', 0, &[fifo(b"f")[..20].to_vec()])),
        ("cut short", node(b'D', 0, &[fifo(b"f"), vec![]])),
        (
            "goes on behind",
            node(b'D', 0, &[[fifo(b"f"), vec![0]].concat()]),
        ),
        ("larger than is allowed", node(b'D', 0, &[vec![0; 3 << 20]])),
        (
            "a name that no entry can have",
            node(b'D', 0, &[fifo(b"a/b")]),
        ),
        (
            "a name that no entry can have",
            node(b'D', 0, &[fifo(b"..")]),
        ),
        ("a name that no entry can have", node(b'D', 0, &[fifo(b"")])),
        (
            "a name that no entry can have",
            node(b'D', 0, &[fifo(b"a\0")]),
        ),
        (
            "names that are not in order",
            node(b'D', 0, &[fifo(b"b"), fifo(b"a")]),
        ),
        (
            "names that are not in order",
            node(b'D', 0, &[fifo(b"a"), fifo(b"a")]),
        ),
    ];
    for (words, body) in cases {
        refuse(words, &body);
    }
}

/// This node is refused with these words.
fn refuse(words: &str, body: &[u8]) {
    let forge = Forge::new();
    let id = forge.node(body);
    let record = forge.tree(id);
    forge.expect_refused(&record, &[words, &id.to_string()]);
}

#[test]
fn entries_that_cannot_be_are_refused_by_their_nodes_name() {
    let long_path = b"x/".repeat(9000);
    let large = [&[1][..], &number(5000), &[0; 5000]].concat();
    let many = vec![extent(0, Forge::new().node(b"any"), 0, 1); 9];
    let mut nameless = regular(99, &[]);
    let links = nameless.len() - 1 - 4;
    nameless[links] = 0;
    let mut flagged = entry(b"h", 4, &[&number(1)[..], b"a"].concat());
    flagged[1 + 1 + 1 + 10 + 12] = 0x10;
    let mut nanos = fifo(b"f");
    nanos[1 + 1 + 1 + 10 + 8..][..4].copy_from_slice(&1_000_000_000_u32.to_le_bytes());
    let mut mode = fifo(b"f");
    mode[3..5].copy_from_slice(&0o10000_u16.to_le_bytes());
    let xattrs = |names: &[&[u8]]| {
        let count = u16::try_from(names.len()).unwrap().to_le_bytes();
        let each =
            |name: &&[u8]| [&[u8::try_from(name.len()).unwrap()][..], name, &number(0)].concat();
        let mut with = fifo(b"f");
        with.truncate(with.len() - 2);
        [with, count.to_vec(), names.iter().flat_map(each).collect()].concat()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown type", node(b'D', 0, &[entry(b"f", 9, &[])])),
        ("more than 12 bits", node(b'D', 0, &[mode])),
        ("more nanoseconds", node(b'D', 0, &[nanos])),
        (
            "attributes that are not in order",
            node(b'D', 0, &[xattrs(&[b"b", b"a"])]),
        ),
        (
            "attributes that are not in order",
            node(b'D', 0, &[xattrs(&[b"a", b"a"])]),
        ),
        ("an impossible name", node(b'D', 0, &[xattrs(&[b""])])),
        ("no symbolic link", node(b'D', 0, &[symlink(b"")])),
        ("no symbolic link", node(b'D', 0, &[symlink(b"a\0")])),
        ("no symbolic link", node(b'D', 0, &[symlink(&[b'x'; 4096])])),
        (
            "what is no path",
            node(
                b'D',
                0,
                &[entry(b"h", 4, &[&number(4)[..], b"a/.."].concat())],
            ),
        ),
        (
            "a deeper path",
            node(
                b'D',
                0,
                &[entry(b"h", 4, &[&number(18_000)[..], &long_path].concat())],
            ),
        ),
        ("an unknown place", node(b'D', 0, &[entry(b"d", 2, &[3])])),
        (
            "a larger node in an entry",
            node(b'D', 0, &[entry(b"d", 2, &large)]),
        ),
        ("had no name", node(b'D', 0, &[nameless])),
        ("what only the first name has", node(b'D', 0, &[flagged])),
        ("more extents", node(b'D', 0, &[regular(99, &many)])),
        ("larger file", node(b'D', 0, &[regular(1 << 63, &[])])),
    ];
    for (words, body) in cases {
        refuse(words, &body);
    }
}

#[test]
fn a_directory_in_its_entry_is_held_to_the_same() {
    for (words, inner) in [
        (
            "names that are not in order",
            node(b'D', 0, &[fifo(b"b"), fifo(b"a")]),
        ),
        (
            "several levels",
            node(b'D', 1, &[[&[1, b'a'][..], &[7; 32]].concat()]),
        ),
    ] {
        let forge = Forge::new();
        let place = [&[1][..], &number(inner.len()), &inner].concat();
        let id = forge.node(&node(b'D', 0, &[entry(b"d", 2, &place)]));
        let record = forge.tree(id);
        forge.expect_refused(&record, &[words, &id.to_string()]);
    }
}

#[test]
fn the_root_is_one_directory_without_a_name() {
    for items in [
        vec![fifo(b"")],
        vec![entry(b"x", 2, &[0])],
        vec![entry(b"", 2, &[0]), entry(b"", 2, &[0])],
    ] {
        let forge = Forge::new();
        let root = forge.node(&node(b'D', 0, &items));
        let record = TreeRecord {
            root,
            witness: None,
            entries: 0,
            size: 0,
            id_map: None,
            left_out: 0,
        };
        let opened = TreeReader::open(Arc::clone(&forge.repository), &record);
        // What is still in an open pack cannot be read.
        assert_eq!(
            opened.expect_err("it is not stored").kind(),
            ErrorKind::Corrupt
        );
        let Forge { repository, writer } = forge;
        commit(writer, "1", record.clone()).expect("a commit");
        let error = TreeReader::open(Arc::clone(&repository), &record).expect_err("no root");
        assert!(
            error.chain().contains(&root.to_string()),
            "{}",
            error.chain()
        );
        assert_eq!(verify(&repository).expect("a verification").damage.len(), 1);
    }
}

#[test]
fn nodes_of_a_directory_must_be_where_the_one_above_says() {
    let above = |level, children: &[(&[u8], ChunkId)]| {
        let each = |(first, id): &(&[u8], ChunkId)| {
            [
                &[u8::try_from(first.len()).unwrap()][..],
                first,
                id.as_bytes(),
            ]
            .concat()
        };
        node(b'D', level, &children.iter().map(each).collect::<Vec<_>>())
    };
    let forge = || {
        let forge = Forge::new();
        let one = forge.node(&node(b'D', 0, &[fifo(b"a"), fifo(b"c")]));
        let two = forge.node(&node(b'D', 0, &[fifo(b"d")]));
        (forge, one, two)
    };
    for (words, level, first, second) in [
        ("another level", 2, &b"a"[..], &b"d"[..]),
        ("other names", 1, b"b", b"d"),
        ("other names", 1, b"a", b"c"),
    ] {
        let (forge, one, two) = forge();
        let id = forge.node(&above(level, &[(first, one), (second, two)]));
        let record = forge.tree(id);
        forge.expect_refused(&record, &[words, &one.to_string()]);
    }
    let (forge, one, two) = forge();
    let id = forge.node(&above(1, &[(b"a", one), (b"d", two)]));
    let record = forge.tree(id);
    let Forge { repository, writer } = forge;
    commit(writer, "1", record.clone()).expect("a commit");
    let reader = TreeReader::open(Arc::clone(&repository), &record).expect("it opens");
    read_all(&reader).expect("as it is made it is read");
    assert_eq!(verify(&repository).expect("a verification").damage.len(), 0);
}

#[test]
fn extents_must_lie_in_their_file_and_chunk_and_not_overlap() {
    for (words, size, parts) in [
        ("overlap", 100, vec![(0, 0, 20), (19, 0, 10)]),
        ("overlap", 100, vec![(20, 0, 20), (0, 0, 10)]),
        ("behind the file's end", 29, vec![(0, 0, 20), (20, 0, 10)]),
        ("overlap", 100, vec![(u64::MAX, 0, 10)]),
        ("fits in no chunk", 100, vec![(0, 0, 0)]),
        ("fits in no chunk", 100, vec![(0, u32::MAX, 5)]),
        ("is shorter than a file", 100, vec![(0, 40, 11)]),
    ] {
        for in_nodes in [false, true] {
            let forge = Forge::new();
            let chunk = forge.chunk(Class::Data, &[7; 50]);
            let each =
                |(at, within, length): &(u64, u32, u32)| extent(*at, chunk, *within, *length);
            let extents: Vec<_> = parts.iter().map(each).collect();
            let (named, body) = if in_nodes {
                let extents = forge.node(&node(b'X', 0, &extents));
                let rest = [
                    &100_u64.to_le_bytes()[..],
                    &[1, 0, 0, 0, 255],
                    extents.as_bytes(),
                ];
                let mut file = entry(b"f", 1, &rest.concat());
                let at = file.len() - 32 - 5 - 8;
                file[at..at + 8].copy_from_slice(&u64::to_le_bytes(size));
                (extents, node(b'D', 0, &[file]))
            } else {
                let body = node(b'D', 0, &[regular(size, &extents)]);
                (forge.node(&body), body)
            };
            let named = if words.contains("shorter") {
                chunk
            } else {
                named
            };
            let id = forge.node(&body);
            let record = forge.tree(id);
            forge.expect_refused(&record, &[words, &named.to_string()]);
        }
    }
}

#[test]
fn what_the_next_backup_compares_with_may_be_damaged() {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let repository = init(&storage, &key()).expect("a new repository");
    let root = directory([(
        b"d".to_vec(),
        directory([(b"f".to_vec(), file(b"content"))]),
    )]);
    let mut record = store(&repository, "1", &root).expect("a backup");
    assert!(record.witness.is_some());
    let told = [&[1][..], &[9; 8 + 8 + 4], &[0]].concat();
    let strange = [
        // No node; one of two items, for there is one entry; one with an item of an unknown kind.
        b"no node".to_vec(),
        node(b'W', 0, &[told.clone(), told]),
        node(b'W', 0, &[vec![2, 0]]),
    ];
    for (number, body) in strange.iter().enumerate() {
        let writer = Writer::new(Arc::clone(&repository)).expect("a writer");
        let bad = writer.worker().store(Class::Metadata, body).unwrap().id;
        record.witness = Some(bad);
        commit(writer, &format!("2-{number}"), record.clone()).expect("a commit");
        let reader = TreeReader::open(Arc::clone(&repository), &record).expect("it opens");
        assert!(read(&reader).expect("it is read") == root);
        let mut top = WitnessedDirectory::root(Arc::new(reader));
        let found = top.seek(b"").expect("it is read").expect("the root");
        assert_eq!(found.witness, None);
        let mut top = top.enter(&found).expect("it is entered");
        let found = top.seek(b"d").expect("it is read").expect("d");
        assert!(found.witness.is_none() && matches!(found.node.kind, NodeKind::Directory(_)));
        let report = verify(&repository).expect("a verification");
        let told: Vec<_> = report.damage.iter().map(|d| d.error.chain()).collect();
        let words = ["everything can be restored", &bad.to_string()];
        let bad = told
            .iter()
            .filter(|line| words.iter().all(|word| line.contains(word)));
        assert_eq!(bad.count(), usize::from(number != 1), "{told:?}");
        assert_eq!(report.snapshots, 2 + number as u64);
    }
}

/// A file of this name and size whose extents lie in this node.
fn file_in_nodes(name: &[u8], size: u64, node: ChunkId) -> Vec<u8> {
    let rest = [&size.to_le_bytes()[..], &[1, 0, 0, 0, 255], node.as_bytes()];
    entry(name, 1, &rest.concat())
}

/// An extent node above level 0.
fn extents_above(level: u8, children: &[(u64, ChunkId)]) -> Vec<u8> {
    let each = |(first, id): &(u64, ChunkId)| [&first.to_le_bytes()[..], id.as_bytes()].concat();
    node(b'X', level, &children.iter().map(each).collect::<Vec<_>>())
}

#[test]
fn extents_that_two_files_have_must_lie_in_both() {
    let forge = Forge::new();
    let chunk = forge.chunk(Class::Data, &[7; 50]);
    let below = forge.node(&node(b'X', 0, &[extent(10, chunk, 0, 50)]));
    let above = forge.node(&extents_above(1, &[(10, below)]));
    let files = [
        file_in_nodes(b"a", 60, above),
        file_in_nodes(b"b", 59, above),
    ];
    let id = forge.node(&node(b'D', 0, &files));
    let record = forge.tree(id);
    forge.expect_refused(&record, &["behind the file's end", &below.to_string()]);
}

#[test]
fn content_whose_nodes_do_not_belong_together_is_not_present() {
    let forge = Forge::new();
    let chunk = forge.chunk(Class::Data, &[7; 50]);
    let whole = forge.node(&node(b'X', 0, &[extent(0, chunk, 0, 50)]));
    let overlapping = [extent(0, chunk, 0, 50), extent(49, chunk, 0, 1)];
    let overlapping = forge.node(&node(b'X', 0, &overlapping));
    // Each node names the one below again and again: without a look at the offsets that would
    // be too many to go through.
    let mut again = whole;
    for level in 1..limits::TREE_LEVELS_MAX {
        let children: Vec<_> = (0..100).map(|first| (first, again)).collect();
        again = forge.node(&extents_above(level, &children));
    }
    let contents = [
        (true, forge.node(&extents_above(1, &[(0, whole)]))),
        (false, overlapping),
        (false, forge.node(&extents_above(2, &[(0, whole)]))),
        (false, forge.node(&extents_above(1, &[(1, whole)]))),
        (false, again),
    ];
    let names = [b"0", b"1", b"2", b"3", b"4"];
    let each = |(name, (_, id)): (&&[u8; 1], &(bool, ChunkId))| file_in_nodes(&name[..], 50, *id);
    let files: Vec<_> = names.iter().zip(&contents).map(each).collect();
    let id = forge.node(&node(b'D', 0, &files));
    let record = forge.tree(id);
    let Forge { repository, writer } = forge;
    commit(writer, "1", record.clone()).expect("a commit");
    let reader = TreeReader::open(repository, &record).expect("it opens");
    let NodeKind::Directory(top) = &reader.root().kind else {
        panic!("the root is a directory");
    };
    for (name, (present, _)) in names.iter().zip(contents) {
        let found = reader.lookup(top, &name[..]).expect("it is read");
        let NodeKind::File(file) = found.expect("the file").kind else {
            panic!("it is a file");
        };
        assert_eq!(
            reader.is_present(&file).expect("an answer"),
            present,
            "{name:?}"
        );
    }
}
