//! Verification: every pack against its name and by its table, every chunk that a snapshot needs
//! against its identity; or less of that.

mod again;
mod kept;
mod keyless;
mod missing;
mod packs;
mod proof;
mod tree;

use std::sync::PoisonError;

use crate::format::snapshot::SnapshotName;
use crate::index::{object_of, read_object};
use crate::marks::Marks;
use crate::repository::Repository;
use crate::storage::FileName;
use crate::{Error, ErrorKind, Result};

pub(crate) use again::twice;
pub use kept::{is_verified_since, keep_verification};
pub use keyless::{KeylessReport, verify_without_key};
use packs::verify_packs;
use proof::Proof;

/// How much of the data a verification reads. Snapshots, maps and trees are always read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// All of it.
    Everything,
    /// None: that chunks lie in packs that are there, with their full lengths, is enough.
    Metadata,
    /// Some packs and chunks, the same ones for the same seed.
    Sample {
        /// Parts of 1000.
        share: u16,
        /// What chooses.
        seed: u64,
    },
}

impl Depth {
    /// Whether the pack or chunk of this identity is read.
    fn reads(self, id: &[u8; 32]) -> bool {
        match self {
            Self::Everything => true,
            Self::Metadata => false,
            Self::Sample { share, seed } => {
                let mut hasher = blake3::Hasher::new_derive_key("snapkeep 1 sample");
                hasher.update(&seed.to_le_bytes()).update(id);
                let [low, high, ..] = *hasher.finalize().as_bytes();
                // 65,536 parts: a thousandth is 65 or 66 of them.
                u32::from(u16::from_le_bytes([low, high])) * 1000 < u32::from(share) << 16
            }
        }
    }
}

/// Who follows a verification, remembers what it proved, and knows what an earlier one did that was
/// interrupted. Called by several threads.
pub trait Follow: Sync {
    /// So many packs of so many bytes will be read whole.
    fn begun(&self, _packs: u64, _bytes: u64) {}
    /// Whether this pack or archive was proven already, and is not to be read again.
    fn was_proven(&self, _object: &str) -> bool {
        false
    }
    /// This pack was proven.
    fn proven(&self, _object: &str) {}
    /// This archive was judged.
    fn judged(&self, _archive: &SnapshotName, _found: &Result<()>) {}
}

impl Follow for () {}

/// What is wrong, and with what.
#[derive(Debug)]
pub struct Damage {
    /// The pack, index object, key slot, head or snapshot.
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
    /// Packs that an interrupted verification had proven.
    pub packs_before: u64,
    /// Snapshots that were found whole.
    pub snapshots: u64,
    /// Those that an interrupted verification had found whole.
    pub snapshots_before: u64,
    /// Chunks and nodes that were read and proven.
    pub chunks: u64,
    /// Of each snapshot that could be judged, whether it was found to be whole.
    pub archives: Vec<(SnapshotName, Result<()>)>,
    /// Everything that is wrong: at most one entry for each file. A pack that is not there, though
    /// archives need it, is `NotFound`.
    pub damage: Vec<Damage>,
    /// What was not judged: the storage failed to read it, or it needs a newer program; or the archive
    /// is [late](Repository::late).
    pub unread: Vec<Damage>,
}

impl Report {
    fn tell(&mut self, object: &impl ToString, error: Error) {
        let list = if is_unread(&error) {
            &mut self.unread
        } else {
            &mut self.damage
        };
        let object = object.to_string();
        list.push(Damage { object, error });
    }
}

/// Whether an error says nothing of what is stored.
pub(crate) fn is_unread(error: &Error) -> bool {
    let kinds = [ErrorKind::Version, ErrorKind::Swept];
    error.kind().is_of_storage() || kinds.contains(&error.kind())
}

/// Whether nothing more can be judged: the end is wanted, credentials ended, a budget is used up.
fn fatal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Denied)
}

/// Reads everything: each pack whole against its name and what is in it, key slots and heads, then
/// each snapshot with all that it needs. Index objects that cannot be read are told too, although
/// nothing depends on them.
pub fn verify(repository: &Repository) -> Result<Report> {
    verify_with(repository, Depth::Everything, None, &())
}

/// Verifies so much; of these archives alone if some are named: then only what they need is read.
///
/// What looks damaged is read once more, by another request, before it is called so. `Cancelled` if
/// the storage says so; else what it fails to read is told and goes on.
pub fn verify_with(
    repository: &Repository,
    depth: Depth,
    archives: Option<&[SnapshotName]>,
    follow: &dyn Follow,
) -> Result<Report> {
    if depth != Depth::Metadata {
        repository.may_read()?;
    }
    let mut report = Report::default();
    let proven = if archives.is_none() {
        let proven = verify_packs(repository, depth, follow, &mut report)?;
        verify_others(repository, depth, &mut report)?;
        proven
    } else {
        Marks::default()
    };
    let mut proof = Proof::new(repository, depth, proven);
    let names = match archives {
        None => repository.all_snapshots_of(None)?,
        Some(names) => names.to_vec(),
    };
    for name in &names {
        if follow.was_proven(name.as_str()) {
            report.snapshots_before += 1;
            continue;
        }
        let read = twice(|| repository.listed_snapshot(name));
        let result = read.and_then(|snapshot| {
            proof.snapshot(&snapshot)?;
            Ok(snapshot.tree.and_then(|tree| proof.witnesses(&tree).err()))
        });
        let result = match result {
            // Nobody wants it any more: it raises no alarm until it is asked for by its name.
            Err(error)
                if !is_unread(&error) && archives.is_none() && is_forgotten(repository, name) =>
            {
                continue;
            }
            Err(error) if !is_unread(&error) => match excused(repository, name, error) {
                None => continue,
                Some(error) => Err(error),
            },
            result => result,
        };
        let (judged, told) = match result {
            Ok(witnesses) => (Ok(()), witnesses),
            Err(error) if fatal(&error) => return Err(error),
            Err(error) => (Err(error.clone()), Some(error)),
        };
        report.snapshots += u64::from(judged.is_ok());
        if !judged.as_ref().is_err_and(is_unread) {
            follow.judged(name, &judged);
            report.archives.push((name.clone(), judged));
        }
        if let Some(error) = told {
            report.tell(name, error);
        }
    }
    report.chunks += proof.read;
    let damaged: Vec<SnapshotName> = (report.archives.iter())
        .filter(|(_, judged)| judged.is_err())
        .map(|(name, _)| name.clone())
        .collect();
    match missing::tell_missing(repository, &damaged, &mut report) {
        Err(error) if fatal(&error) => return Err(error),
        // Which packs are missing cannot be told; that archives are damaged was.
        Err(error) => report.tell(&"packs", error),
        Ok(()) => {}
    }
    verify_attributes(repository, depth, archives, &mut report)?;
    match report.unread.iter().find(|object| fatal(&object.error)) {
        Some(object) => Err(object.error.clone()),
        None => Ok(report),
    }
}

/// Whether an archive was forgotten. One of which that cannot be told was not.
fn is_forgotten(repository: &Repository, name: &SnapshotName) -> bool {
    let attributes = repository.attributes(name);
    attributes.is_ok_and(|attributes| attributes.forgotten)
}

/// What is to be told of an archive that is not whole: nothing if it was pruned since it was listed, and
/// no damage if it is late.
fn excused(repository: &Repository, name: &SnapshotName, error: Error) -> Option<Error> {
    let late = || {
        let there = repository.all_snapshots_of(Some(name.group()))?;
        if !there.contains(name) {
            return Ok(None);
        }
        repository.late(std::slice::from_ref(name)).map(Some)
    };
    match late() {
        Ok(None) => None,
        Ok(Some(late)) if late.is_empty() => Some(error),
        Ok(Some(_)) => {
            let what = format!(
                "archive {name} is not listed: its backup was ended before it was finished, and \
                 something that it relies on was pruned; prune removes it"
            );
            Some(Error::with_source(ErrorKind::Swept, what, error))
        }
        // Whoever cannot look cannot tell.
        Err(unread) => Some(unread),
    }
}

/// Judges what lies beside packs and snapshots.
fn verify_others(repository: &Repository, depth: Depth, report: &mut Report) -> Result<()> {
    let index = repository.index.read();
    let index = index.unwrap_or_else(PoisonError::into_inner);
    let problems = index.problems().to_vec();
    drop(index);
    for (name, error) in problems {
        let kind = name.as_str().split('/').next();
        // Packs were judged by their bytes if they were read, and index objects follow.
        if kind != Some("index") && (kind != Some("packs") || depth != Depth::Everything) {
            report.tell(&name, error);
        }
    }
    let mut objects = Vec::new();
    repository.storage.list(&"index".parse()?, &mut |name, _| {
        objects.extend(object_of(name).map(|_| name.clone()));
        Ok(())
    })?;
    for name in objects {
        match twice(|| read_object(&*repository.storage, &repository.keys, &name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => report.tell(&name, error),
            Ok(_) => {}
        }
    }
    doubted(report, || repository.damaged_prune_files())?;
    doubted(report, || repository.damaged_slots())?;
    doubted(report, || repository.damaged_heads())
}

/// Tells what was judged damaged twice.
fn doubted(report: &mut Report, judge: impl Fn() -> Result<Vec<(FileName, Error)>>) -> Result<()> {
    let found = judge()?;
    if found.is_empty() {
        return Ok(());
    }
    let again = judge()?.into_iter();
    for (name, error) in again.filter(|(name, _)| found.iter().any(|(before, _)| before == name)) {
        report.tell(&name, error);
    }
    Ok(())
}

/// Judges the attributes of archives; the logs that they name are data.
fn verify_attributes(
    repository: &Repository,
    depth: Depth,
    archives: Option<&[SnapshotName]>,
    report: &mut Report,
) -> Result<()> {
    for (name, attributes) in repository.attributes_of(None)? {
        if archives.is_some_and(|wanted| !wanted.contains(&name)) {
            continue;
        }
        let attributes = match attributes {
            Err(error) if error.kind() == ErrorKind::Corrupt => repository.attributes(&name),
            attributes => attributes,
        };
        let log = attributes.and_then(|attributes| match &attributes.task_log {
            Some(_) if attributes.forgotten && archives.is_none() => Ok(()),
            Some(log) if depth == Depth::Everything => twice(|| repository.read_task_log(log))
                .map(drop)
                .map_err(|e| {
                    let what = "its task log cannot be read";
                    Error::with_source(e.kind(), what, e)
                }),
            _ => Ok(()),
        });
        let log = match log {
            Err(error) if !is_unread(&error) => {
                excused(repository, &name, error).map_or(Ok(()), Err)
            }
            log => log,
        };
        match log {
            Err(error) if fatal(&error) => return Err(error),
            Err(error) => report.tell(&format!("attributes/{name}"), error),
            Ok(()) => {}
        }
    }
    Ok(())
}
