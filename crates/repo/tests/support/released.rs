//! The repository that a released version leaves behind for all later ones: with every kind of file
//! that it writes. It is made once, with real random bytes, and never again.
//!
//! It lies in `tests/golden/released/VERSION/`, with the keys to it, and with `expected.json`: what it
//! restored to on the day that it was made.

#![allow(dead_code, reason = "no program uses everything")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use snapkeep_repo::{
    ArchiveAttributes, AttributeChange, Depth, HeadPlace, KeyFile, LocalStorage, Merge, Protect,
    PruneOptions, Repository, SnapshotName, SystemRandom, Unlock, keep_verification, prune,
};

use crate::golden::{self, Archive, CHUNK, Expected, Fallible, PASSPHRASE, hashes, open_with};

/// What is in the folder of a version beside the keys.
pub(crate) const REPOSITORY: &str = "repository";
const DAY: u64 = 86_400;

/// What the repository of a version is to be found to be.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Release {
    /// By the names of archives; the one that was forgotten is not among them.
    pub(crate) archives: BTreeMap<String, Expected>,
    pub(crate) facts: BTreeMap<String, Facts>,
    /// The archive that was forgotten, and is condemned.
    pub(crate) forgotten: String,
    /// The head of `store`, which is of this archive.
    pub(crate) head: String,
}

/// What is known of an archive beside what it holds.
#[derive(Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Facts {
    notes: Option<String>,
    protected: bool,
    /// When it was verified.
    verified: Option<i64>,
    /// The log of its backup.
    log: Option<String>,
}

/// The folders of all versions.
pub(crate) fn folders() -> Vec<PathBuf> {
    let folders = fs::read_dir(golden::folder().join("released"));
    let mut folders: Vec<_> = (folders.into_iter().flatten())
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    folders.sort();
    folders
}

/// The keys that open all of it.
pub(crate) fn owners(folder: &Path) -> Fallible<Vec<Unlock>> {
    let text = |name| fs::read_to_string(folder.join(name));
    Ok(vec![
        Unlock::KeyFile(text("key-file")?.parse()?),
        Unlock::Passphrase(text("passphrase")?.trim_end().to_owned().into()),
        Unlock::Recovery(text("recovery-kit")?.parse()?),
    ])
}

/// What the facts of each of these archives are.
pub(crate) fn facts<'n>(
    repository: &Repository,
    archives: impl IntoIterator<Item = &'n String>,
) -> Fallible<BTreeMap<String, Facts>> {
    let mut all = BTreeMap::new();
    for name in archives {
        let found: ArchiveAttributes = repository.attributes(&name.parse()?)?;
        let log = (found.task_log.as_ref())
            .map(|log| repository.read_task_log(log))
            .transpose()?;
        let facts = Facts {
            notes: found.notes,
            protected: found.protected,
            verified: found.verification.map(|verification| verification.time),
            log: log.map(String::from_utf8).transpose()?,
        };
        all.insert(name.clone(), facts);
    }
    Ok(all)
}

/// Dates every file back by so many days.
pub(crate) fn age(folder: &Path, days: u64) -> Fallible<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            age(&path, days)?;
        } else {
            let file = fs::File::options().write(true).open(&path)?;
            let time: SystemTime = file.metadata()?.modified()?;
            file.set_modified(time - Duration::from_secs(days * DAY))?;
        }
    }
    Ok(())
}

/// Makes it in a folder that has nothing.
pub(crate) fn make(folder: &Path) -> Fallible<()> {
    let place = folder.join(REPOSITORY);
    let storage = Arc::new(LocalStorage::create(&place)?);
    let key = KeyFile::generate(&SystemRandom)?;
    let random = Arc::new(SystemRandom);
    let protect = Protect::KeyFile(key.clone());
    let owner = Arc::new(Repository::init(storage.clone(), random, &protect, CHUNK)?);
    owner.add_key(
        &Protect::Stretched(PASSPHRASE.to_owned().into(), golden::CHEAP),
        None,
    )?;
    let host = KeyFile::generate(&SystemRandom)?;
    owner.add_key(&Protect::Writer(host.clone()), Some("node-a"))?;
    let kit = owner.recovery_kit()?.to_text();
    for (name, text) in [
        ("key-file", key.to_text()),
        ("host-key-file", host.to_text()),
    ] {
        fs::write(folder.join(name), format!("{}\n", &*text))?;
    }
    fs::write(folder.join("recovery-kit"), format!("{}\n", &*kit))?;
    fs::write(folder.join("passphrase"), format!("{PASSPHRASE}\n"))?;

    let mut of_hosts = golden::encrypted();
    let mut of_owner = golden::open();
    let (first, container) = (of_hosts.remove(0), of_owner.remove(1));
    let stored: [&[Archive<'_>]; 3] = [&[first, container], &of_hosts, &of_owner];
    let [merged, by_host, forgotten] = stored;
    store(&owner, merged)?;
    let unlock = Unlock::KeyFile(key);
    let random = Arc::new(SystemRandom);
    Repository::open_merged(storage.clone(), random, &unlock, Merge::Always)?;
    store(
        &open_with(storage.clone(), &Unlock::KeyFile(host))?,
        by_host,
    )?;
    let owner = open_with(storage.clone(), &unlock)?;
    store(&owner, forgotten)?;

    let name = |archive: &Archive<'_>| archive.name.parse::<SnapshotName>();
    let (first, second) = (name(&merged[0])?, name(&by_host[0])?);
    let change = AttributeChange {
        notes: Some("of a release".to_owned()),
        task_log: Some(owner.store_task_log(b"INFO: what was done\n")?),
        ..AttributeChange::default()
    };
    owner.change_attributes(&second, &change)?;
    owner.protect(&first, true)?;
    let program = concat!("snapkeep ", env!("CARGO_PKG_VERSION"));
    keep_verification(
        &owner,
        &second,
        &Ok(()),
        Depth::Everything,
        golden::MADE,
        program,
    )?;
    owner.put_head(&HeadPlace::new(&second, "store")?, &second)?;
    let condemned = name(&forgotten[0])?;
    owner.forget(&condemned)?;
    age(&place, 3)?;
    let marked = prune(&owner, &PruneOptions::default())?.marked;
    if marked.is_none_or(|marked| marked.condemned.number == 0) {
        return Err("nothing is condemned".into());
    }

    let owner = open_with(storage, &unlock)?;
    let archives = hashes(&owner)?;
    let release = Release {
        facts: facts(&owner, archives.keys())?,
        archives,
        forgotten: condemned.to_string(),
        head: second.to_string(),
    };
    let text = serde_json::to_string_pretty(&release)? + "\n";
    fs::write(folder.join("expected.json"), text)?;
    Ok(())
}

fn store(repository: &Arc<Repository>, archives: &[Archive<'_>]) -> Fallible<()> {
    (archives.iter()).try_for_each(|archive| golden::back_up(repository, archive))
}
