//! File trees for the kit, their backup, and the comparison of two trees.

use super::Check;
use super::drive::{START, name, text};
use crate::memory::tree::{MemorySource, MemoryTree};
use crate::tree::{DeviceNumber, EntryKind, Name, TreeNode, TreePath, TreeReader, TreeSource};
use crate::{
    ArchiveName, BackupJob, BackupStats, ContainerBackup, ContainerSource, Error, ErrorKind,
    GuestId, IdMap, Outcome, Provider, Region, Result,
};

/// The configuration of containers whose configuration does not matter.
const CONFIG: &[u8] = b"arch: amd64\n";
/// Folders are listed so many entries at a time, of which no folder of the kit has a multiple.
const PAGE: usize = 37;
/// Files are compared so many bytes at a time; not a power of two on purpose.
const READ_SIZE: u64 = 100_000;

/// What a container's backup left behind: the name its archive would have, and how its run ended.
pub(super) struct Finished {
    pub(super) name: ArchiveName,
    pub(super) ran: Result<BackupStats>,
}

impl Finished {
    /// The archive's name and the statistics, if the run succeeded.
    pub(super) fn archive(self) -> std::result::Result<(ArchiveName, BackupStats), String> {
        let failed = |error: Error| format!("the backup failed: {}", error.chain());
        self.ran.map(|stats| (self.name, stats)).map_err(failed)
    }
}

/// Starts the backup of a container.
pub(super) fn start(
    job: &mut dyn BackupJob,
    guest: &str,
) -> std::result::Result<Box<dyn ContainerBackup>, String> {
    let guest: GuestId = name(guest).map_err(|e| text(&e))?;
    job.start_container(&guest, START).map_err(|e| text(&e))
}

/// Hands a tree over whose owners are of this user namespace.
pub(super) fn run_mapped(
    backup: &mut dyn ContainerBackup,
    tree: &mut dyn TreeSource,
    id_map: &IdMap,
) -> Result<BackupStats> {
    backup.run(ContainerSource {
        id_map: Some(id_map),
        ..container(tree)
    })
}

/// Hands a tree over.
pub(super) fn run(
    backup: &mut dyn ContainerBackup,
    tree: &mut dyn TreeSource,
) -> Result<BackupStats> {
    backup.run(container(tree))
}

/// Hands a tree over that is not the archive's yet.
pub(super) fn read_ahead(
    backup: &mut dyn ContainerBackup,
    tree: &mut dyn TreeSource,
) -> Result<()> {
    backup.read_ahead(container(tree))
}

fn container(tree: &mut dyn TreeSource) -> ContainerSource<'_> {
    ContainerSource {
        guest_config: CONFIG,
        firewall_config: None,
        bandwidth_limit: None,
        id_map: None,
        tree,
    }
}

/// A whole backup of what this source tells.
pub(super) fn back_up(
    provider: &dyn Provider,
    guest: &str,
    source: &mut dyn TreeSource,
) -> std::result::Result<Finished, String> {
    let mut job = provider.start_job(START).map_err(|e| text(&e))?;
    let mut backup = start(&mut *job, guest)?;
    let name = backup.archive_name().clone();
    let ran = run(&mut *backup, source);
    let outcome = match &ran {
        Ok(_) => Outcome::Success,
        Err(error) => Outcome::Failure(error.chain()),
    };
    backup.finish(&outcome).map_err(|e| text(&e))?;
    job.finish(&outcome).map_err(|e| text(&e))?;
    Ok(Finished { name, ran })
}

/// Backs a tree up, and checks that the archive has what it should: its name, and what the walk saw.
pub(super) fn kept(
    provider: &dyn Provider,
    guest: &str,
    tree: &MemoryTree,
) -> std::result::Result<(ArchiveName, MemorySource), String> {
    let mut source = tree.source();
    let (archive, stats) = back_up(provider, guest, &mut source)?.archive()?;
    if !stats.uncounted && stats.read != source.bytes_read() {
        return Err(format!(
            "{} bytes were read, but counted as {}",
            source.bytes_read(),
            stats.read
        ));
    }
    expect_tree(provider, &archive, &tree.archived())?;
    Ok((archive, source))
}

/// Restores an archive and compares it with this tree.
pub(super) fn expect_tree(
    provider: &dyn Provider,
    archive: &ArchiveName,
    tree: &MemoryTree,
) -> Check {
    with_tree(
        provider,
        archive,
        &|reader| match tree_difference(tree, reader).map_err(|e| text(&e))? {
            None => Ok(()),
            Some(difference) => Err(format!("archive {archive}: {difference}")),
        },
    )
}

/// Opens an archive's tree.
pub(super) fn with_tree(
    provider: &dyn Provider,
    archive: &ArchiveName,
    check: &dyn Fn(&dyn TreeReader) -> Check,
) -> Check {
    let opened = provider.open_archive(archive).map_err(|e| text(&e))?;
    let mut restore = opened.restore_container().map_err(|e| text(&e))?;
    let reader = restore.open_tree().map_err(|e| text(&e))?;
    check(&*reader)?;
    restore.finish().map_err(|e| text(&e))
}

/// The first difference between two trees, for people: an entry that only one has, anything about
/// an entry, a byte of a file.
pub fn tree_difference(
    expected: &dyn TreeReader,
    found: &dyn TreeReader,
) -> Result<Option<String>> {
    let roots = (expected.root()?, found.root()?);
    let mut open = vec![(TreePath::root(), roots)];
    while let Some((path, (one, other))) = open.pop() {
        if one.entry != other.entry {
            let (one, other) = (one.entry, other.entry);
            return Ok(Some(format!("{path} is {other:?}, not {one:?}")));
        }
        if let EntryKind::File { size, .. } = one.entry.kind
            && let Some(offset) = content((expected, &one), (found, &other), size)?
        {
            return Ok(Some(format!("{path} differs at or after offset {offset}")));
        }
        if !one.entry.kind.is_directory() {
            continue;
        }
        let (ones, others) = (children(expected, &one)?, children(found, &other)?);
        let names = |list: &[(Name, TreeNode)]| -> Vec<_> {
            list.iter().map(|(name, _)| name.clone()).collect()
        };
        let (names, found) = (names(&ones), names(&others));
        if names != found {
            let lacks = names.iter().find(|name| !found.contains(name));
            let extra = found.iter().find(|name| !names.contains(name));
            return Ok(Some(format!(
                "{path} has {} entries, not {}: it lacks {lacks:?} and has {extra:?}",
                found.len(),
                names.len()
            )));
        }
        let pairs = ones.into_iter().zip(others);
        open.extend(pairs.map(|((name, one), (_, other))| (path.join(&name), (one, other))));
    }
    let (one, other) = (expected.totals(), found.totals());
    Ok((one != other).then(|| format!("it has {other:?}, not {one:?}")))
}

/// All entries of a folder.
pub(super) fn children(
    reader: &dyn TreeReader,
    folder: &TreeNode,
) -> Result<Vec<(Name, TreeNode)>> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map(|(name, _): &(Name, _)| name);
        let page = reader.list(folder, after, PAGE)?;
        if page.is_empty() {
            return Ok(all);
        }
        let names = after.into_iter().chain(page.iter().map(|(name, _)| name));
        if page.len() > PAGE || !names.is_sorted_by(|a, b| a < b) {
            let what = "a page of a folder is not what was asked for";
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        all.extend(page);
    }
}

/// Where two files of this size may differ. What one of them has as data is read from both; what
/// is a hole in both is not read.
fn content(
    (expected, one): (&dyn TreeReader, &TreeNode),
    (found, other): (&dyn TreeReader, &TreeNode),
    size: u64,
) -> Result<Option<u64>> {
    let mut offset = 0;
    while offset < size {
        let data = (
            expected.next_data(one, offset)?,
            found.next_data(other, offset)?,
        );
        for region in [data.0, data.1].into_iter().flatten() {
            if region.offset() < offset || region.end() > size {
                return Ok(Some(offset));
            }
        }
        let Some(start) = ([data.0, data.1].into_iter().flatten())
            .map(Region::offset)
            .min()
        else {
            break;
        };
        let length = (size - start).min(READ_SIZE);
        let mut bytes = [0xEE, 0xDD].map(|byte| vec![byte; usize::try_from(length).unwrap_or(0)]);
        expected.read_at(one, start, &mut bytes[0])?;
        found.read_at(other, start, &mut bytes[1])?;
        if bytes[0] != bytes[1] || !zero_between_data((found, other), start, &bytes[1])? {
            return Ok(Some(start));
        }
        offset = start + length;
    }
    Ok(None)
}

/// Whether these bytes of a file are zero wherever its reader tells no data.
fn zero_between_data(
    (reader, file): (&dyn TreeReader, &TreeNode),
    start: u64,
    bytes: &[u8],
) -> Result<bool> {
    let end = start + bytes.len() as u64;
    let zero = |from: u64, to: u64| {
        let at = |offset| usize::try_from(offset - start).unwrap_or(usize::MAX);
        let between = bytes.get(at(from)..at(to));
        between.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    };
    let mut offset = start;
    while offset < end {
        let data = reader.next_data(file, offset)?;
        let (from, to) = data.map_or((end, end), |data| (data.offset(), data.end()));
        if !zero(offset, from.min(end)) {
            return Ok(false);
        }
        offset = to;
    }
    Ok(true)
}

/// Bytes that look random.
pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A small container with something of everything.
pub(super) fn sample() -> MemoryTree {
    let mut tree = MemoryTree::new();
    let etc = tree.directory("etc");
    etc.entry.attributes.permissions = 0o1777;
    (etc.entry.attributes.uid, etc.entry.attributes.gid) = (100_000, u32::MAX);
    etc.xattr("system.posix_acl_default", b"\x02\0\0\0\x01\0\x07\0");
    tree.file("etc/hostname", b"web\n");
    tree.file("etc/shadow", &noise(5000, 1))
        .entry
        .attributes
        .permissions = 0o640;
    let sudo = tree.file("usr/bin/sudo", &noise(700_000, 2));
    sudo.entry.attributes.permissions = 0o4755;
    sudo.entry.attributes.flags = 0x10;
    sudo.xattr("security.capability", b"\x01\0\0\x02\0\x04\0\0");
    sudo.xattr("user.empty", b"");
    tree.file("usr/bin/empty", b"");
    tree.symlink("usr/bin/vi", b"/etc/alternatives/\xffvi");
    tree.put("run/pipe", EntryKind::Fifo);
    tree.put("run/socket", EntryKind::Socket);
    tree.char_device("dev/null", 1, 3).entry.attributes.uid = 7;
    let number = DeviceNumber {
        major: u32::MAX,
        minor: 0,
    };
    tree.put("dev/sda", EntryKind::BlockDevice(number));
    tree.char_device("var/whiteout", 0, 0);
    tree.directory("var/empty");
    tree
}
