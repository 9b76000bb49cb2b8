//! Verification: every pack against its name, every chunk that a snapshot needs against its
//! identity.

use std::collections::HashSet;
use std::sync::PoisonError;

use crate::format::id::{ChunkId, PackId};
use crate::format::pack::Class;
use crate::format::snapshot::Snapshot;
use crate::index::{pack_file, pack_of};
use crate::map;
use crate::repository::Repository;
use crate::storage::read_all;
use crate::{Error, Result, limits};

/// What is wrong, and with what.
#[derive(Debug)]
pub struct Damage {
    /// The pack, index object or snapshot.
    pub object: String,
    /// What was found.
    pub error: Error,
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct Report {
    /// Packs that were read whole.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Snapshots whose chunks were all read.
    pub snapshots: u64,
    /// Chunks that were read and proven.
    pub chunks: u64,
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
}

/// Reads everything: each pack whole against its name, then each snapshot's nodes, chunks and
/// configurations, each once. Index objects that could not be read when the repository was
/// opened are told too, although nothing depends on them.
pub fn verify(repository: &Repository) -> Result<Report> {
    let mut report = Report::default();
    let mut names = Vec::new();
    repository.storage.list(&"packs".parse()?, &mut |name, _| {
        names.extend(pack_of(name).map(|_| name.clone()));
        Ok(())
    })?;
    for name in names {
        let result = read_all(&*repository.storage, &name, limits::PACK_MAX).and_then(|bytes| {
            report.packs += 1;
            report.bytes += bytes.len() as u64;
            let id = PackId(*blake3::hash(&bytes).as_bytes());
            if pack_file(&id) == name {
                Ok(())
            } else {
                Err(Error::corrupt(format!(
                    "{name} does not have the checksum that is its name"
                )))
            }
        });
        if let Err(error) = result {
            report.damage.push(Damage {
                object: name.to_string(),
                error,
            });
        }
    }
    let index = repository.index.read();
    for (name, error) in index.unwrap_or_else(PoisonError::into_inner).problems() {
        // Packs were judged by their bytes.
        if name.as_str().starts_with("index/") {
            report.damage.push(Damage {
                object: name.to_string(),
                error: error.clone(),
            });
        }
    }
    let mut proven = HashSet::new();
    for name in repository.snapshots()? {
        let result = (repository.snapshot(&name))
            .and_then(|snapshot| verify_snapshot(repository, &snapshot, &mut proven));
        match result {
            Ok(()) => report.snapshots += 1,
            Err(error) => report.damage.push(Damage {
                object: name.to_string(),
                error,
            }),
        }
    }
    report.chunks = proven.len() as u64;
    Ok(report)
}

fn verify_snapshot(
    repository: &Repository,
    snapshot: &Snapshot,
    proven: &mut HashSet<ChunkId>,
) -> Result<()> {
    repository.read_blob(&snapshot.guest_config)?;
    if let Some(config) = &snapshot.firewall_config {
        repository.read_blob(config)?;
    }
    for disk in &snapshot.disks {
        let levels = map::levels(disk.size, disk.chunk_size);
        let mut todo: Vec<(u32, ChunkId)> = disk.root.map(|id| (levels, id)).into_iter().collect();
        while let Some((level, id)) = todo.pop() {
            if proven.contains(&id) {
                continue;
            }
            if level == 0 {
                repository.read_chunk(Class::Data, &id)?;
            } else {
                let children = repository.read_node(&id)?;
                todo.extend(children.iter().flatten().map(|child| (level - 1, *child)));
            }
            proven.insert(id);
        }
    }
    Ok(())
}
