//! What of an archive nobody can read any more: ranges of disks, files.

use std::sync::Arc;

use crate::format::id::ChunkId;
use crate::format::snapshot::{BlobRef, DiskRecord, Snapshot};
use crate::repository::Repository;
use crate::tree::{NodeKind, TreeDirectory, TreeReader, TreeRecord};
use crate::verify::is_unread;
use crate::{Result, limits, map};

/// Entries of a directory that are read at once.
const PAGE: usize = 1024;

/// A part of an archive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lost {
    /// The record itself: all of it.
    Record,
    /// Bytes of a disk.
    Range {
        /// The device name.
        device: String,
        /// Where they begin.
        offset: u64,
        /// How many they are.
        length: u64,
    },
    /// Some content of the file with this path.
    File(Vec<u8>),
    /// What is in the directory with this path, or a part of it.
    Directory(Vec<u8>),
    /// The guest's configuration.
    GuestConfig,
    /// The firewall's.
    FirewallConfig,
}

/// What is found, up to a limit.
struct Found(Vec<Lost>, u64);

impl Found {
    fn add(&mut self, lost: Lost) {
        if let (
            Some(Lost::Range {
                device,
                offset,
                length,
            }),
            Lost::Range {
                device: next,
                offset: from,
                length: more,
            },
        ) = (self.0.last_mut(), &lost)
            && device == next
            && *offset + *length == *from
        {
            *length += more;
            return;
        }
        if self.0.len() < limits::LOST_MAX {
            self.0.push(lost);
        } else {
            self.1 += 1;
        }
    }
}

/// The parts of an archive that are lost, at most [`LOST_MAX`](limits::LOST_MAX), and how many more
/// there are. An error of the storage says nothing of them, and fails.
pub(super) fn lost_in(
    repository: &Arc<Repository>,
    snapshot: &Snapshot,
) -> Result<(Vec<Lost>, u64)> {
    let mut found = Found(Vec::new(), 0);
    let blobs = [
        (Some(&snapshot.guest_config), Lost::GuestConfig),
        (snapshot.firewall_config.as_ref(), Lost::FirewallConfig),
    ];
    for (blob, lost) in blobs {
        let blob: Option<&BlobRef> = blob;
        if let Some(id) = blob.and_then(|blob| blob.chunk)
            && !is_there(repository, &id)?
        {
            found.add(lost);
        }
    }
    for disk in &snapshot.disks {
        of_disk(repository, disk, &mut found)?;
    }
    if let Some(record) = &snapshot.tree {
        of_tree(repository, record, &mut found)?;
    }
    Ok((found.0, found.1))
}

/// Whether a copy of a chunk is left that opens: of others the index says nothing.
fn is_there(repository: &Repository, id: &ChunkId) -> Result<bool> {
    readable(repository.find(id)).map(|found| found.is_some())
}

/// What was read; nothing if it is damaged.
fn readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_unread(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

fn of_disk(repository: &Repository, disk: &DiskRecord, found: &mut Found) -> Result<()> {
    let levels = map::levels(disk.size, disk.chunk_size);
    let chunk_size = u64::from(disk.chunk_size);
    // A node, or a chunk at level 0, and its number among those of its level.
    let mut todo: Vec<_> = (disk.root.map(|id| (levels, 0u64, id)).into_iter()).collect();
    while let Some((level, number, id)) = todo.pop() {
        let children = if level > 0 {
            readable(repository.read_node(&id))?
        } else {
            is_there(repository, &id)?.then_some([None; map::MAP_FAN_OUT])
        };
        let Some(children) = children else {
            let span = map::span(level).saturating_mul(chunk_size);
            let offset = number.saturating_mul(span).min(disk.size);
            found.add(Lost::Range {
                device: disk.device.clone(),
                offset,
                length: span.min(disk.size - offset),
            });
            continue;
        };
        for (child, id) in children.into_iter().enumerate().rev() {
            if let Some(id) = id {
                let number = number * map::MAP_FAN_OUT as u64 + child as u64;
                todo.push((level - 1, number, id));
            }
        }
    }
    Ok(())
}

fn of_tree(repository: &Arc<Repository>, record: &TreeRecord, found: &mut Found) -> Result<()> {
    let opened = TreeReader::open(Arc::clone(repository), record);
    let Some(reader) = readable(opened)? else {
        found.add(Lost::Directory(Vec::new()));
        return Ok(());
    };
    let NodeKind::Directory(root) = reader.root().kind.clone() else {
        found.add(Lost::Directory(Vec::new()));
        return Ok(());
    };
    let mut todo = vec![(Vec::new(), root)];
    while let Some((path, directory)) = todo.pop() {
        of_directory(&reader, &path, &directory, &mut todo, found)?;
    }
    Ok(())
}

fn of_directory(
    reader: &TreeReader,
    path: &[u8],
    directory: &TreeDirectory,
    todo: &mut Vec<(Vec<u8>, TreeDirectory)>,
    found: &mut Found,
) -> Result<()> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = reader.list(directory, after.as_deref(), PAGE);
        let Some(page) = readable(page)? else {
            found.add(Lost::Directory(path.to_owned()));
            return Ok(());
        };
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.name.clone());
        for node in page {
            let below = [path, b"/", &node.name].concat();
            match node.kind {
                NodeKind::Directory(directory) => todo.push((below, directory)),
                NodeKind::File(file) => {
                    if readable(reader.is_present(&file))? != Some(true) {
                        found.add(Lost::File(below));
                    }
                }
                NodeKind::Symlink { .. }
                | NodeKind::HardLink { .. }
                | NodeKind::Fifo
                | NodeKind::Socket
                | NodeKind::CharDevice { .. }
                | NodeKind::BlockDevice { .. } => {}
            }
        }
    }
}
