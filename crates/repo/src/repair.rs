//! Repair: what a verification found damaged is told with all that it affects and, if that is
//! wanted, what still opens is written anew before what is damaged is removed.
//!
//! Nothing is changed in place, and nothing is cut out of an archive: one that has lost something is
//! listed as damaged until a backup brings it.

mod apply;
mod config;
mod lost;
mod packs;
mod prunings;

use std::collections::HashSet;
use std::sync::Arc;

use crate::format::attributes::{Body, parse};
use crate::format::bytes::unhex;
use crate::format::envelope::{self, Kind};
use crate::format::snapshot::SnapshotName;
use crate::index::{object_of, pack_of};
use crate::repository::Repository;
use crate::storage::{FileName, read_all};
use crate::verify::{Damage, Depth, Follow, twice, verify_with};
use crate::{ErrorKind, Result, limits};

pub(crate) use apply::put_empty;
pub use apply::{Repaired, apply_repair, rebuild_index};
pub use config::recover_config;
pub use lost::Lost;
pub use packs::PackDamage;

/// What is damaged, and what can be done.
#[derive(Debug, Default)]
pub struct RepairPlan {
    /// Packs whose contents are known: what opens is copied, then the file is removed.
    pub packs: Vec<PackDamage>,
    /// Files with a pack's name of which nobody can tell what was in them, or that are none of this
    /// repository's. They stay; on demand they are moved away.
    pub strange: Vec<Damage>,
    /// Index objects, in whose places others are put once the packs are indexed anew.
    pub index: Vec<Damage>,
    /// Objects with attributes that are removed; the archive is protected instead, for it may have
    /// been.
    pub attributes: Vec<AttributeDamage>,
    /// Key slots that are removed.
    pub slots: Vec<Damage>,
    /// Generations and markers of prunings, in whose places others are put.
    pub prunings: Vec<Damage>,
    /// What only a backup heals, or nobody: heads, snapshots, packs that are not there, what is
    /// derived.
    pub others: Vec<Damage>,
    /// What the storage failed to read, so that nothing can be said of it.
    pub unread: Vec<Damage>,
    /// Archives that are affected, and what they have lost.
    pub archives: Vec<ArchiveDamage>,
}

/// A damaged object with attributes.
#[derive(Debug)]
pub struct AttributeDamage {
    /// The archive that it is about.
    pub archive: SnapshotName,
    /// The file.
    pub object: FileName,
    /// What was found.
    pub error: crate::Error,
}

/// An archive that is affected.
#[derive(Debug)]
pub struct ArchiveDamage {
    /// Its name.
    pub archive: SnapshotName,
    /// What the verification found first.
    pub error: crate::Error,
    /// What nobody can read any more, at most [`LOST_MAX`](limits::LOST_MAX) parts; nothing if all
    /// of it can be copied.
    pub lost: Vec<Lost>,
    /// How many more parts.
    pub more: u64,
}

impl RepairPlan {
    /// Whether nothing at all is wrong.
    pub fn is_empty(&self) -> bool {
        self.damage_count() == 0 && self.unread.is_empty()
    }

    /// Damaged objects.
    pub fn damage_count(&self) -> usize {
        self.packs.len()
            + self.strange.len()
            + self.index.len()
            + self.attributes.len()
            + self.slots.len()
            + self.prunings.len()
            + self.others.len()
            + self.archives.len()
    }

    /// Archives that have lost something.
    pub fn lossy(&self) -> usize {
        let lossy = |archive: &&ArchiveDamage| !archive.lost.is_empty();
        self.archives.iter().filter(lossy).count()
    }
}

/// Verifies everything, and tells what can be done about what is damaged. Nothing is written. From
/// here on this repository takes chunks that do not open for absent.
pub fn plan_repair(repository: &Arc<Repository>, follow: &dyn Follow) -> Result<RepairPlan> {
    let report = verify_with(repository, Depth::Everything, None, follow)?;
    let mut plan = RepairPlan {
        unread: report.unread,
        ..RepairPlan::default()
    };
    let damaged: HashSet<_> = (report.archives.iter())
        .filter(|(_, found)| found.is_err())
        .map(|(name, _)| name.as_str().to_owned())
        .collect();
    let mut packs = Vec::new();
    for damage in report.damage {
        let file = damage.object.parse::<FileName>();
        match &file {
            _ if damaged.contains(&damage.object) => {}
            // Nothing is left of it to be copied.
            Ok(file) if pack_of(file).is_some() && damage.error.kind() == ErrorKind::NotFound => {
                plan.others.push(damage);
            }
            Ok(file) if pack_of(file).is_some() => packs.push((file.clone(), damage)),
            Ok(file) if object_of(file).is_some() => plan.index.push(damage),
            Ok(file) if is_slot(file) && damage.error.kind() == ErrorKind::Corrupt => {
                plan.slots.push(damage);
            }
            Ok(file) if file.as_str().starts_with("prune/") => plan.prunings.push(damage),
            Ok(file) => match file.as_str().strip_prefix("attributes/") {
                Some(archive) => attributes(repository, archive, damage, &mut plan)?,
                None => plan.others.push(damage),
            },
            Err(_) => plan.others.push(damage),
        }
    }
    packs::examine(repository, packs, &mut plan)?;
    for (archive, found) in report.archives {
        let Err(error) = found else { continue };
        let (lost, more) = match repository.listed_snapshot(&archive) {
            Ok(snapshot) => lost::lost_in(repository, &snapshot)?,
            Err(_) => (vec![Lost::Record], 0),
        };
        plan.archives.push(ArchiveDamage {
            archive,
            error,
            lost,
            more,
        });
    }
    Ok(plan)
}

fn is_slot(file: &FileName) -> bool {
    let name = file.as_str().strip_prefix("keys/");
    name.is_some_and(|name| unhex::<8>(name).is_some())
}

/// Which of an archive's objects with attributes are damaged. One with a name that none has is not
/// ours to remove.
fn attributes(
    repository: &Repository,
    archive: &str,
    damage: Damage,
    plan: &mut RepairPlan,
) -> Result<()> {
    let folder: FileName = format!("attributes/{archive}").parse()?;
    let mut objects = Vec::new();
    repository.storage.list(&folder, &mut |file, _| {
        if let Some((archive, Some(_))) = parse(file) {
            objects.push((archive, file.clone()));
        }
        Ok(())
    })?;
    let before = plan.attributes.len();
    for (archive, object) in objects {
        let read = twice(|| {
            let sealed = read_all(&*repository.storage, &object, limits::ATTRIBUTE_MAX)?;
            let body = envelope::open(&repository.keys, Kind::Attributes, &object, &sealed)?;
            Body::decode(&object, &body).map(drop)
        });
        match read {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                plan.attributes.push(AttributeDamage {
                    archive,
                    object,
                    error,
                });
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if plan.attributes.len() == before {
        plan.others.push(damage);
    }
    Ok(())
}
