//! What an earlier archive of the guest tells about its tree.
//!
//! Two places go through the base beside the walk: one where the walk asks about entries, ahead of
//! the other, where it tells them. Each passes a folder's entries once and holds one node of it, so
//! no answer has to be kept, however many entries a folder has.

use std::sync::Arc;

use snapkeep_api::tree::{Found, FoundKind, Judgement, KnownTree, Name, Timestamp, Witness};
use snapkeep_api::{Error, ErrorKind, Level, Result, UnixTime};
use snapkeep_repo::{
    NodeKind, SnapshotName, TreeReader, TreeRecord, Witnessed, WitnessedDirectory,
};

use super::convert::{to_time, to_witness};
use crate::error;
use crate::limits::{BASES_TRIED_MAX, DICE_BYTES, SETTLED_SECONDS};
use crate::names::archive_time;
use crate::provider::{ChangeDetection, Shared};

/// What is known of a guest's tree, if anything is.
pub(crate) struct Base<'a> {
    shared: &'a Shared,
    start: UnixTime,
    root: Option<Arc<TreeReader>>,
    /// The base's folders on the way to where the walk is.
    open: Vec<Folder>,
    /// How many of 1000 files are audited.
    audit: u16,
    dice: Vec<u8>,
    believed: bool,
}

/// A folder of the base, where the base has it.
#[derive(Default)]
struct Folder {
    asked: Option<WitnessedDirectory>,
    told: Option<WitnessedDirectory>,
}

impl<'a> Base<'a> {
    /// The newest archive of this group that has a tree with witnesses. Without one all is read.
    pub(crate) fn find(
        shared: &'a Shared,
        group: &str,
        id_map: Option<&str>,
        start: UnixTime,
    ) -> Self {
        let mut base = Self::nothing(shared, start);
        match shared.options.change_detection {
            ChangeDetection::Data => {
                let line = "every file is read: changes are not detected by what files look like";
                shared.log.log(Level::Info, line);
            }
            ChangeDetection::Metadata { audit } => {
                base.audit = audit;
                if let (1.., Err(error)) = (audit, shared.repository.may_read()) {
                    base.audit = 0;
                    let line = format!("no file is audited: {}", error.chain());
                    shared.log.log(Level::Warn, &line);
                }
                match newest(shared, group, id_map) {
                    Ok((name, reader)) => {
                        let line = format!("files that look as in {name} are not read");
                        shared.log.log(Level::Info, &line);
                        base.root = Some(reader);
                    }
                    Err(why) => {
                        let line = format!("every file is read: {why}");
                        shared.log.log(Level::Info, &line);
                    }
                }
            }
        }
        base
    }

    /// A tree that was read a moment ago, with the times that were settled then.
    pub(crate) fn of_tree(shared: &'a Shared, tree: &TreeRecord, start: UnixTime) -> Self {
        let mut base = Self::nothing(shared, start);
        let reader = TreeReader::open(Arc::clone(&shared.repository), tree);
        match reader.map_err(unreadable) {
            Ok(reader) => base.root = Some(Arc::new(reader)),
            Err(error) => base.distrust(&error),
        }
        base
    }

    /// Nothing is known.
    pub(crate) fn nothing(shared: &'a Shared, start: UnixTime) -> Self {
        Self {
            shared,
            start,
            root: None,
            open: Vec::new(),
            audit: 0,
            dice: Vec::new(),
            believed: true,
        }
    }

    /// Follows the walk into a folder; without a name, the root. What the base has there.
    pub(crate) fn enter(&mut self, name: Option<&Name>) -> Result<Option<Witnessed>> {
        let mut top = match (name, &self.root) {
            (None, Some(reader)) => Folder {
                asked: Some(WitnessedDirectory::root(Arc::clone(reader))),
                told: Some(WitnessedDirectory::root(Arc::clone(reader))),
            },
            _ => Folder::default(),
        };
        let above = match name {
            None => &mut top,
            Some(_) => self.open.last_mut().unwrap_or(&mut top),
        };
        let found = above.seek(name.map_or(b"", Name::as_bytes));
        let entered = match &found {
            Ok(Some(found)) if self.believed && is_directory(found) => above.enter(found),
            Ok(_) | Err(_) => Ok(Folder::default()),
        };
        let entered = entered.unwrap_or_else(|error| {
            self.distrust(&error);
            Folder::default()
        });
        self.open.push(entered);
        found
    }

    /// Follows the walk into a folder that is not kept.
    pub(crate) fn enter_nothing(&mut self) {
        self.open.push(Folder::default());
    }

    /// Follows the walk out of a folder.
    pub(crate) fn leave(&mut self) {
        self.open.pop();
    }

    /// What the base has of an entry that is told now.
    pub(crate) fn told(&mut self, name: &Name) -> Result<Option<Witnessed>> {
        match self.open.last_mut() {
            Some(folder) => folder.seek(name.as_bytes()),
            None => Ok(None),
        }
    }

    /// The base's tree, to compare with.
    pub(crate) fn reader(&self) -> Option<Arc<TreeReader>> {
        self.root.clone()
    }

    /// Believes nothing from now on.
    pub(crate) fn disbelieve(&mut self) {
        self.believed = false;
    }

    /// The base cannot be read: it is believed no more.
    pub(crate) fn distrust(&mut self, error: &Error) {
        if std::mem::replace(&mut self.believed, false) {
            let line = format!(
                "the rest of the files are all read: the archive to compare with cannot be read: {}",
                error.chain()
            );
            self.shared.log.log(Level::Warn, &line);
        }
    }

    /// The witness to keep of an entry that was read: none if it may change, or have changed,
    /// without its times telling.
    pub(crate) fn settled(&self, mtime: Timestamp, witness: Option<Witness>) -> Option<Witness> {
        let settled =
            |time: Timestamp| time.seconds <= self.start.0.saturating_sub(SETTLED_SECONDS);
        witness.filter(|witness| settled(mtime) && settled(witness.ctime))
    }

    /// What is known of an entry that is asked about, if it is what the base has.
    fn same(&mut self, name: &Name, found: &Found) -> Result<Option<Witnessed>> {
        let Some(folder) = self.open.last_mut().and_then(|open| open.asked.as_mut()) else {
            return Ok(None);
        };
        let seen = folder.seek(name.as_bytes()).map_err(unreadable)?;
        let Some(seen) = seen else {
            return Ok(None);
        };
        let kind = match (&seen.node.kind, found.kind) {
            (NodeKind::File(file), FoundKind::File { size }) => file.size == size,
            (NodeKind::Directory(_), FoundKind::Directory) => true,
            _ => false,
        };
        let same = kind
            && seen.node.attributes.mtime == to_time(found.mtime)
            && seen.witness == Some(to_witness(found.witness))
            && self.settled(found.mtime, Some(found.witness)).is_some();
        if !same {
            return Ok(None);
        }
        if let (NodeKind::File(file), Some(reader)) = (&seen.node.kind, &self.root) {
            let present = reader.is_present(file).map_err(unreadable)?;
            return Ok(present.then_some(seen));
        }
        Ok(Some(seen))
    }

    /// Whether the next file is to be audited.
    fn audits(&mut self) -> Result<bool> {
        if self.audit == 0 {
            return Ok(false);
        }
        if self.dice.len() < 2 {
            self.dice.resize(DICE_BYTES, 0);
            (self.shared.random.fill(&mut self.dice))
                .map_err(|e| error::repository("cannot choose files to audit", e))?;
        }
        let thrown = self.dice.split_off(self.dice.len() - 2);
        let number = thrown
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte));
        Ok(number * 1000 < u32::from(self.audit) * 65_536)
    }
}

impl KnownTree for Base<'_> {
    fn judge(&mut self, name: &Name, found: &Found) -> Result<Judgement> {
        if !self.believed {
            return Ok(Judgement::Read);
        }
        let seen = match self.same(name, found) {
            Ok(seen) => seen,
            Err(error) => {
                self.distrust(&error);
                None
            }
        };
        Ok(match seen {
            None => Judgement::Read,
            Some(seen) if is_directory(&seen) => Judgement::Known,
            Some(_) if self.audits()? => Judgement::Audit,
            Some(_) => Judgement::Known,
        })
    }
}

impl Folder {
    /// What is there of an entry that is told.
    fn seek(&mut self, name: &[u8]) -> Result<Option<Witnessed>> {
        let found = self.told.as_mut().map(|told| told.seek(name));
        Ok(found.transpose().map_err(unreadable)?.flatten())
    }

    /// A folder that was found here.
    fn enter(&mut self, found: &Witnessed) -> Result<Self> {
        let enter = |place: &mut Option<WitnessedDirectory>| {
            let entered = place.as_mut().map(|place| place.enter(found));
            entered.transpose().map_err(unreadable)
        };
        Ok(Self {
            asked: enter(&mut self.asked)?,
            told: enter(&mut self.told)?,
        })
    }
}

pub(crate) fn is_directory(found: &Witnessed) -> bool {
    matches!(found.node.kind, NodeKind::Directory(_))
}

fn unreadable(error: snapkeep_repo::Error) -> Error {
    error::repository("cannot read the tree of the archive to compare with", error)
}

/// The newest archive with a tree that can be compared with, or why there is none.
fn newest(
    shared: &Shared,
    group: &str,
    id_map: Option<&str>,
) -> Result<(SnapshotName, Arc<TreeReader>), String> {
    let repository = &shared.repository;
    let failed = |e| error::repository("cannot list archives", e).chain();
    let mut names = repository.snapshots_of(group).map_err(failed)?;
    names.sort_by_key(|name| archive_time(name.as_str()));
    let mut reasons = Vec::new();
    for name in names.into_iter().rev().take(BASES_TRIED_MAX) {
        match tree(shared, &name, id_map) {
            Ok(reader) => return Ok((name, reader)),
            Err(why) => {
                reasons.push(format!("archive {name}: {}", why.chain()));
                if why.kind() == ErrorKind::Unsupported {
                    // What the newest one does not believe, an older one must not.
                    break;
                }
                // Whether or not an older one will do.
                shared.log.log(Level::Warn, &reasons[reasons.len() - 1]);
            }
        }
    }
    let all = repository.all_snapshots_of(Some(group)).map_err(failed)?;
    if reasons.is_empty() && !all.is_empty() {
        reasons.push("the guest's archives were forgotten".to_owned());
    }
    if reasons.is_empty() {
        reasons.push("the guest has no archive to compare with".to_owned());
    }
    Err(reasons.join("; "))
}

fn tree(shared: &Shared, name: &SnapshotName, id_map: Option<&str>) -> Result<Arc<TreeReader>> {
    let repository = &shared.repository;
    let failed = |e| error::repository("it cannot be read", e);
    let snapshot = repository.snapshot(name).map_err(failed)?;
    let lacking = |what: &str| Error::new(ErrorKind::Unsupported, what);
    let record = (snapshot.tree).ok_or_else(|| lacking("it has no file tree"))?;
    if record.id_map.as_deref() != id_map {
        return Err(lacking("its files were read with another ID map"));
    }
    if record.witness.is_none() {
        return Err(lacking("none of its files could be believed"));
    }
    let reader = TreeReader::open(Arc::clone(repository), &record).map_err(failed)?;
    Ok(Arc::new(reader))
}
