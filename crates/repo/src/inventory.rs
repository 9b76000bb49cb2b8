//! What a repository holds, in numbers: files by what the storage lists, chunks by the index, and what
//! of them nothing needs by a walk through the archives. No data is read.

use crate::format::pack::Class;
use crate::format::snapshot::SnapshotName;
use crate::index::stands;
use crate::prune::needs::Needs;
use crate::repository::Repository;
use crate::verify::is_unread;
use crate::{ErrorKind, Result};

/// Folders of files that are no packs.
const BESIDE: [&str; 8] = [
    "attributes",
    "features",
    "heads",
    "index",
    "keys",
    "prune",
    "snapshots",
    "tables",
];

/// A number of chunks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Chunks {
    /// How many.
    pub number: u64,
    /// Their bytes, before compression.
    pub plain: u64,
    /// Their bytes in packs.
    pub stored: u64,
}

/// What a repository holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Inventory {
    /// Files with a pack's name.
    pub packs: u64,
    /// Their bytes.
    pub packs_bytes: u64,
    /// Bytes of all other files.
    pub beside_bytes: u64,
    /// What guests hold, each chunk once.
    pub data: Chunks,
    /// Maps, trees and the like, each node once.
    pub nodes: Chunks,
    /// Bytes in packs of chunks and nodes, or of further copies of them, that no archive needs of
    /// those that were named; none if an archive could not be walked.
    pub unused: Option<u64>,
}

/// Counts, with what these archives need.
pub fn take_inventory(repository: &Repository, archives: &[SnapshotName]) -> Result<Inventory> {
    let mut found = Inventory::default();
    let storage = &repository.storage;
    storage.list(&"packs".parse()?, &mut |_, length| {
        found.packs += 1;
        found.packs_bytes += length;
        Ok(())
    })?;
    for folder in BESIDE {
        storage.list(&folder.parse()?, &mut |_, length| {
            found.beside_bytes += length;
            Ok(())
        })?;
    }
    found.beside_bytes += storage.length(&"config".parse()?)?;
    let needs = needed(repository, archives)?;
    let mut unused = 0;
    let index = repository.index();
    index.each(&mut |_, places| {
        let Some(place) = stands(places) else {
            return Ok(());
        };
        let class = index.pack(place.pack).map(|pack| pack.class);
        let chunks = match class {
            Some(Class::Data) => &mut found.data,
            Some(Class::Metadata) => &mut found.nodes,
            None => return Ok(()),
        };
        chunks.number += 1;
        chunks.plain += u64::from(place.plain);
        chunks.stored += u64::from(place.stored);
        let all: u64 = places.iter().map(|place| u64::from(place.stored)).sum();
        let is_needed = needs.as_ref().is_some_and(|n| n.marks.contains(&place));
        unused += all - u64::from(if is_needed { place.stored } else { 0 });
        Ok(())
    })?;
    found.unused = needs.map(|_| unused);
    Ok(found)
}

/// What archives need, with the logs of their backups; nothing if one is damaged.
fn needed<'r>(repository: &'r Repository, archives: &[SnapshotName]) -> Result<Option<Needs<'r>>> {
    let mut needs = Needs::of_all(repository);
    for name in archives {
        let walked = (repository.listed_snapshot(name))
            .and_then(|snapshot| needs.snapshot(&snapshot))
            .and_then(|()| repository.attributes(name));
        match walked {
            Ok(attributes) => {
                for id in attributes.task_log.iter().flat_map(|log| &log.chunks) {
                    // A log that is lost needs nothing.
                    match needs.mark(id) {
                        Err(error) if is_unread(&error) => return Err(error),
                        _ => {}
                    }
                }
            }
            // It was pruned since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if is_unread(&error) => return Err(error),
            Err(_) => return Ok(None),
        }
    }
    // Else the marks are of places that are others by now.
    Ok(needs.check_index().is_ok().then_some(needs))
}
