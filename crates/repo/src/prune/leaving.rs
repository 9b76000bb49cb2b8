//! What is about to go: for whoever keeps the rest from being removed.

use std::collections::HashSet;

use crate::Result;
use crate::format::snapshot::SnapshotName;
use crate::index::pack_file;
use crate::repository::Repository;
use crate::storage::FileName;

/// The files that a later pruning will delete, as far as that is known now: condemned packs, and the
/// records and attributes of forgotten archives. All others stay.
pub fn leaving(repository: &Repository) -> Result<HashSet<FileName>> {
    repository.refresh_condemned()?;
    let forgotten = repository.forgotten_of(None)?;
    let mut files: HashSet<FileName> = forgotten.iter().map(SnapshotName::file).collect();
    for (name, objects) in repository.attribute_files(None)? {
        if forgotten.contains(&name) {
            files.extend(objects.into_iter().map(|(file, _)| file));
        }
    }
    let index = repository.index();
    let condemned = index.packs().iter().filter(|pack| pack.condemned.is_some());
    files.extend(condemned.map(|pack| pack_file(&pack.id)));
    Ok(files)
}
