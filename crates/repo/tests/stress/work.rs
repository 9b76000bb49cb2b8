//! What the processes do, over and over until they are killed, and what they tell of it.

use std::path::Path;
use std::sync::Arc;

use snapkeep_repo::{
    ErrorKind, KeyFile, LocalStorage, Protect, Random, Repository, Result, SnapshotName, Storage,
    SystemRandom, Unlock, verify,
};

use super::support::{CHUNK, backup, restore};

/// The archives that are kept when the others are forgotten.
const KEPT: usize = 30;
/// Chunks of a disk, and how many different ones there are of each: few, so that archives share
/// what others forget.
const CHUNKS: usize = 6;
const KINDS: u8 = 12;

/// The same key for all of them.
#[derive(Debug)]
struct Fixed;

impl Random for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        buffer.fill(7);
        Ok(())
    }
}

fn storage(folder: &Path) -> Result<Arc<dyn Storage>> {
    Ok(Arc::new(LocalStorage::open(folder)?))
}

pub(crate) fn init(folder: &Path) -> Result<()> {
    let protect = Protect::KeyFile(KeyFile::generate(&Fixed)?);
    Repository::init(storage(folder)?, Arc::new(SystemRandom), &protect, CHUNK).map(drop)
}

pub(crate) fn open(folder: &Path) -> Result<Arc<Repository>> {
    let unlock = Unlock::KeyFile(KeyFile::generate(&Fixed)?);
    Repository::open(storage(folder)?, Arc::new(SystemRandom), &unlock).map(Arc::new)
}

/// The disk of an archive, which its name says.
pub(crate) fn content(archive: &SnapshotName) -> Vec<u8> {
    let hash = blake3::hash(archive.as_str().as_bytes());
    let mut bytes = vec![0; CHUNKS * CHUNK];
    for (number, chunk) in bytes.chunks_mut(CHUNK).enumerate() {
        let kind = hash.as_bytes()[number] % KINDS;
        let seed = [kind, u8::try_from(number).unwrap_or(u8::MAX)];
        blake3::Hasher::new()
            .update(&seed)
            .finalize_xof()
            .fill(chunk);
    }
    bytes
}

/// A process: `write`, `forget` or `verify`; the number is its own.
pub(crate) fn work(role: &str, number: u64, folder: &Path, tell: &dyn Fn(&str, &SnapshotName)) {
    for round in 0u64.. {
        let done = match role {
            "write" => write(number, round, folder, tell),
            "forget" => forget(folder, tell),
            _ => check(folder),
        };
        done.unwrap_or_else(|e| panic!("{role} {number}: {}", e.chain()));
    }
}

fn write(number: u64, round: u64, folder: &Path, tell: &dyn Fn(&str, &SnapshotName)) -> Result<()> {
    let guest = number % 8;
    let archive = format!("main/vm/{guest}/{number:06}-{round:06}").parse()?;
    let repository = open(folder)?;
    let bases = repository.snapshots_of(&format!("main/vm/{guest}"))?;
    let base = match bases.last() {
        Some(base) if round % 2 == 1 => match repository.snapshot(base) {
            Ok(snapshot) => Some((snapshot.disks[0].clone(), content(base))),
            // It was forgotten meanwhile.
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        },
        _ => None,
    };
    let base = base.as_ref().map(|(disk, bytes)| (disk, &bytes[..]));
    backup(&repository, &archive, base, &content(&archive))?;
    tell("made", &archive);
    Ok(())
}

/// Forgets all archives but the newest, and takes every third of them back.
fn forget(folder: &Path, tell: &dyn Fn(&str, &SnapshotName)) -> Result<()> {
    let repository = open(folder)?;
    let archives = repository.snapshots()?;
    let too_many = archives.len().saturating_sub(KEPT);
    for (number, archive) in archives.iter().take(too_many).enumerate() {
        tell("forgetting", archive);
        repository.forget(archive)?;
        if number % 3 == 2 {
            repository.take_back(archive)?;
            tell("taken-back", archive);
        }
    }
    Ok(())
}

/// Reads everything.
fn check(folder: &Path) -> Result<()> {
    let report = verify(&*open(folder)?)?;
    match report.damage.into_iter().next() {
        None => Ok(()),
        Some(damage) => Err(damage.error),
    }
}

/// How many archives there are, all of which restore byte by byte; which of these are missing or
/// do not.
pub(crate) fn judge(folder: &Path, wanted: &[SnapshotName]) -> Result<(usize, Vec<String>)> {
    let repository = open(folder)?;
    let listed = repository.snapshots()?;
    let missing = wanted.iter().filter(|archive| !listed.contains(archive));
    let mut lost: Vec<String> = missing
        .map(|archive| format!("{archive} is missing"))
        .collect();
    for archive in &listed {
        match restore(&repository, archive) {
            Ok(bytes) if bytes == content(archive) => {}
            Ok(_) => lost.push(format!("{archive} has other bytes")),
            Err(e) => lost.push(format!("{archive}: {}", e.chain())),
        }
    }
    Ok((listed.len(), lost))
}
