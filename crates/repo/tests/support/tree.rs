//! Directory trees as the tests think of them: made, written, and read again.

use std::collections::BTreeMap;
use std::sync::Arc;

use snapkeep_repo::{
    Attributes, Error, NodeKind, Repository, Result, Timestamp, TreeCounts, TreeDirectory,
    TreeFile, TreeReader, TreeRecord, TreeWriter, Witness, Writer, write_tree,
};

/// An entry without its name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) attributes: Attributes,
    pub(crate) kind: Kind,
}

pub(crate) type Entries = BTreeMap<Vec<u8>, Entry>;

/// What an entry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Directory(Entries),
    /// Names it has, size, and what is no hole: never empty, with a hole between two.
    File(u32, u64, Vec<(u64, Vec<u8>)>),
    Other(NodeKind),
}

/// A file of this content.
pub(crate) fn file(content: &[u8]) -> Entry {
    let pieces = Some((0, content.to_vec())).filter(|_| !content.is_empty());
    Entry {
        attributes: attributes(0o644),
        kind: Kind::File(1, content.len() as u64, pieces.into_iter().collect()),
    }
}

pub(crate) fn directory(entries: impl IntoIterator<Item = (Vec<u8>, Entry)>) -> Entry {
    Entry {
        attributes: attributes(0o755),
        kind: Kind::Directory(entries.into_iter().collect()),
    }
}

pub(crate) fn attributes(mode: u16) -> Attributes {
    Attributes {
        mode,
        uid: 1000,
        gid: 100,
        mtime: time(1_700_000_000),
        ..Attributes::default()
    }
}

pub(crate) fn time(seconds: i64) -> Timestamp {
    let nanos = 123_456_789;
    Timestamp { seconds, nanos }
}

/// A witness that depends on an entry's path alone.
pub(crate) fn witness(path: &[u8]) -> Witness {
    let inode = path
        .iter()
        .fold(7, |sum: u64, b| sum * 31 % 65_521 + u64::from(*b));
    let ctime = time(i64::try_from(inode).unwrap());
    Witness { inode, ctime }
}

/// Gives a tree to a writer.
pub(crate) fn give(tree: &mut TreeWriter<'_>, path: &[u8], entry: &Entry) -> Result<()> {
    let name = path.rsplit(|b| *b == b'/').next().unwrap();
    match &entry.kind {
        Kind::Directory(entries) => {
            tree.enter(name, &entry.attributes, Some(witness(path)))?;
            for (name, entry) in entries {
                give(tree, &[path, b"/", name].concat(), entry)?;
            }
            tree.leave()
        }
        Kind::File(links, size, pieces) => {
            tree.begin_file(name, &entry.attributes, *links)?;
            let mut reached = 0;
            for (offset, data) in pieces {
                tree.hole(offset - reached)?;
                // In odd pieces, as they come through a socket.
                data.chunks(100_003)
                    .try_for_each(|piece| tree.data(piece))?;
                reached = offset + data.len() as u64;
            }
            tree.hole(size - reached)?;
            tree.end_file(Some(witness(path)))
        }
        Kind::Other(kind) => {
            let node = snapkeep_repo::TreeNode {
                name: name.to_owned(),
                attributes: entry.attributes.clone(),
                kind: kind.clone(),
            };
            tree.add(node, Some(witness(path)))
        }
    }
}

/// Stores a tree, and commits it under this name.
pub(crate) fn store(repository: &Arc<Repository>, text: &str, root: &Entry) -> Result<TreeRecord> {
    let given = store_counted(repository, text, |tree| give(tree, b"", root));
    given.map(|(record, _)| record)
}

/// Stores and commits the tree that is given here, and counts what that took.
pub(crate) fn store_counted(
    repository: &Arc<Repository>,
    text: &str,
    give: impl FnOnce(&mut TreeWriter<'_>) -> Result<()>,
) -> Result<(TreeRecord, TreeCounts)> {
    let writer = Writer::new(Arc::clone(repository))?;
    let mut counts = TreeCounts::default();
    let record = write_tree(&writer, 2, &|_| {}, |tree: &mut TreeWriter<'_>| {
        give(tree)?;
        counts = tree.counts();
        Ok::<_, Error>(())
    })?;
    commit(writer, text, record.clone())?;
    Ok((record, counts))
}

pub(crate) fn commit(writer: Writer, text: &str, record: TreeRecord) -> Result<()> {
    let mut snapshot = super::snapshot(Vec::new());
    snapshot.tree = Some(record);
    writer.commit(&super::name(text), snapshot).map(drop)
}

/// Reads a whole tree.
pub(crate) fn read(reader: &TreeReader) -> Result<Entry> {
    let root = reader.root();
    let NodeKind::Directory(directory) = &root.kind else {
        panic!("the root is a directory");
    };
    let entries = read_directory(reader, directory)?;
    Ok(Entry {
        attributes: root.attributes.clone(),
        kind: Kind::Directory(entries),
    })
}

fn read_directory(reader: &TreeReader, directory: &TreeDirectory) -> Result<Entries> {
    let mut found = Entries::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = reader.list(directory, after.as_deref(), 7)?;
        let is_last = page.len() < 7;
        after = page.last().map(|node| node.name.clone());
        for node in page {
            let kind = match node.kind {
                NodeKind::Directory(below) => Kind::Directory(read_directory(reader, &below)?),
                NodeKind::File(file) => {
                    Kind::File(file.links, file.size, read_file(reader, &file)?)
                }
                other @ (NodeKind::Symlink { .. }
                | NodeKind::HardLink { .. }
                | NodeKind::Fifo
                | NodeKind::Socket
                | NodeKind::CharDevice { .. }
                | NodeKind::BlockDevice { .. }) => Kind::Other(other),
            };
            let attributes = node.attributes;
            let entry = Entry { attributes, kind };
            assert!(found.insert(node.name, entry).is_none());
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// What is no hole.
pub(crate) fn read_file(reader: &TreeReader, file: &TreeFile) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut offset = 0;
    while let Some((start, length)) = reader.next_data(file, offset)? {
        let mut bytes = vec![0xee; usize::try_from(length).unwrap()];
        reader.read_at(file, start, &mut bytes)?;
        offset = start + length;
        match pieces.last_mut() {
            Some((first, last)) if *first + last.len() as u64 == start => last.append(&mut bytes),
            _ => pieces.push((start, bytes)),
        }
    }
    Ok(pieces)
}

/// Bytes that do not compress, and differ for each number.
pub(crate) fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut stream = blake3::Hasher::new()
        .update(&number.to_le_bytes())
        .finalize_xof();
    stream.fill(&mut bytes);
    bytes
}
