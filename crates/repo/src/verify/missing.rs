//! Packs that are not there although archives need what was in them: index objects still tell what
//! that was. A pack that nobody needs is missed by nobody: it was pruned.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Damage, Report, is_unread, twice};
use crate::format::id::{ChunkId, PackId};
use crate::format::pack::Class;
use crate::format::snapshot::{Snapshot, SnapshotName};
use crate::format::tree::entry::{self, DirectoryNode, Items};
use crate::format::tree::extent;
use crate::index::{Location, object_of, pack_file, pack_of, read_object};
use crate::marks::Marks;
use crate::reader::decode_node;
use crate::repository::Repository;
use crate::tree::{Content, NodeKind, Place};
use crate::{Error, ErrorKind, Result, limits, map};

/// Archives that are named with a pack; of more only the number is told.
const NAMED: usize = 16;

/// Tells the packs that are not there, each with those of these damaged archives that need it.
pub(super) fn tell_missing(
    repository: &Repository,
    damaged: &[SnapshotName],
    report: &mut Report,
) -> Result<()> {
    let mut absent = HashMap::<ChunkId, Vec<usize>>::new();
    let (mut whole, mut left) = (Marks::default(), limits::ABSENT_MAX);
    for (number, name) in damaged.iter().enumerate() {
        if left == 0 {
            break;
        }
        let Some(snapshot) = readable(repository.listed_snapshot(name))? else {
            continue;
        };
        for id in absent_of(repository, &snapshot, &mut whole, left)? {
            left -= 1;
            absent.entry(id).or_default().push(number);
        }
    }
    if absent.is_empty() {
        return Ok(());
    }
    for (pack, needing) in packs_of(repository, &absent)? {
        let names: Vec<&str> = (needing.iter().take(NAMED))
            .map(|number| damaged[*number].as_str())
            .collect();
        let more = match needing.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = format!(
            "it is not there, and nothing else has all that was in it; archives that need it: \
             {}{more}",
            names.join(", ")
        );
        report.damage.push(Damage {
            object: pack_file(&pack).to_string(),
            error: Error::new(ErrorKind::NotFound, what),
        });
    }
    Ok(())
}

/// The packs that are not there of which index objects say that they had these chunks, and who
/// needs those.
fn packs_of(
    repository: &Repository,
    absent: &HashMap<ChunkId, Vec<usize>>,
) -> Result<BTreeMap<PackId, BTreeSet<usize>>> {
    let mut objects = Vec::new();
    repository.storage.list(&"index".parse()?, &mut |name, _| {
        objects.extend(object_of(name).map(|_| name.clone()));
        Ok(())
    })?;
    let mut there = HashSet::new();
    repository.storage.list(&"packs".parse()?, &mut |name, _| {
        there.extend(pack_of(name));
        Ok(())
    })?;
    let mut missing = BTreeMap::<PackId, BTreeSet<usize>>::new();
    for object in objects {
        let read = twice(|| read_object(&*repository.storage, &repository.keys, &object));
        let packs = readable(read)?.unwrap_or_default();
        for pack in packs.into_iter().filter(|pack| !there.contains(&pack.id)) {
            let mut needing = (pack.entries.iter())
                .filter_map(|entry| absent.get(&entry.id))
                .flatten()
                .copied()
                .peekable();
            if needing.peek().is_some() {
                missing.entry(pack.id).or_default().extend(needing);
            }
        }
    }
    Ok(missing)
}

/// What was read; nothing if it is damaged or gone.
fn readable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_unread(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A node whose children are still to be looked for.
enum Todo {
    /// So many levels above the chunks.
    Map(ChunkId, u32),
    /// Whether it is the root.
    Directory(ChunkId, bool),
    Inline(Arc<[u8]>),
    Extents(ChunkId),
    Chunk(ChunkId),
    /// What is below a node was looked at; so much was found to be wrong before.
    Left(Location, usize),
}

/// The chunks and nodes of a snapshot that are in no pack, as far as the nodes above them can be read,
/// and at most so many. Nodes below which all is there are `whole`: they are not looked at again, in
/// this archive or in another one.
fn absent_of(
    repository: &Repository,
    snapshot: &Snapshot,
    whole: &mut Marks,
    most: usize,
) -> Result<Vec<ChunkId>> {
    let configs = [
        Some(&snapshot.guest_config),
        snapshot.firewall_config.as_ref(),
    ];
    let configs = configs.into_iter().flatten();
    let mut todo: Vec<Todo> = (configs.filter_map(|config| config.chunk))
        .map(Todo::Chunk)
        .collect();
    for disk in &snapshot.disks {
        let levels = map::levels(disk.size, disk.chunk_size);
        todo.extend(disk.root.map(|id| Todo::Map(id, levels)));
    }
    todo.extend((snapshot.tree.iter()).map(|tree| Todo::Directory(tree.root, true)));
    let (mut seen, mut absent) = (Marks::default(), Vec::new());
    // What is absent or cannot be read, each time that it is come upon.
    let mut wrong = 0;
    while let Some(next) = todo.pop() {
        let id = match &next {
            Todo::Left(place, before) => {
                if wrong == *before {
                    whole.insert(place);
                }
                continue;
            }
            Todo::Inline(body) => {
                if let Ok(node) = entry::decode(body, false) {
                    push(node, &mut todo);
                }
                continue;
            }
            Todo::Map(id, _) | Todo::Directory(id, _) | Todo::Extents(id) | Todo::Chunk(id) => *id,
        };
        let Some(place) = readable(repository.find(&id))? else {
            absent.push(id);
            if absent.len() >= most {
                break;
            }
            wrong += 1;
            continue;
        };
        let is_leaf = matches!(next, Todo::Chunk(_) | Todo::Map(_, 0));
        if is_leaf || whole.contains(&place) {
            continue;
        }
        if seen.contains(&place) {
            wrong += 1;
            continue;
        }
        seen.insert(&place);
        let Some(body) = readable(repository.read_chunk_twice(Class::Metadata, &id))? else {
            wrong += 1;
            continue;
        };
        todo.push(Todo::Left(place, wrong));
        match next {
            Todo::Map(id, level) => {
                let children = decode_node(&id, &body).into_iter().flatten().flatten();
                todo.extend(children.map(|child| Todo::Map(child, level - 1)));
            }
            Todo::Directory(_, is_root) => {
                if let Ok(node) = entry::decode(&body, is_root) {
                    push(node, &mut todo);
                }
            }
            Todo::Extents(_) => match extent::decode(&body).map(|node| node.items) {
                Ok(extent::Items::Extents(extents)) => {
                    todo.extend(extents.iter().map(|extent| Todo::Chunk(extent.chunk)));
                }
                Ok(extent::Items::Children(children)) => {
                    todo.extend(children.into_iter().map(|(_, id)| Todo::Extents(id)));
                }
                Err(_) => {}
            },
            Todo::Inline(_) | Todo::Chunk(_) | Todo::Left(..) => {}
        }
    }
    Ok(absent)
}

/// Takes up what is below a directory's node.
fn push(node: DirectoryNode, todo: &mut Vec<Todo>) {
    match node.items {
        Items::Children(children) => {
            let below = children.into_iter();
            todo.extend(below.map(|(_, id)| Todo::Directory(id, false)));
        }
        Items::Entries(entries) => {
            for entry in entries {
                match entry.kind {
                    NodeKind::Directory(directory) => match directory.place {
                        Place::Nowhere => {}
                        Place::Inline(body) => todo.push(Todo::Inline(body)),
                        Place::Node(id) => todo.push(Todo::Directory(id, false)),
                    },
                    NodeKind::File(file) => match file.content {
                        Content::Extents(extents) => {
                            todo.extend(extents.iter().map(|extent| Todo::Chunk(extent.chunk)));
                        }
                        Content::Node(id) => todo.push(Todo::Extents(id)),
                    },
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
}
