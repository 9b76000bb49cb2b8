//! Old versions: in a bucket that keeps them a removal only hides an object. What is hidden, and
//! not locked any more, is removed here for good.

use http::Method;
use snapkeep_repo::{ErrorKind, FileName, Result};

use crate::fault::{Deed, Trouble};
use crate::limits;
use crate::lock::{ObjectLock, is_to_be_locked};
use crate::side::side_by_side;
use crate::signed::Question;
use crate::storage::S3Storage;
use crate::xml::{self, Version};

/// The folders from which files are removed in the life of a repository. What else was hidden,
/// somebody else did.
const FOLDERS: [&str; 9] = [
    "packs",
    "index",
    "snapshots",
    "attributes",
    "keys",
    "heads",
    "tables",
    "prune",
    "probes",
];

/// What became of hidden objects. Bytes are those of their versions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Purged {
    /// Objects that were put over by something else, at most `OVERWRITTEN_MAX`: the oldest version of
    /// each is the right one, and its lock is renewed no more.
    pub overwritten: Vec<FileName>,
    /// Versions that were removed for good, or would be.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Versions that a lock keeps.
    pub locked: u64,
    /// Their bytes.
    pub locked_bytes: u64,
    /// When the first of these locks ends, as far as that is told: seconds since 1970, by the storage's clock.
    pub until: Option<i64>,
}

impl Purged {
    fn add(&mut self, other: Self) {
        self.removed += other.removed;
        self.removed_bytes += other.removed_bytes;
        self.locked += other.locked;
        self.locked_bytes += other.locked_bytes;
        self.until = self.until.into_iter().chain(other.until).min();
        self.overwritten.extend(other.overwritten);
        self.overwritten.truncate(limits::OVERWRITTEN_MAX);
    }
}

/// What became of one version.
enum Fate {
    Gone,
    /// Until when, if that is told.
    Locked(Option<i64>),
}

/// All versions and marks of one object.
struct Group {
    name: FileName,
    versions: Vec<Version>,
}

impl Group {
    /// Whether a removal hides it.
    fn is_hidden(&self) -> bool {
        let mut versions = self.versions.iter();
        versions.any(|version| version.is_marker && version.is_latest)
    }

    /// Whether it was put over by something else: no file that is locked is ever changed. A put that
    /// was tried again has left the same twice, and archives that are copied again come under the names
    /// of removed ones.
    fn is_overwritten(&self) -> bool {
        let marks = self.versions.iter().any(|version| version.is_marker);
        let again = marks && self.name.as_str().starts_with("snapshots/");
        if again || !is_to_be_locked(&self.name) {
            return false;
        }
        let mut data = self.versions.iter().filter(|version| !version.is_marker);
        let Some(first) = data.next() else {
            return false;
        };
        let longest = limits::RETRY_DEADLINE_MAX.as_secs();
        data.any(|other| {
            other.size != first.size || other.modified.abs_diff(first.modified) > longest
        })
    }
}

impl S3Storage {
    /// Removes the versions of removed objects whose locks have ended; of one that is there, or that
    /// was put again, nothing: it may have been overwritten, which is told. With `pretend` nothing is changed.
    pub fn purge(&self, pretend: bool) -> Result<Purged> {
        let mut purged = Purged::default();
        for folder in FOLDERS {
            self.purge_below(
                &self.location().key(&format!("{folder}/")),
                pretend,
                &mut purged,
            )?;
        }
        Ok(purged)
    }

    fn purge_below(&self, prefix: &str, pretend: bool, purged: &mut Purged) -> Result<()> {
        let unbelievable = |why: &str| {
            let subject = self.subject(Deed::Versions, prefix);
            subject.error(ErrorKind::Io, &format!("the list {why}"))
        };
        // Of the last object, which the next page may go on with.
        let mut held: Vec<Version> = Vec::new();
        let mut after: Option<(String, String)> = None;
        for _ in 0..limits::PAGES_MAX {
            let mut page = self.versions(prefix, after.as_ref())?;
            // Some endpoints tell marks after all versions of a page.
            page.versions.sort_by(|one, other| one.key.cmp(&other.key));
            // An object of which only the marks were seen would be there again without them.
            if let (Some(last), Some(first)) = (held.first(), page.versions.first())
                && first.key < last.key
            {
                return Err(unbelievable("is in no order"));
            }
            held.append(&mut page.versions);
            let mut groups: Vec<Vec<Version>> = Vec::new();
            for version in std::mem::take(&mut held) {
                match groups.last_mut() {
                    Some(group) if group.first().is_some_and(|first| first.key == version.key) => {
                        group.push(version);
                    }
                    _ => groups.push(vec![version]),
                }
            }
            if page.next.is_some() {
                held = groups.pop().unwrap_or_default();
                if held.len() > limits::VERSIONS_MAX {
                    return Err(unbelievable("has too many versions of one object"));
                }
            }
            let groups: Vec<Group> = (groups.into_iter())
                .filter_map(|versions| self.group(prefix, versions))
                .collect();
            let (groups, there): (Vec<_>, Vec<_>) = groups.into_iter().partition(Group::is_hidden);
            let overwritten = there.into_iter().filter(Group::is_overwritten);
            purged.add(Purged {
                overwritten: overwritten.map(|group| group.name).collect(),
                ..Purged::default()
            });
            for one in side_by_side(&groups, |group| self.purge_group(group, pretend))? {
                purged.add(one);
            }
            match page.next {
                None => return Ok(()),
                next if next == after => break,
                next => after = next,
            }
        }
        Err(unbelievable("has no end"))
    }

    /// A page of a list of versions.
    pub(crate) fn versions(
        &self,
        prefix: &str,
        after: Option<&(String, String)>,
    ) -> Result<xml::Versions> {
        self.run(self.subject(Deed::Versions, prefix), async |_| {
            let mut question = Question::new(Method::GET, None)
                .about("versions")
                .with("prefix", prefix);
            if let Some((key, version)) = after {
                question = question.with("key-marker", key.as_str());
                question = question.with("version-id-marker", version.as_str());
            }
            let answer = self.ask_signed(question).await?;
            xml::versions(&answer.text()).map_err(Trouble::Wrong)
        })
    }

    /// These versions of an object, if it is one of the repository's.
    fn group(&self, prefix: &str, versions: Vec<Version>) -> Option<Group> {
        let key = &versions.first()?.key;
        let name = self
            .location()
            .name(key)
            .filter(|_| key.starts_with(prefix))?;
        Some(Group { name, versions })
    }

    fn purge_group(&self, group: &Group, pretend: bool) -> Result<Purged> {
        let mut purged = Purged::default();
        for version in group.versions.iter().filter(|version| !version.is_marker) {
            match self.purge_version(&group.name, version, pretend)? {
                Fate::Gone => {
                    purged.removed += 1;
                    purged.removed_bytes += version.size;
                }
                Fate::Locked(until) => {
                    purged.locked += 1;
                    purged.locked_bytes += version.size;
                    purged.until = purged.until.into_iter().chain(until).min();
                }
            }
        }
        // The marks that hid it hide nothing any more.
        for mark in group.versions.iter().filter(|version| version.is_marker) {
            if purged.locked == 0 && !pretend {
                self.remove_version(&group.name, &mark.id)?;
            }
        }
        Ok(purged)
    }

    fn purge_version(&self, name: &FileName, version: &Version, pretend: bool) -> Result<Fate> {
        let now = self.storage_now()?;
        // What was locked when it was put need not be asked.
        if let Some(retention) = self.retention()
            && is_to_be_locked(name)
            && version.modified + retention.seconds() > now
        {
            return Ok(Fate::Locked(Some(version.modified + retention.seconds())));
        }
        match self.lock_of_version(name, &version.id) {
            Ok(Some(lock)) if lock.until > now => return Ok(Fate::Locked(Some(lock.until))),
            Ok(_) => {}
            // Somebody else has removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Fate::Gone),
            Err(error) => return Err(error),
        }
        if pretend {
            return Ok(Fate::Gone);
        }
        match self.remove_version(name, &version.id) {
            Ok(()) => Ok(Fate::Gone),
            // Such as by a legal hold.
            Err(error) if error.kind() == ErrorKind::Locked => Ok(Fate::Locked(None)),
            Err(error) => Err(error),
        }
    }

    fn lock_of_version(&self, name: &FileName, version: &str) -> Result<Option<ObjectLock>> {
        let path = self.path(name)?;
        let subject = self.subject(Deed::Length, path.as_ref());
        let answer = self.run(subject, async |_| {
            self.ask_headers(&path, Some(version)).await
        })?;
        Ok(ObjectLock::of(&answer))
    }

    /// Removes one version for good. `Locked` if a lock keeps it.
    pub(crate) fn remove_version(&self, name: &FileName, version: &str) -> Result<()> {
        let path = self.path(name)?;
        let subject = self.subject(Deed::RemoveVersion, path.as_ref());
        let removed = self.run(subject, async |_| {
            let question = Question::new(Method::DELETE, Some(path.as_ref()));
            self.ask_signed(question.with("versionId", version)).await
        });
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map(drop),
        }
    }
}
