//! What this host remembers of a repository, in its state folder: of each guest, which archive was the
//! newest that it wrote or listed; and how it locked its objects. One that is gone without having been forgotten was taken away by
//! somebody without a key, or the repository is an older copy of itself, or another one.

mod locks;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use snapkeep_provider::HeadMemory;
use snapkeep_repo::SnapshotName;

use crate::memory::{MemoryFolder, NEW};
use crate::place::Place;
use crate::settings::Settings;

pub(crate) use locks::{LessLocked, Remembered, is_less};

/// Hexadecimal digits that stand for a place in the names of files.
const DIGITS: usize = 16;

/// What is remembered of the repository in one place.
pub(crate) struct Past {
    memory: MemoryFolder,
    /// Where what is remembered of this place lies.
    at: String,
    shown: String,
}

/// What is remembered of a guest: the repository, and its newest archive.
struct Entry {
    place: String,
    repository: String,
    archive: String,
}

/// What is not as it is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Doubt {
    /// The guest: namespace, kind and name.
    group: String,
    pub(crate) what: String,
}

impl Past {
    /// Of the repository in a place, there or not.
    pub(crate) fn new(settings: &Settings, place: &Place) -> Self {
        let whole = match place {
            Place::Folder(folder) => {
                let whole = std::fs::canonicalize(folder).or_else(|_| std::path::absolute(folder));
                whole.unwrap_or_else(|_| folder.clone())
            }
            // Another endpoint may have a bucket of the same name.
            Place::Bucket(location, _) => match location.endpoint() {
                Some(endpoint) => format!("{place} at {endpoint}").into(),
                None => place.to_string().into(),
            },
        };
        let hash = blake3::hash(whole.as_os_str().as_encoded_bytes()).to_hex();
        Self {
            memory: MemoryFolder::new(settings.memory()),
            at: format!("archives/{}", &hash[..DIGITS]),
            shown: whole.display().to_string(),
        }
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for place in self.memory.below(&self.at)? {
            let text = self.memory.remembered(&place)?.unwrap_or_default();
            // What was cut short by a power cut says nothing.
            if let Some((repository, archive)) = text.split_once(' ')
                && let Ok(name) = archive.parse::<SnapshotName>()
            {
                let (repository, archive) = (repository.to_owned(), name.to_string());
                entries.push(Entry {
                    place,
                    repository,
                    archive,
                });
            }
        }
        Ok(entries)
    }

    /// What nobody can tell.
    pub(crate) fn unknown(&self, why: &anyhow::Error) -> Doubt {
        let what = format!(
            "nobody can tell whether the repository in {} was rolled back: {why:#}",
            self.shown
        );
        let group = String::new();
        Doubt { group, what }
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        Ok(self.entries()?.is_empty())
    }

    /// What is not as it is remembered of a repository of this ID. `list` is asked for the names of
    /// its archives, forgotten ones too, if anything is remembered.
    pub(crate) fn doubts(
        &self,
        repository: &str,
        list: impl FnOnce() -> Result<BTreeSet<String>>,
    ) -> Result<Vec<Doubt>> {
        let entries = self.entries()?;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let names = list()?;
        let doubt = |entry: &Entry| {
            let Entry { archive, .. } = entry;
            let what = if entry.repository != repository {
                format!(
                    "the repository in {} was replaced: this host remembers {} there, with archive \
                     {archive}, and finds {repository}",
                    self.shown, entry.repository
                )
            } else if names.contains(archive) {
                return None;
            } else {
                format!(
                    "the repository in {} was rolled back, or somebody took archive {archive} away: \
                     this host remembers it, and it is gone without having been forgotten",
                    self.shown
                )
            };
            let group = group(archive).to_owned();
            Some(Doubt { group, what })
        };
        Ok(entries.iter().filter_map(doubt).collect())
    }

    /// Remembers the newest archive of a guest; `None` if it has none that is not forgotten. Of a
    /// guest that is in doubt nothing is remembered until somebody has accepted that.
    pub(crate) fn saw(
        &self,
        repository: &str,
        group: &str,
        newest: Option<&SnapshotName>,
        doubts: &[Doubt],
    ) -> Result<()> {
        // Our archives have no such names, and a place is found by them.
        let usual = !group.contains('+') && !group.ends_with(NEW);
        if !usual || doubts.iter().any(|doubt| doubt.group == group) {
            return Ok(());
        }
        let place = format!("{}/{group}", self.at);
        let remembered = self.memory.remembered(&place)?;
        match newest {
            Some(newest) => {
                let text = format!("{repository} {newest}");
                if remembered.as_ref() != Some(&text) {
                    self.memory.remember(&place, &text)?;
                }
            }
            None if remembered.is_some() => self.memory.forget(&place)?,
            None => {}
        }
        Ok(())
    }

    /// Takes a repository as it is: forgets what it does not have, and remembers what it has of the
    /// same guests. The names are those of the archives that are there, in order.
    pub(crate) fn accept(&self, repository: &str, names: &BTreeSet<String>) -> Result<()> {
        let newest: BTreeMap<&str, &String> =
            names.iter().map(|name| (group(name), name)).collect();
        for entry in self.entries()? {
            match newest.get(group(&entry.archive)) {
                Some(newest) => {
                    let text = format!("{repository} {newest}");
                    self.memory.remember(&entry.place, &text)?;
                }
                None => self.memory.forget(&entry.place)?,
            }
        }
        Ok(())
    }
}

/// Namespace, kind and guest of an archive.
fn group(archive: &str) -> &str {
    archive.rsplit_once('/').map_or(archive, |(group, _)| group)
}
