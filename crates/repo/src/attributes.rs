//! Attributes of archives: notes, protection, what a verification found, what the caller said, the
//! task log, and whether it is forgotten. Each change is an object of its own; of the objects that
//! have a field the one with the highest rank counts, and those that count for nothing are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::format::attributes::{self, AttributeChange, Body, Rank, TaskLogRecord, Verification};
use crate::format::bytes::length_u32;
use crate::format::envelope::{self, Kind};
use crate::format::features;
use crate::format::pack::Class;
use crate::format::snapshot::SnapshotName;
use crate::repository::Repository;
use crate::storage::{FileName, read_and_open};
use crate::writer::Writer;
use crate::{Error, ErrorKind, Result, limits, random};

/// What counts of an archive's attributes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ArchiveAttributes {
    /// Text for people; not empty.
    pub notes: Option<String>,
    /// Whether it may be neither forgotten nor pruned.
    pub protected: bool,
    /// What the last verification found.
    pub verification: Option<Verification>,
    /// Why its caller took its backup for failed; not empty.
    pub caller_error: Option<String>,
    /// The log of its backup.
    pub task_log: Option<TaskLogRecord>,
    /// Whether it is no longer listed. Never of one that is protected.
    pub forgotten: bool,
}

impl From<AttributeChange> for ArchiveAttributes {
    fn from(change: AttributeChange) -> Self {
        let protected = change.protected.unwrap_or_default();
        Self {
            notes: change.notes.filter(|text| !text.is_empty()),
            protected,
            verification: change.verification,
            caller_error: change.caller_error.filter(|text| !text.is_empty()),
            task_log: change.task_log,
            // Two hosts may have forgotten and protected it at once.
            forgotten: change.forgotten.unwrap_or_default() && !protected,
        }
    }
}

/// The objects of one archive.
pub(crate) type Objects = Vec<(FileName, Option<Rank>)>;

/// What objects of one archive say together.
#[derive(Default)]
struct Together {
    /// The id of their snapshot; none if there are no objects.
    snapshot: Option<String>,
    counts: AttributeChange,
    /// Those that count for nothing.
    superseded: Vec<FileName>,
    /// Whether the archive's record is damaged, if an object is of such a one.
    damaged: Option<bool>,
}

impl Together {
    /// The id that the archive's record must have. Of one that is damaged, and was said to be, it
    /// cannot be told.
    fn owner(&self) -> Option<&str> {
        let said = self.damaged == Some(true);
        self.snapshot.as_deref().filter(|_| !said)
    }
}

impl Repository {
    /// The attributes of an archive, forgotten or not. `Corrupt` if they cannot be told: one of
    /// its objects is damaged, or does not belong there.
    pub fn attributes(&self, archive: &SnapshotName) -> Result<ArchiveAttributes> {
        let together = self.read_attributes(archive)?;
        if let Some(found) = together.owner() {
            self.check_owner(archive, found)?;
        }
        Ok(together.counts.into())
    }

    /// Those of all archives of one group (a namespace, kind and guest, or a namespace), or of all,
    /// by one list. Archives without attributes are left out.
    pub fn attributes_of(
        &self,
        group: Option<&str>,
    ) -> Result<BTreeMap<SnapshotName, Result<ArchiveAttributes>>> {
        let mut found = BTreeMap::new();
        for (archive, objects) in self.attribute_files(group)? {
            let read = match self.together(&archive, objects) {
                // They were replaced since they were listed.
                Err(e) if e.kind() == ErrorKind::NotFound => self.read_attributes(&archive),
                read => read,
            };
            // Whoever lists archives reads their snapshots too: their id is compared where it
            // decides something.
            let read = read.and_then(|together| {
                if together.counts.forgotten == Some(true)
                    && let Some(id) = together.owner()
                {
                    self.check_owner(&archive, id)?;
                }
                Ok(together.counts.into())
            });
            // What is said of an archive that was pruned means nothing.
            let is_gone = matches!(&read, Err(e) if e.kind() == ErrorKind::NotFound);
            if !is_gone {
                found.insert(archive, read);
            }
        }
        Ok(found)
    }

    /// The archives of a group, or of all, that are forgotten. One whose attributes cannot be read
    /// is not.
    pub(crate) fn forgotten_of(&self, group: Option<&str>) -> Result<BTreeSet<SnapshotName>> {
        let mut forgotten = BTreeSet::new();
        for (archive, read) in self.attributes_of(group)? {
            match read {
                Ok(attributes) => forgotten.extend(attributes.forgotten.then_some(archive)),
                Err(e) if unjudged(&e) => return Err(e),
                Err(_) => {}
            }
        }
        Ok(forgotten)
    }

    /// Fails with `NotFound` if an archive is forgotten.
    pub(crate) fn check_remembered(&self, archive: &SnapshotName) -> Result<()> {
        match self.attributes(archive) {
            Ok(attributes) if attributes.forgotten => {
                let what = format!(
                    "archive {archive} was forgotten; `snapkeep forget --undo {archive}` takes it \
                     back while its data is still there"
                );
                Err(Error::new(ErrorKind::NotFound, what))
            }
            Err(e) if unjudged(&e) => Err(e),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Changes attributes of an archive, forgotten or not: of what two hosts change at once the
    /// one with the higher rank counts, field by field. `Invalid` if a text is too long. To forget
    /// an archive, use [`forget`](Self::forget).
    pub fn change_attributes(
        &self,
        archive: &SnapshotName,
        change: &AttributeChange,
    ) -> Result<()> {
        self.may_write()?;
        (change.check()).map_err(|why| {
            let what = format!("archive {archive} cannot be given these attributes: it {why}");
            Error::new(ErrorKind::Invalid, what)
        })?;
        let snapshot = self.any_snapshot(archive)?;
        self.put_change(archive, snapshot.id, change)
    }

    /// Protects an archive, whatever is left of it.
    pub(crate) fn protect_what_is_left(&self, archive: &SnapshotName) -> Result<()> {
        let change = AttributeChange {
            protected: Some(true),
            ..AttributeChange::default()
        };
        match self.change_attributes(archive, &change) {
            Err(e) if e.kind() == ErrorKind::Corrupt => {
                self.put_change(archive, attributes::OF_DAMAGED.to_owned(), &change)
            }
            changed => changed,
        }
    }

    fn put_change(
        &self,
        archive: &SnapshotName,
        snapshot: String,
        change: &AttributeChange,
    ) -> Result<()> {
        let objects = self.attribute_files_of(archive)?;
        let newest = objects
            .iter()
            .filter_map(|(_, rank)| Some(rank.as_ref()?.sequence));
        let sequence = match newest.max() {
            None => 0,
            Some(newest) => newest.checked_add(1).ok_or_else(|| {
                Error::corrupt(format!("the attributes of archive {archive} are used up"))
            })?,
        };
        let rank = Rank {
            sequence,
            writer: random::fresh(&*self.random)?,
        };
        let body = Body {
            snapshot,
            change: change.clone(),
            other: BTreeMap::new(),
        };
        let file = rank.file(archive);
        let body = body.encode()?;
        let sealed = envelope::seal(&self.keys, &*self.random, Kind::Attributes, &file, &body)?;
        // A program that does not know attributes must not write from here on: it would take
        // forgotten archives for others.
        self.storage.put(&features::attributes_file(), &[])?;
        self.storage.put(&file, &sealed)?;
        if let Some(log) = &change.task_log {
            self.check_log(archive, &file, log)?;
        }
        // What is left behind counts for nothing, and the next change removes it.
        if let Ok(together) = self.read_attributes(archive) {
            for old in together.superseded {
                drop(self.storage.remove(&old));
            }
        }
        Ok(())
    }

    /// Protects an archive or takes that back. One that was forgotten comes back.
    pub fn protect(&self, archive: &SnapshotName, protected: bool) -> Result<()> {
        let change = AttributeChange {
            protected: Some(protected),
            forgotten: Some(false),
            ..AttributeChange::default()
        };
        self.check_remembered(archive)?;
        self.change_attributes(archive, &change)?;
        // Another host may have forgotten it meanwhile, and a third be about to delete it.
        self.check_not_doomed(archive)?;
        self.any_snapshot(archive).map(drop)
    }

    /// Forgets an archive: it is no longer listed, and cannot be opened. `Protected` if it is
    /// protected, or if that cannot be told.
    pub fn forget(&self, archive: &SnapshotName) -> Result<()> {
        self.any_snapshot(archive).map_err(|e| {
            if e.kind() != ErrorKind::Corrupt {
                return e;
            }
            let what = format!(
                "archive {archive} is not forgotten: its record is damaged; `snapkeep forget \
                 --damaged {archive}` forgets it all the same"
            );
            Error::with_source(ErrorKind::Corrupt, what, e)
        })?;
        self.check_unprotected(archive)?;
        let change = AttributeChange {
            forgotten: Some(true),
            ..AttributeChange::default()
        };
        self.change_attributes(archive, &change)?;
        // Another host may have protected it meanwhile, which counts for more.
        self.check_unprotected(archive)
    }

    /// Forgets an archive whose record is damaged, or takes that back. `Invalid` if its record can be
    /// read, `Protected` if it was protected: who wants that takes the protection away with
    /// `unprotect`.
    pub fn forget_damaged(
        &self,
        archive: &SnapshotName,
        forgotten: bool,
        unprotect: bool,
    ) -> Result<()> {
        self.may_write()?;
        match self.any_snapshot(archive) {
            Err(e) if e.kind() == ErrorKind::Corrupt => {}
            Err(e) => return Err(e),
            Ok(_) => {
                let what = format!(
                    "the record of archive {archive} is not damaged: forget it as others, without --damaged"
                );
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        }
        let protected = match self.read_attributes(archive) {
            Ok(together) => together.counts.protected == Some(true),
            Err(e) if e.kind() == ErrorKind::Corrupt => true,
            Err(e) => return Err(e),
        };
        if forgotten && protected && !unprotect {
            let what = format!(
                "archive {archive} is not forgotten, for it is protected, or what says so is damaged \
                 too: with --unprotect besides --damaged it is forgotten all the same"
            );
            return Err(Error::new(ErrorKind::Protected, what));
        }
        self.check_not_doomed(archive)?;
        let change = AttributeChange {
            forgotten: Some(forgotten),
            protected: unprotect.then_some(false),
            ..AttributeChange::default()
        };
        self.put_change(archive, attributes::OF_DAMAGED.to_owned(), &change)?;
        self.check_not_doomed(archive)
    }

    /// Takes back that an archive was forgotten; nothing is done if it was not. `Swept` if a sweep
    /// has begun that may delete it.
    pub fn take_back(&self, archive: &SnapshotName) -> Result<()> {
        let forgotten = |forgotten| AttributeChange {
            forgotten: Some(forgotten),
            ..AttributeChange::default()
        };
        self.check_not_doomed(archive)?;
        if self.attributes(archive)?.forgotten {
            self.change_attributes(archive, &forgotten(false))?;
            // Either the sweep sees that it is not forgotten, or this sees the sweep's marker.
            if let Err(error) = self.check_not_doomed(archive) {
                if error.kind() == ErrorKind::Swept {
                    drop(self.change_attributes(archive, &forgotten(true)));
                }
                return Err(error);
            }
        } else {
            // Somebody else may have taken it back too late.
            self.check_not_doomed(archive)?;
        }
        self.any_snapshot(archive).map(drop)
    }

    /// Fails, and takes the log away again, unless all of it lies where it stays.
    fn check_log(
        &self,
        archive: &SnapshotName,
        file: &FileName,
        log: &TaskLogRecord,
    ) -> Result<()> {
        self.refresh_condemned()?;
        // What cannot be looked up is not gone.
        let mut all = true;
        for id in &log.chunks {
            all &= self.has_chunk(id)?;
        }
        if all {
            return Ok(());
        }
        self.storage.remove(file)?;
        let what = format!("the log of archive {archive} was pruned before it was kept");
        Err(Error::new(ErrorKind::Swept, what))
    }

    fn check_unprotected(&self, archive: &SnapshotName) -> Result<()> {
        let attributes = self.attributes(archive).map_err(|e| {
            if unjudged(&e) || e.kind() == ErrorKind::NotFound {
                return e;
            }
            let what = format!(
                "archive {archive} is not forgotten: it may be protected, since its attributes \
                 cannot be read"
            );
            Error::with_source(ErrorKind::Protected, what, e)
        })?;
        if attributes.protected {
            let what = format!(
                "archive {archive} is protected and not forgotten; `snapkeep unprotect {archive}` \
                 lifts the protection"
            );
            return Err(Error::new(ErrorKind::Protected, what));
        }
        Ok(())
    }

    /// Stores a task log durably, to be named by a change of attributes. `Invalid` if it is longer
    /// than [`TASK_LOG_MAX`](limits::TASK_LOG_MAX).
    pub fn store_task_log(self: &Arc<Self>, log: &[u8]) -> Result<TaskLogRecord> {
        if log.len() > limits::TASK_LOG_MAX {
            let what = format!("a task log of {} bytes is too long", log.len());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let writer = Writer::new(Arc::clone(self))?;
        let mut worker = writer.worker();
        let stored = log.chunks(limits::CHUNK_MAX);
        let chunks = stored.map(|chunk| Ok(worker.store(Class::Data, chunk)?.id));
        let chunks = chunks.collect::<Result<_>>()?;
        writer.settle()?;
        Ok(TaskLogRecord {
            chunks,
            length: length_u32(log.len()),
        })
    }

    /// Reads a task log.
    pub fn read_task_log(&self, log: &TaskLogRecord) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for id in &log.chunks {
            bytes.extend(self.read_chunk(Class::Data, id)?);
            if bytes.len() > limits::TASK_LOG_MAX {
                break;
            }
        }
        if bytes.len() != log.length as usize {
            return Err(Error::corrupt(
                "a task log has another length than it should",
            ));
        }
        Ok(bytes)
    }

    /// What the objects of one archive say, as of one moment.
    fn read_attributes(&self, archive: &SnapshotName) -> Result<Together> {
        let mut tries = 0;
        loop {
            let objects = self.attribute_files_of(archive)?;
            match self.together(archive, objects) {
                // It was replaced since it was listed.
                Err(e) if e.kind() == ErrorKind::NotFound && tries < limits::ATTRIBUTE_TRIES => {
                    tries += 1;
                }
                read => return read,
            }
        }
    }

    pub(crate) fn attribute_files_of(&self, archive: &SnapshotName) -> Result<Objects> {
        let mut all = self.attribute_files(Some(archive.as_str()))?;
        Ok(all.remove(archive).unwrap_or_default())
    }

    pub(crate) fn attribute_files(
        &self,
        below: Option<&str>,
    ) -> Result<BTreeMap<SnapshotName, Objects>> {
        let folder = match below {
            None => "attributes".parse()?,
            Some(below) => format!("attributes/{below}").parse()?,
        };
        let mut found: BTreeMap<SnapshotName, Objects> = BTreeMap::new();
        self.storage.list(&folder, &mut |file, _| {
            if let Some((archive, rank)) = attributes::parse(file) {
                let objects = found.entry(archive).or_default();
                // One more, so that it is told.
                if objects.len() <= limits::ATTRIBUTES_MAX {
                    objects.push((file.clone(), rank));
                }
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn together(&self, archive: &SnapshotName, objects: Objects) -> Result<Together> {
        let corrupt = |why: &str| Error::corrupt(format!("attributes of archive {archive}: {why}"));
        if objects.len() > limits::ATTRIBUTES_MAX {
            return Err(corrupt("there are more objects than are allowed"));
        }
        let mut ranked = Vec::with_capacity(objects.len());
        for (file, rank) in objects {
            let not_one = || corrupt(&format!("{file} is not the name of an attribute"));
            ranked.push((rank.ok_or_else(not_one)?, file));
        }
        ranked.sort_unstable();
        let mut together = Together::default();
        for (_, file) in ranked.into_iter().rev() {
            let body = read_and_open(&*self.storage, &file, limits::ATTRIBUTE_MAX, |sealed| {
                let body = envelope::open(&self.keys, Kind::Attributes, &file, sealed)?;
                Body::decode(&file, &body)
            })?;
            if body.snapshot == attributes::OF_DAMAGED {
                if !self.is_damaged(archive, &mut together)? {
                    together.superseded.push(file);
                    continue;
                }
            } else {
                let first = together
                    .snapshot
                    .get_or_insert_with(|| body.snapshot.clone());
                if *first != body.snapshot {
                    return Err(corrupt("its objects are of different snapshots"));
                }
            }
            let counts = together.counts.add(body.change);
            if !counts && body.other.is_empty() {
                together.superseded.push(file);
            }
        }
        Ok(together)
    }

    /// Whether the record of an archive is damaged: only then counts what was said of that.
    fn is_damaged(&self, archive: &SnapshotName, together: &mut Together) -> Result<bool> {
        if let Some(is) = together.damaged {
            return Ok(is);
        }
        let is = match self.listed_snapshot(archive) {
            Ok(_) => false,
            Err(e) if e.kind() == ErrorKind::Corrupt => true,
            // It was pruned.
            Err(e) if e.kind() == ErrorKind::NotFound => false,
            Err(e) => return Err(e),
        };
        together.damaged = Some(is);
        Ok(is)
    }

    /// Whether attributes are of the snapshot that has their archive's name now.
    fn check_owner(&self, archive: &SnapshotName, id: &str) -> Result<()> {
        if self.any_snapshot(archive)?.id != id {
            let what = format!("the attributes of archive {archive} are of another snapshot");
            return Err(Error::corrupt(what));
        }
        Ok(())
    }
}

/// The storage may answer the next time.
fn unjudged(error: &Error) -> bool {
    error.kind().is_of_storage()
}

impl AttributeChange {
    /// Takes what an object of lower rank has that is not here yet; whether there was anything.
    fn add(&mut self, older: Self) -> bool {
        let Self {
            notes,
            protected,
            verification,
            caller_error,
            task_log,
            forgotten,
        } = older;
        // All of them are asked.
        take(&mut self.notes, notes)
            | take(&mut self.protected, protected)
            | take(&mut self.verification, verification)
            | take(&mut self.caller_error, caller_error)
            | take(&mut self.task_log, task_log)
            | take(&mut self.forgotten, forgotten)
    }
}

fn take<T>(field: &mut Option<T>, older: Option<T>) -> bool {
    let taken = field.is_none() && older.is_some();
    if taken {
        *field = older;
    }
    taken
}
