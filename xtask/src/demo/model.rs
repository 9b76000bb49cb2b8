//! What the guest's disk holds, known without asking QEMU or Snapkeep.
//!
//! The model has the disk's first content and every write in the order in which it
//! was done. An instant is a place in that order: known exactly for the writes
//! through the monitor, except for one that fell into the pause of the guest, and
//! within limits for the guest's own, whose content then tells the place.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::guest;

const MIB: usize = 1 << 20;
/// The demo's disk, in bytes.
const SIZE: usize = 256 * MIB;

/// Numbers that look random and are the same in every run (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("an address has 64 bits");
        usize::try_from(self.next() % limit).expect("less than a limit that is one")
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }
}

/// What a write fills its range with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// Nothing that compresses; the seed makes it.
    Random(u64),
    Byte(u8),
    /// Zeroes that QEMU may store as a hole.
    Zeroes,
}

/// One write through the monitor; its place and length are whole sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) offset: usize,
    pub(super) length: usize,
    pub(super) fill: Fill,
}

impl Write {
    /// Any write to a disk of this size, outside the guest's own range.
    pub(super) fn any(numbers: &mut Numbers, size: usize) -> Self {
        let length = guest::SECTOR * (1 + numbers.below(128));
        let places = (size - guest::END - length) / guest::SECTOR;
        let offset = guest::END + guest::SECTOR * numbers.below(places);
        let fill = match numbers.below(4) {
            0 | 1 => Fill::Random(numbers.next()),
            2 => Fill::Byte(numbers.next().to_le_bytes()[0]),
            _ => Fill::Zeroes,
        };
        Self {
            offset,
            length,
            fill,
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self.fill {
            Fill::Zeroes => vec![0; self.length],
            Fill::Byte(byte) => vec![byte; self.length],
            Fill::Random(seed) => {
                let mut bytes = vec![0; self.length];
                Numbers::new(seed).fill(&mut bytes);
                bytes
            }
        }
    }
}

/// When a backup's view of the disk was taken, as far as its observer can know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Instant {
    /// Writes through the monitor: at least, and at most.
    pub(super) writes: (usize, usize),
    /// Writes of the guest itself: at least, and at most.
    pub(super) guest: (u32, u32),
}

/// How a copy of the disk compares with the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every byte is what the disk held after so many writes of the monitor and of the guest.
    Identical {
        writes: usize,
        guest: u32,
    },
    Different(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identical { .. } => write!(f, "identical"),
            Self::Different(what) => write!(f, "DIFFERENT: {what}"),
        }
    }
}

/// The disk as the writes make it.
#[derive(Debug)]
pub(super) struct Model {
    /// All writes through the monitor, in order.
    writes: Vec<Write>,
    /// The disk after the first `done` of them and the guest's first `guest_done`.
    disk: Vec<u8>,
    done: usize,
    guest_done: u32,
}

impl Model {
    /// The disk before any write: the guest's boot sector, text, numbers that do not
    /// compress, some of them twice, and much that was never written.
    pub(super) fn new() -> Self {
        let mut disk = vec![0; SIZE];
        disk[..guest::SECTOR].copy_from_slice(&guest::boot_sector());
        for (number, line) in disk[32 * MIB..48 * MIB].chunks_exact_mut(64).enumerate() {
            let text = format!("{number:>10} the quick brown fox jumps over the lazy dog\n");
            line[..text.len()].copy_from_slice(text.as_bytes());
        }
        Numbers::new(1).fill(&mut disk[64 * MIB..112 * MIB]);
        disk.copy_within(64 * MIB..80 * MIB, 128 * MIB);
        Self::of(disk)
    }

    fn of(disk: Vec<u8>) -> Self {
        Self {
            writes: Vec::new(),
            disk,
            done: 0,
            guest_done: 0,
        }
    }

    pub(super) fn disk(&self) -> &[u8] {
        &self.disk
    }

    /// A write was done.
    pub(super) fn record(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// How many writes were done.
    pub(super) fn writes(&self) -> usize {
        self.writes.len()
    }

    /// Compares a raw image with what the disk held at `instant`. Instants have to be
    /// asked for in their order.
    pub(super) fn compare(&mut self, image: &Path, instant: Instant) -> Result<Verdict> {
        let size = self.disk.len();
        let copy = read(image, size)?;
        if copy.len() != size {
            return Ok(Verdict::Different(format!(
                "it has not {size} bytes, as the disk has"
            )));
        }
        let guest = guest::last_write(&copy);
        let (least, most) = instant.guest;
        if !(least..=most).contains(&guest) {
            return Ok(Verdict::Different(format!(
                "it holds the guest's writes up to number {guest}, the disk did up to {least} to {most}"
            )));
        }
        while self.guest_done < guest {
            self.guest_done += 1;
            guest::write(&mut self.disk, self.guest_done);
        }
        let (least, most) = instant.writes;
        let mut difference = None;
        for writes in least..=most {
            self.advance(writes);
            difference = first_difference(&self.disk, &copy);
            if difference.is_none() {
                return Ok(Verdict::Identical { writes, guest });
            }
        }
        let offset = difference.context("an instant without a place for it")?;
        Ok(Verdict::Different(format!(
            "first at byte {offset}: {:#04x}, the disk held {:#04x}",
            copy[offset], self.disk[offset]
        )))
    }

    fn advance(&mut self, writes: usize) {
        while self.done < writes {
            let write = self.writes[self.done];
            self.disk[write.offset..][..write.length].copy_from_slice(&write.bytes());
            self.done += 1;
        }
    }
}

/// An image's content; one byte more than the disk has is enough to see that it is too long.
fn read(image: &Path, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size + 1);
    let limit = u64::try_from(size + 1).context("the disk's size")?;
    std::fs::File::open(image)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .with_context(|| format!("could not read {}", image.display()))?;
    Ok(bytes)
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    const PART: usize = 64 << 10;
    let part = a
        .chunks(PART)
        .zip(b.chunks(PART))
        .position(|(a, b)| a != b)?;
    let start = part * PART;
    let within = a[start..].iter().zip(&b[start..]).position(|(a, b)| a != b);
    within.map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Fill, Instant, MIB, Model, Numbers, Verdict, Write};
    use crate::demo::guest;
    use crate::shell::Scratch;

    /// A disk after the guest's first three writes and the first two of these.
    fn image() -> (Scratch, PathBuf, Model, Vec<Write>) {
        let folder = Scratch::new("model").unwrap();
        let mut model = Model::of(vec![0; guest::END + MIB]);
        let mut numbers = Numbers::new(7);
        let writes: Vec<Write> = (0..4)
            .map(|_| Write {
                fill: Fill::Random(numbers.next()),
                ..Write::any(&mut numbers, guest::END + MIB)
            })
            .collect();
        let mut disk = model.disk().to_vec();
        for write in &writes[..2] {
            disk[write.offset..][..write.length].copy_from_slice(&write.bytes());
        }
        (1..=3).for_each(|number| guest::write(&mut disk, number));
        for write in &writes {
            model.record(*write);
        }
        let path = folder.path().join("image");
        std::fs::write(&path, disk).unwrap();
        (folder, path, model, writes)
    }

    fn instant(writes: (usize, usize), guest: (u32, u32)) -> Instant {
        Instant { writes, guest }
    }

    #[test]
    fn a_copy_of_its_instant_is_identical() {
        let (_folder, path, mut model, _) = image();
        assert_eq!(
            model.compare(&path, instant((1, 3), (2, 9))).unwrap(),
            Verdict::Identical {
                writes: 2,
                guest: 3
            }
        );
    }

    #[test]
    fn a_copy_of_another_instant_is_different() {
        for wrong in [
            instant((1, 1), (3, 3)),
            instant((3, 4), (3, 3)),
            instant((2, 2), (1, 2)),
            instant((2, 2), (4, 9)),
        ] {
            let (_folder, path, mut model, _) = image();
            let verdict = model.compare(&path, wrong).unwrap();
            assert!(matches!(verdict, Verdict::Different(_)), "{wrong:?}");
        }
    }

    #[test]
    fn one_wrong_byte_or_a_wrong_length_is_different() {
        let (_folder, path, mut model, _) = image();
        let right = std::fs::read(&path).unwrap();
        let mut wrong = right.clone();
        wrong[guest::END + MIB - 1] ^= 1;
        for bytes in [&wrong, &right[1..], &[&right[..], &[0]].concat()[..]] {
            std::fs::write(&path, bytes).unwrap();
            let verdict = model.compare(&path, instant((2, 2), (3, 3))).unwrap();
            assert!(matches!(verdict, Verdict::Different(_)), "{verdict:?}");
        }
        std::fs::write(&path, right).unwrap();
        let verdict = model.compare(&path, instant((2, 2), (3, 3))).unwrap();
        assert_eq!(
            verdict,
            Verdict::Identical {
                writes: 2,
                guest: 3
            }
        );
    }

    #[test]
    fn a_guests_write_that_is_missing_among_later_ones_is_a_difference() {
        let (_folder, path, mut model, _) = image();
        let mut disk = std::fs::read(&path).unwrap();
        guest::write(&mut disk, 5);
        std::fs::write(&path, disk).unwrap();
        let verdict = model.compare(&path, instant((2, 2), (3, 9))).unwrap();
        assert!(matches!(verdict, Verdict::Different(_)), "{verdict:?}");
    }
}
