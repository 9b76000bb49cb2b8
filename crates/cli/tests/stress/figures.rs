//! What was told, and how much was done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// What somebody was told of archives, and numbers of deeds.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Archives that were told of, with the number of their trees.
    pub(crate) made: BTreeMap<String, u64>,
    /// Those of them that are to be there.
    pub(crate) wanted: BTreeSet<String>,
    /// Those that are not to be there.
    pub(crate) forgotten: BTreeSet<String>,
    /// Whoever made one of these may tell of it later than who forgot it.
    touched: BTreeSet<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) requests: BTreeMap<String, u64>,
    /// What must not happen.
    pub(crate) losses: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<Told>);

impl Figures {
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, what: &'static str, number: u64) {
        *self.told().counts.entry(what).or_default() += number;
    }

    pub(crate) fn killed(&self) {
        self.add("killed", 1);
    }

    /// What a run asked of the bucket.
    pub(crate) fn asked(&self, requests: &Value) {
        let mut told = self.told();
        for (kind, number) in requests.as_object().into_iter().flatten() {
            *told.requests.entry(kind.clone()).or_default() += number.as_u64().unwrap_or(0);
        }
    }

    pub(crate) fn lost(&self, what: String) {
        self.told().losses.push(what);
    }

    pub(crate) fn made(&self, archive: &str, number: u64) {
        let mut told = self.told();
        told.made.insert(archive.to_owned(), number);
        if !told.touched.contains(archive) {
            told.wanted.insert(archive.to_owned());
        }
    }

    /// Somebody begins to change whether these are there: until that ends well, either will do.
    pub(crate) fn doubted(&self, archives: &[String]) {
        let mut told = self.told();
        for archive in archives {
            told.wanted.remove(archive);
            told.forgotten.remove(archive);
            told.touched.insert(archive.clone());
        }
    }

    pub(crate) fn forgotten(&self, archives: &[String]) {
        self.told().forgotten.extend(archives.iter().cloned());
    }

    pub(crate) fn wanted(&self, archives: &[String]) {
        self.told().wanted.extend(archives.iter().cloned());
    }

    pub(crate) fn number(&self, archive: &str) -> Option<u64> {
        self.told().made.get(archive).copied()
    }

    /// What was done, in lines.
    pub(crate) fn lines(&self) -> [String; 3] {
        let told = self.told();
        let n = |what| told.counts.get(what).copied().unwrap_or(0);
        let r = |kind| told.requests.get(kind).copied().unwrap_or(0);
        let all = ["put", "get", "head", "list", "delete"].map(r);
        [
            format!(
                "stress: S3: {} archives made and told of, {} forgotten, {} taken back, {} protected, {} backups \
                 gave way to a sweep, {} processes killed, {} restored identical, {} lost",
                told.made.len(),
                n("forgotten"),
                n("taken back"),
                n("protected"),
                n("gave way"),
                n("killed"),
                n("restored"),
                told.losses.len(),
            ),
            format!(
                "stress: S3: {} prunings ended, {} of them swept: {} archives and {} packs ({} bytes) removed, \
                 {} chunks rescued; {} chunks repacked; {} verifications of everything without damage",
                n("prunings"),
                n("sweeps"),
                n("archives removed"),
                n("packs removed"),
                n("bytes removed"),
                n("rescued"),
                n("repacked"),
                n("verifications"),
            ),
            format!(
                "stress: S3: {} requests of the runs that were not killed: {} put, {} get, {} head, {} list, {} \
                 delete; {} bytes sent, {} received",
                all.iter().sum::<u64>(),
                all[0],
                all[1],
                all[2],
                all[3],
                all[4],
                r("sent_bytes"),
                r("received_bytes"),
            ),
        ]
    }
}
