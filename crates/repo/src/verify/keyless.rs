//! Verification without a key, for a host that has the storage and is trusted with nothing else:
//! whether each file is what was written under its name, as far as checksums tell.
//!
//! A pack's name is its hash, and every small file ends with one. What the files say is sealed; that
//! an archive has all that it needs, only a key can tell.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::again::twice;
use super::{Damage, Follow, fatal, is_unread};
use crate::format::attributes;
use crate::format::bytes::unhex;
use crate::format::config::Config;
use crate::format::envelope::{self, Kind};
use crate::format::id::PackId;
use crate::format::pack::{self, HEADER, TRAILER};
use crate::format::snapshot::SnapshotName;
use crate::index::{object_of, pack_file, pack_of};
use crate::parallel::in_parallel;
use crate::storage::{FileName, Storage, read_all};
use crate::{Error, ErrorKind, Result, limits};

/// What was found without a key.
#[derive(Debug, Default)]
pub struct KeylessReport {
    /// Packs that were read whole.
    pub packs: u64,
    /// Files beside packs that were.
    pub others: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// What is not what was written under its name.
    pub damage: Vec<Damage>,
    /// What the storage failed to read.
    pub unread: Vec<Damage>,
    /// Files with names that are none of a repository's, at most
    /// [`PROBLEMS_MAX`](limits::PROBLEMS_MAX).
    pub foreign: Vec<String>,
    /// How many of them there are.
    pub foreign_count: u64,
    /// Writers of whose index objects some are not there, and how many. A pruning removes objects
    /// that are of no more use; else somebody else did, and the packs are read instead.
    pub missing: Vec<(String, u64)>,
}

/// What a file's name says that it is.
enum Named {
    Pack,
    Sealed(Kind),
    /// A generation of a pruning, or its marker.
    Prune,
    /// An empty file.
    Feature,
    /// Only a key tells.
    Unjudged,
    /// It lies where only names of another shape may.
    Odd,
    Foreign,
}

fn named(file: &FileName) -> Named {
    let (folder, rest) = file.as_str().split_once('/').unwrap_or_default();
    let number = |text: &str| unhex::<8>(text).is_some();
    let sealed = |right: bool, kind| {
        if right {
            Named::Sealed(kind)
        } else {
            Named::Foreign
        }
    };
    match folder {
        "packs" if pack_of(file).is_some() => Named::Pack,
        "index" => sealed(object_of(file).is_some(), Kind::Index),
        "snapshots" => sealed(rest.parse::<SnapshotName>().is_ok(), Kind::Snapshot),
        "keys" => sealed(number(rest), Kind::Slot),
        "attributes" => match attributes::parse(file) {
            Some((_, Some(_))) => Named::Sealed(Kind::Attributes),
            // Such a file keeps an archive's attributes from being told.
            Some((_, None)) => Named::Odd,
            None => Named::Foreign,
        },
        "heads" => {
            let mut parts = rest.split('/');
            let last = parts.next_back().and_then(|last| last.split_once('-'));
            let right = last.is_some_and(|(sequence, random)| number(sequence) && number(random));
            // Nothing but heads may lie there.
            if right && parts.count() == 4 {
                Named::Sealed(Kind::Head)
            } else {
                Named::Odd
            }
        }
        // What else lies there has no checksum; it is derived.
        "tables" if rest.ends_with("/cover") || rest.contains("/packs-") => {
            Named::Sealed(Kind::Tables)
        }
        "tables" if rest.contains("/entries-") => Named::Unjudged,
        "features" => Named::Feature,
        "prune" => Named::Prune,
        _ => Named::Foreign,
    }
}

/// Folders of a repository with files that anyone can judge.
const FOLDERS: [&str; 8] = [
    "keys",
    "index",
    "snapshots",
    "heads",
    "attributes",
    "features",
    "prune",
    "packs",
];

/// Reads every file and judges it by its checksum. Needs nothing but the storage; what looks damaged
/// is read once more before it is called so.
pub fn verify_without_key(storage: &dyn Storage, follow: &dyn Follow) -> Result<KeylessReport> {
    let mut report = KeylessReport::default();
    let config: FileName = "config".parse()?;
    let judged = twice(|| {
        let file = read_all(storage, &config, limits::CONFIG_MAX)?;
        report.others += 1;
        report.bytes += file.len() as u64;
        Config::decode(&file).map(drop)
    });
    match judged {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = "there is no config: the recovery kit and any snapshot make a new one";
            let error = Error::with_source(ErrorKind::Corrupt, what, error);
            report.tell(&config, error)?;
        }
        Err(error) => report.tell(&config, error)?,
        Ok(()) => {}
    }
    let mut files = Vec::new();
    let mut packs = (0, 0);
    let mut objects: BTreeMap<String, (u32, u64)> = BTreeMap::new();
    for folder in FOLDERS {
        storage.list(&folder.parse()?, &mut |name, length| {
            match named(name) {
                Named::Foreign => {
                    report.foreign_count += 1;
                    if report.foreign.len() < limits::PROBLEMS_MAX {
                        report.foreign.push(name.to_string());
                    }
                    return Ok(());
                }
                Named::Unjudged => return Ok(()),
                Named::Pack => packs = (packs.0 + 1, packs.1 + length),
                Named::Sealed(Kind::Index) => {
                    let (_, number) = object_of(name).unwrap_or_default();
                    let (writer, _) = name.as_str().rsplit_once('/').unwrap_or_default();
                    let (behind, count) = objects.entry(writer.to_owned()).or_default();
                    *behind = (*behind).max(number.saturating_add(1));
                    *count += 1;
                }
                Named::Sealed(_) | Named::Prune | Named::Feature | Named::Odd => {}
            }
            files.push(name.clone());
            Ok(())
        })?;
    }
    let missing = |(writer, (behind, count))| (writer, u64::from(behind).saturating_sub(count));
    let missing = objects.into_iter().map(missing);
    report.missing = missing.filter(|(_, count)| *count > 0).collect();
    follow.begun(packs.0, packs.1);
    let [read, others, bytes] = [0; 3].map(AtomicU64::new);
    let failed = in_parallel(&files, |file| {
        let is_pack = matches!(named(file), Named::Pack);
        let judged = twice(|| {
            let most = if is_pack {
                limits::PACK_MAX
            } else {
                limits::SEALED_MAX
            };
            let file_bytes = read_all(storage, file, most)?;
            bytes.fetch_add(file_bytes.len() as u64, Ordering::Relaxed);
            judge(file, &file_bytes)
        });
        match judged {
            // It was removed since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            judged => {
                let count = if is_pack { &read } else { &others };
                count.fetch_add(1, Ordering::Relaxed);
                judged
            }
        }
    });
    report.packs = read.into_inner();
    report.others += others.into_inner();
    report.bytes += bytes.into_inner();
    for (number, error) in failed {
        report.tell(&files[number], error)?;
    }
    Ok(report)
}

impl KeylessReport {
    fn tell(&mut self, object: &FileName, error: Error) -> Result<()> {
        if fatal(&error) {
            return Err(error);
        }
        let list = if is_unread(&error) {
            &mut self.unread
        } else {
            &mut self.damage
        };
        let object = object.to_string();
        list.push(Damage { object, error });
        Ok(())
    }
}

/// Whether a file is what was written under its name.
fn judge(file: &FileName, bytes: &[u8]) -> Result<()> {
    let corrupt = |why: &str| Err(Error::corrupt(format!("{file} {why}")));
    match named(file) {
        Named::Pack => judge_pack(file, bytes),
        Named::Sealed(kind) => envelope::check(kind, file, bytes).map(drop),
        Named::Prune => envelope::check_any(file, bytes),
        Named::Feature if bytes.is_empty() => Ok(()),
        Named::Feature => corrupt("is not empty"),
        Named::Odd | Named::Foreign | Named::Unjudged => {
            corrupt("has a name that nothing has there")
        }
    }
}

fn judge_pack(file: &FileName, bytes: &[u8]) -> Result<()> {
    let id = PackId(*blake3::hash(bytes).as_bytes());
    if pack_file(&id) != *file {
        let what = format!("{file} does not have the checksum that is its name");
        return Err(Error::corrupt(what));
    }
    let table = (bytes.last_chunk::<TRAILER>()).and_then(|trailer| pack::table_length(trailer));
    let fits = table.is_some_and(|table| HEADER + table + TRAILER <= bytes.len());
    if pack::class(bytes).is_none() || !fits {
        let what = format!("{file} is unchanged, but no pack: it has no header, or no table");
        return Err(Error::corrupt(what));
    }
    Ok(())
}
