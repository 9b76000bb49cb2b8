//! What the processes do, over and over until they are killed, and what they tell of it.

use std::path::Path;
use std::sync::Arc;

use snapkeep_repo::{
    DiskRecord, ErrorKind, KeyFile, LocalStorage, Protect, PruneOptions, Random, Repository,
    Result, SnapshotName, Storage, SystemRandom, Unlock, prune, verify,
};

use super::support::{CHUNK, backup, restore};

/// The archives that are kept when the others are forgotten.
const KEPT: usize = 12;
/// Chunks of a disk, and how many different ones there are of each: few, so that archives share
/// what others forget.
const CHUNKS: usize = 6;
const KINDS: u8 = 12;

/// How a process tells what it did, in a line.
pub(crate) type Tell<'t> = &'t dyn Fn(&str);

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

/// A process: `write`, `forget`, `prune` or `verify`; the number is its own.
pub(crate) fn work(role: &str, number: u64, folder: &Path, tell: Tell<'_>) {
    for round in 0u64.. {
        let done = match role {
            "write" => write(number, round, folder, tell),
            "forget" => forget(folder, tell),
            "prune" => sweep(folder, (number + round) % 3, tell),
            _ => check(folder, tell),
        };
        done.unwrap_or_else(|e| panic!("{role} {number}: {}", e.chain()));
    }
}

fn write(number: u64, round: u64, folder: &Path, tell: Tell<'_>) -> Result<()> {
    let guest = number % 8;
    let archive = format!("main/vm/{guest}/{number:06}-{round:06}").parse()?;
    let repository = open(folder)?;
    let bases = repository.snapshots_of(&format!("main/vm/{guest}"))?;
    let base = match bases.last() {
        Some(base) if round % 2 == 1 => usable(&repository, base)?,
        _ => None,
    };
    let base = base.as_ref().map(|(disk, bytes)| (disk, &bytes[..]));
    match backup(&repository, &archive, base, &content(&archive)) {
        Ok(_) => tell(&format!("made {archive}")),
        Err(e) if e.kind() == ErrorKind::Swept => tell("gave-way"),
        Err(e) => return Err(e),
    }
    Ok(())
}

/// A disk that a backup may build on, as providers decide it, and what is on it.
fn usable(repository: &Repository, base: &SnapshotName) -> Result<Option<(DiskRecord, Vec<u8>)>> {
    let disk = repository.snapshot(base).and_then(|mut snapshot| {
        let disk = snapshot.disks.remove(0);
        repository.check_whole(&disk).map(|()| disk)
    });
    match disk {
        Ok(disk) => Ok(Some((disk, content(base)))),
        // It was forgotten meanwhile, and its packs are condemned or gone.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Prunes with a grace period of so many seconds. Safety does not depend on it.
fn sweep(folder: &Path, grace: u64, tell: Tell<'_>) -> Result<()> {
    let options = PruneOptions {
        settle: 0,
        grace,
        max_unused: 0,
        confirmed: true,
        ..PruneOptions::default()
    };
    match prune(&open(folder)?, &options) {
        Ok(report) => {
            if let Some(swept) = report.swept {
                let (packs, bytes) = (swept.deleted.number, swept.deleted.bytes);
                tell(&format!("swept {packs} {bytes}"));
            }
            Ok(())
        }
        // Another one was at work, or has ended this one, maybe removed its marker.
        Err(e) if matches!(e.kind(), ErrorKind::Swept | ErrorKind::NotFound) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Forgets all archives but the newest, and takes every third of them back.
fn forget(folder: &Path, tell: Tell<'_>) -> Result<()> {
    let repository = open(folder)?;
    let archives = repository.snapshots()?;
    let too_many = archives.len().saturating_sub(KEPT);
    for (number, archive) in archives.iter().take(too_many).enumerate() {
        tell(&format!("forgetting {archive}"));
        match repository.forget(archive) {
            Ok(()) => {}
            // A process that was killed meant to take it back, and a sweep was faster.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        }
        if number % 3 == 2 {
            match repository.take_back(archive) {
                Ok(()) => tell(&format!("taken-back {archive}")),
                // A sweep was faster.
                Err(e) if matches!(e.kind(), ErrorKind::Swept | ErrorKind::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

/// Reads everything.
fn check(folder: &Path, tell: Tell<'_>) -> Result<()> {
    let report = verify(&*open(folder)?)?;
    for damage in &report.damage {
        tell(&format!(
            "damage {}: {}",
            damage.object,
            damage.error.chain()
        ));
    }
    tell("verified");
    Ok(())
}

/// How many archives there are after a last pruning, all of which restore byte by byte; which of these
/// are missing or do not.
pub(crate) fn judge(
    folder: &Path,
    wanted: &[SnapshotName],
    tell: Tell<'_>,
) -> Result<(usize, Vec<String>)> {
    for _ in 0..3 {
        sweep(folder, 0, tell)?;
    }
    check(folder, tell)?;
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
