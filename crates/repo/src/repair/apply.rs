//! Does what a plan says, each step durable before the next: copies, their index, and only then are
//! damaged files removed. Whoever is stopped in between makes a new plan.

use std::collections::HashSet;
use std::sync::Arc;

use super::RepairPlan;
use super::packs::each_open;
use super::prunings;
use crate::format::envelope::{self, Kind};
use crate::format::index;
use crate::index::{object_of, pack_of, read_pack};
use crate::repository::Repository;
use crate::storage::{FileName, read_all};
use crate::verify::Damage;
use crate::writer::Writer;
use crate::{Error, ErrorKind, Result, limits};

/// What was done.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Chunks and nodes that were copied out of damaged packs.
    pub copied: u64,
    /// Damaged packs that were removed.
    pub packs: u64,
    /// Index objects that were replaced.
    pub index: u64,
    /// Objects with attributes that were removed.
    pub attributes: u64,
    /// Key slots that were removed.
    pub slots: u64,
    /// Generations and markers of prunings that were replaced.
    pub prunings: u64,
    /// What could not be done.
    pub left: Vec<Damage>,
}

/// Repairs what a plan of this repository names.
pub fn apply_repair(repository: &Arc<Repository>, plan: &RepairPlan) -> Result<Repaired> {
    repository.may_write()?;
    let mut done = Repaired::default();
    // First: without them nothing can be written.
    prunings::mend(repository, &plan.prunings, &mut done)?;
    if !plan.packs.is_empty() || !plan.index.is_empty() {
        copy_packs(repository, plan, &mut done)?;
    }
    for damage in &plan.attributes {
        match repository.protect_what_is_left(&damage.archive) {
            Ok(()) => {
                repository.storage.remove(&damage.object)?;
                done.attributes += 1;
            }
            Err(error) => done.left.push(Damage {
                object: damage.object.to_string(),
                error,
            }),
        }
    }
    for damage in &plan.slots {
        let name = damage.object.strip_prefix("keys/").unwrap_or_default();
        match repository.remove_key(name) {
            Ok(()) => done.slots += 1,
            Err(error) => done.left.push(Damage {
                object: damage.object.clone(),
                error,
            }),
        }
    }
    Ok(done)
}

/// Copies what opens of damaged packs, and indexes all that a damaged index object named.
fn copy_packs(repository: &Arc<Repository>, plan: &RepairPlan, done: &mut Repaired) -> Result<()> {
    let writer = Writer::new(Arc::clone(repository))?;
    for pack in &plan.packs {
        repository.write_index().shun(pack.number);
    }
    let mut worker = writer.worker();
    let mut stored = HashSet::new();
    for pack in &plan.packs {
        let mut bytes = read_all(&*repository.storage, &pack.object, limits::PACK_MAX)?;
        let mut copied = 0;
        each_open(repository, &pack.table, &mut bytes, &mut |number, plain| {
            let id = pack.table.entries[number].id;
            copied += 1;
            if stored.insert(id) {
                // Also what lies elsewhere: that copy may be on its way out.
                worker.store_claimed(pack.table.class, id, plain)?;
                done.copied += 1;
            }
            Ok(())
        })?;
        if copied < pack.kept {
            let what = format!(
                "{} holds less than it did when it was looked at",
                pack.object
            );
            return Err(Error::new(ErrorKind::Io, what));
        }
    }
    drop(worker);
    // Durable, and in the index, with all packs that a damaged index object named.
    writer.settle()?;
    for pack in &plan.packs {
        repository.storage.remove(&pack.object)?;
        done.packs += 1;
    }
    for damage in &plan.index {
        put_empty(repository, &damage.object.parse()?)?;
        done.index += 1;
    }
    Ok(())
}

/// Names every pack anew in the index, by its own table, then replaces the index objects that were
/// there before by empty ones; how many.
pub fn rebuild_index(repository: &Arc<Repository>) -> Result<u64> {
    repository.may_write()?;
    let mut old = Vec::new();
    repository.storage.list(&"index".parse()?, &mut |name, _| {
        old.extend(object_of(name).map(|_| name.clone()));
        Ok(())
    })?;
    let mut packs = Vec::new();
    repository
        .storage
        .list(&"packs".parse()?, &mut |name, length| {
            packs.extend(pack_of(name).map(|id| (id, name.clone(), length)));
            Ok(())
        })?;
    let writer = Writer::new(Arc::clone(repository))?;
    for (id, name, length) in packs {
        match read_pack(&*repository.storage, &repository.keys, id, length) {
            Ok(pack) => {
                // Whoever put it may not have come to that.
                repository.storage.settle(&name)?;
                writer.index(pack)?;
            }
            // What has no table that opens is no pack: a verification names it.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    writer.settle()?;
    // What was merged from the old ones goes too, first what makes it count.
    let mut tables = Vec::new();
    repository
        .storage
        .list(&"tables".parse()?, &mut |name, _| {
            tables.push(name.clone());
            Ok(())
        })?;
    tables.sort_by_key(|name| !name.as_str().ends_with("/cover"));
    for name in &tables {
        repository.storage.remove(name)?;
    }
    for name in &old {
        put_empty(repository, name)?;
    }
    Ok(old.len() as u64)
}

/// Puts an index object that names no packs in the place of another, so that its writer's numbers
/// go on without a gap.
pub(crate) fn put_empty(repository: &Repository, name: &FileName) -> Result<()> {
    let (keys, random) = (&repository.keys, &*repository.random);
    let sealed = envelope::seal(keys, random, Kind::Index, name, &index::encode(&[]))?;
    repository.storage.put(name, &sealed)
}

impl Repository {
    /// Takes away a file with a pack's name that a plan calls strange; `keep` is given its bytes,
    /// which it must have made durable when it returns.
    pub fn take_away(
        &self,
        plan: &RepairPlan,
        object: &str,
        keep: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.may_write()?;
        if !plan.strange.iter().any(|damage| damage.object == object) {
            let what = format!("{object} is no file that nobody knows: it is not moved away");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let name: FileName = object.parse()?;
        let length = self.storage.length(&name)?;
        if length > limits::STRANGE_MAX {
            let what = format!("{object} has {length} bytes: move it away by hand");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        keep(&self.storage.read(&name, 0..length)?)?;
        self.storage.remove(&name)
    }
}
