//! The directory tree of a golden repository: one of every kind of entry, and of every way in which
//! a file's content lies in chunks. And a text of all that a tree restores to.

use std::fmt::Write as _;

use snapkeep_repo::{
    Attributes, Error, NodeKind, Result, Timestamp, TreeDirectory, TreeFile, TreeNode, TreeReader,
    TreeWriter, Witness,
};

/// Attributes that differ for each number.
fn attributes(number: u32) -> Attributes {
    Attributes {
        mode: u16::try_from(number % 0o10000).unwrap_or_default(),
        uid: number,
        gid: u32::MAX - number,
        mtime: Timestamp {
            seconds: 1_700_000_000 - i64::from(number) * 1_000_000_000,
            nanos: number,
        },
        ..Attributes::default()
    }
}

/// Of an inode with a number; without one nothing is known.
fn witness(inode: u64) -> Option<Witness> {
    let seconds = 1_800_000_000;
    let ctime = Timestamp { seconds, nanos: 1 };
    (inode != 0).then_some(Witness { inode, ctime })
}

/// Text that compresses.
fn text(length: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|number: u32| format!("line {number} of a file\n").into_bytes());
    lines.take(length).collect()
}

/// Makes the tree, in the order of the names.
pub(crate) fn give(tree: &mut TreeWriter<'_>) -> Result<()> {
    tree.enter(b"", &attributes(0o755), witness(2))?;
    // Small files of several directories lie in one bundle.
    tree.enter(b"dir", &attributes(1), witness(3))?;
    tree.enter(b"below", &attributes(2), witness(0))?;
    file(tree, b"first\n", 3, &[Part::Data(b"in a bundle".to_vec())])?;
    tree.leave()?;
    file(tree, b"second", 4, &[Part::Data(text(3000))])?;
    tree.leave()?;
    tree.enter(b"empty dir", &attributes(5), witness(5))?;
    tree.leave()?;
    file(tree, b"empty file", 6, &[])?;
    // Names after one of which a node ends, so that there are two levels of them.
    tree.enter(b"fifos", &attributes(7), witness(7))?;
    for number in 0..85 {
        let name = format!("{}{number:02}gf", "-".repeat(190)).into_bytes();
        add(tree, &name, 0o644, NodeKind::Fifo)?;
    }
    tree.leave()?;
    let path = b"dir/below/first\n".to_vec();
    add(tree, b"hard link", 3, NodeKind::HardLink { path })?;
    file(tree, b"hole", 8, &[Part::Hole(123_456_789_012)])?;
    file(tree, b"large", 9, &[Part::Data(text(140_000))])?;
    let (major, minor) = (1, 3);
    add(tree, b"null", 10, NodeKind::CharDevice { major, minor })?;
    let (major, minor) = (8, (1 << 20) - 1);
    add(tree, b"sda", 11, NodeKind::BlockDevice { major, minor })?;
    add(tree, b"socket", 12, NodeKind::Socket)?;
    let small = [
        Part::Hole(5000),
        Part::Data(b"island".to_vec()),
        Part::Hole(1),
    ];
    file(tree, b"sparse", 13, &small)?;
    // Too many extents for an entry.
    let islands = (1..14).flat_map(|number| [Part::Hole(1 << 30), Part::Data(text(number * 10))]);
    file(tree, b"sparse islands", 14, &islands.collect::<Vec<_>>())?;
    let target = b"../etc/\xff".to_vec();
    add(tree, b"symlink", 15, NodeKind::Symlink { target })?;
    let mut strange = attributes(16);
    strange.flags = 0x10 | 0x40;
    strange.xattrs = vec![
        (b"security.capability".to_vec(), vec![1, 0, 0, 2, 0, 32]),
        (b"user.empty".to_vec(), Vec::new()),
        (b"user.large".to_vec(), text(600)),
    ];
    tree.begin_file(b"\xff no UTF-8", &strange, 1)?;
    tree.data(b"with attributes")?;
    tree.end_file(witness(16))?;
    tree.leave()
}

enum Part {
    Data(Vec<u8>),
    Hole(u64),
}

fn file(tree: &mut TreeWriter<'_>, name: &[u8], number: u32, parts: &[Part]) -> Result<()> {
    let links = if number == 3 { 2 } else { 1 };
    tree.begin_file(name, &attributes(number), links)?;
    for part in parts {
        match part {
            Part::Data(bytes) => tree.data(bytes)?,
            Part::Hole(length) => tree.hole(*length)?,
        }
    }
    tree.end_file(witness(u64::from(number)))
}

fn add(tree: &mut TreeWriter<'_>, name: &[u8], number: u32, kind: NodeKind) -> Result<()> {
    let node = TreeNode {
        name: name.to_vec(),
        attributes: attributes(number),
        kind,
    };
    tree.add(node, witness(u64::from(number)))
}

/// A line for each entry: path in hexadecimal, number of its kind, permissions, owner, group,
/// seconds, nanoseconds, flags, extended attributes, and what its kind has; of a file's data, where
/// it is and its BLAKE3.
pub(crate) fn listing(reader: &TreeReader) -> Result<(u64, String)> {
    let (mut count, mut text) = (0, String::new());
    add_lines(reader, reader.root(), &[], &mut count, &mut text)?;
    Ok((count, text))
}

fn add_lines(
    reader: &TreeReader,
    node: &TreeNode,
    path: &[u8],
    count: &mut u64,
    text: &mut String,
) -> Result<()> {
    *count += 1;
    let (kind, rest) = match &node.kind {
        NodeKind::File(file) => (1, data(reader, file)?),
        NodeKind::Directory(_) => (2, String::new()),
        NodeKind::Symlink { target } => (3, hex(target)),
        NodeKind::HardLink { path } => (4, hex(path)),
        NodeKind::Fifo => (5, String::new()),
        NodeKind::Socket => (6, String::new()),
        NodeKind::CharDevice { major, minor } => (7, format!("{major}:{minor}")),
        NodeKind::BlockDevice { major, minor } => (8, format!("{major}:{minor}")),
    };
    let a = &node.attributes;
    let xattrs: Vec<_> = (a.xattrs.iter())
        .map(|(name, value)| format!("{}={}", hex(name), hex(value)))
        .collect();
    let (seconds, nanos, xattrs) = (a.mtime.seconds, a.mtime.nanos, xattrs.join(","));
    let (mode, uid, gid, flags, path_hex) = (a.mode, a.uid, a.gid, a.flags, hex(path));
    writeln!(
        text,
        "{path_hex} {kind} {mode} {uid} {gid} {seconds} {nanos} {flags} {xattrs} {rest}"
    )
    .map_err(|_| Error::corrupt("a line cannot be written"))?;
    if let NodeKind::Directory(directory) = &node.kind {
        for_each(reader, directory, &mut |entry| {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            let path = [path, slash, &entry.name].concat();
            add_lines(reader, entry, &path, count, text)
        })?;
    }
    Ok(())
}

fn for_each(
    reader: &TreeReader,
    directory: &TreeDirectory,
    each: &mut dyn FnMut(&TreeNode) -> Result<()>,
) -> Result<()> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = reader.list(directory, after.as_deref(), 100)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.name.clone());
        page.iter().try_for_each(&mut *each)?;
    }
}

fn data(reader: &TreeReader, file: &TreeFile) -> Result<String> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut offset = 0;
    while let Some((start, length)) = reader.next_data(file, offset)? {
        let mut bytes = vec![0xee; usize::try_from(length).unwrap_or(usize::MAX)];
        reader.read_at(file, start, &mut bytes)?;
        offset = start + length;
        match runs.last_mut() {
            Some((first, last)) if *first + last.len() as u64 == start => last.append(&mut bytes),
            _ => runs.push((start, bytes)),
        }
    }
    let runs: Vec<_> = (runs.iter())
        .map(|(start, bytes)| format!("{start}:{}:{}", bytes.len(), blake3::hash(bytes)))
        .collect();
    Ok(format!("{} {} {}", file.size, file.links, runs.join(",")))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text
}
