//! A disk, and the same disk a day later.
//!
//! It holds what the disks of guests hold: files of a real system, which are this machine's own;
//! media, which do not compress; copies, holes, and zeroes that were written. Where they lie is
//! decided by a seed. The later generation has other bytes in scattered regions, as a running
//! guest leaves them.
//!
//! Made-up texts and programs were tried first and given up: zstd at level 1 left 67 % of them and
//! leaves 42 % of the real files, lz4 74 % and 55 %. What is stored and written, and who is how much
//! faster, would have been properties of how the disk was made up.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bench::files::{BLOCK, Files, SYSTEM};
use crate::bench::random::Random;
use crate::shell::run;

/// The two generations, as raw files, and what makes the first into the second.
#[derive(Debug)]
pub(crate) struct Corpus {
    pub(crate) size: u64,
    pub(crate) first: PathBuf,
    pub(crate) second: PathBuf,
    pub(crate) changes: Vec<Change>,
}

/// A region of the disk, and the file with its new bytes.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) bytes: PathBuf,
}

impl Corpus {
    /// Makes the corpus in `folder`.
    pub(crate) fn make(folder: &Path, seed: u64, size: u64) -> Result<Self> {
        let [first, second] = ["first", "second"].map(|name| folder.join(name).join("disk.raw"));
        for file in [&first, &second] {
            std::fs::create_dir_all(file.parent().context("a file has a folder")?)?;
        }
        let mut random = Random(seed);
        let mut files = Files::below(Path::new(SYSTEM), &mut random)?;
        write_first(&first, size, &mut files, &mut random).context("could not write the disk")?;
        run(Command::new("cp")
            .arg("--sparse=always")
            .args([&first, &second]))?;
        let regions = regions(size, &mut random);
        let changes = change(&second, folder, &regions, &mut files, &mut random)
            .context("could not change the disk")?;
        Ok(Self {
            size,
            first,
            second,
            changes,
        })
    }
}

/// From `least` to `most`, each doubling as likely as the next, in whole blocks.
fn length(random: &mut Random, least: u64, most: u64) -> u64 {
    let doublings = u64::from((most / least).max(1).ilog2());
    let length = least << random.below(doublings + 1);
    let length = length + random.below(length);
    length.min(most) / BLOCK * BLOCK
}

/// What of fourteen stretches with content is media; the others are files.
const MEDIA: u64 = 3;

/// Fills the buffer with a stretch's content.
fn fill(
    buffer: &mut Vec<u8>,
    length: u64,
    files: &mut Files,
    random: &mut Random,
) -> io::Result<()> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    if random.below(14) >= MEDIA {
        return files.fill(buffer, length);
    }
    buffer.clear();
    while buffer.len() < length {
        buffer.extend_from_slice(&random.next().to_le_bytes());
    }
    buffer.truncate(length);
    Ok(())
}

fn write_first(path: &Path, size: u64, files: &mut Files, random: &mut Random) -> io::Result<()> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    file.set_len(size)?;
    let mut buffer = Vec::new();
    let mut offset = 0;
    while offset < size {
        let length = length(random, 16 << 10, 8 << 20).min(size - offset);
        match random.below(20) {
            0 | 1 => {} // A hole.
            2 | 3 => {
                buffer.clear();
                buffer.resize(
                    usize::try_from(length).expect("a stretch fits in memory"),
                    0,
                );
                file.write_all_at(&buffer, offset)?;
            }
            // A copy of what lies before, anywhere, or as a clone would lie, whole mebibytes before.
            draw @ (4 | 5) if offset > length + (1 << 20) => {
                let from = if draw == 4 {
                    random.below((offset - length) / BLOCK) * BLOCK
                } else {
                    let least = length.div_ceil(1 << 20);
                    let back = least + random.below((offset >> 20).saturating_sub(least));
                    offset - (back << 20)
                };
                buffer.resize(
                    usize::try_from(length).expect("a stretch fits in memory"),
                    0,
                );
                file.read_exact_at(&mut buffer, from)?;
                file.write_all_at(&buffer, offset)?;
            }
            _ => {
                fill(&mut buffer, length, files, random)?;
                file.write_all_at(&buffer, offset)?;
            }
        }
        offset += length;
    }
    file.sync_all()
}

/// Where the second generation differs: one twentieth of the disk, ascending and disjoint.
fn regions(size: u64, random: &mut Random) -> Vec<(u64, u64)> {
    let mut wanted = size / 20;
    let mut found: Vec<(u64, u64)> = Vec::new();
    while wanted > 0 {
        let length = length(random, BLOCK, 1 << 20).min(wanted.next_multiple_of(BLOCK));
        let offset = random.below((size - length) / BLOCK) * BLOCK;
        wanted = wanted.saturating_sub(length);
        found.push((offset, length));
    }
    found.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (offset, length) in found {
        match merged.last_mut() {
            Some((start, before)) if *start + *before >= offset => {
                *before = (*before).max(offset + length - *start);
            }
            _ => merged.push((offset, length)),
        }
    }
    merged
}

/// Writes new bytes to the regions of the raw file, and keeps them.
fn change(
    raw: &Path,
    folder: &Path,
    regions: &[(u64, u64)],
    files: &mut Files,
    random: &mut Random,
) -> io::Result<Vec<Change>> {
    let file = File::options().write(true).open(raw)?;
    let pieces = folder.join("pieces");
    std::fs::create_dir(&pieces)?;
    let mut changes = Vec::new();
    let mut buffer = Vec::new();
    for (number, (offset, length)) in regions.iter().enumerate() {
        fill(&mut buffer, *length, files, random)?;
        file.write_all_at(&buffer, *offset)?;
        let bytes = pieces.join(number.to_string());
        std::fs::write(&bytes, &buffer)?;
        changes.push(Change {
            offset: *offset,
            length: *length,
            bytes,
        });
    }
    file.sync_all()?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Random, length, regions};

    #[test]
    fn changed_regions_are_ascending_disjoint_and_inside_the_disk() {
        for seed in 0..20 {
            let size = 64 << 20;
            let found = regions(size, &mut Random(seed));
            assert!(
                found
                    .iter()
                    .all(|(o, l)| o + l <= size && o % BLOCK == 0 && *l > 0)
            );
            assert!(
                found
                    .windows(2)
                    .all(|pair| pair[0].0 + pair[0].1 < pair[1].0)
            );
        }
    }

    #[test]
    fn a_seed_always_gives_the_same_disk() {
        let numbers = |seed| {
            let mut random = Random(seed);
            (0..4)
                .map(|_| length(&mut random, 4096, 1 << 20))
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }
}
