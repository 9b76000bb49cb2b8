//! Where nodes, bundles and large files are cut: by what they hold, so that a change moves few
//! cuts. A reader need not know; two writers that cut alike share what they store.

use std::sync::LazyLock;

use crate::limits;

/// 64 random bits for each byte: the same for every repository, as equal data would be no secret
/// to who can see how long chunks are.
static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    let mut stream = blake3::Hasher::new_derive_key("snapkeep 1 cuts").finalize_xof();
    let mut gear = [0; 256];
    for number in &mut gear {
        let mut bytes = [0; 8];
        stream.fill(&mut bytes);
        *number = u64::from_le_bytes(bytes);
    }
    gear
});

/// Up to the normal size one place in 2^21 is a cut, behind it one in 2^19: most chunks are near it.
const MASK_BEFORE: u64 = ((1 << 21) - 1) << 43;
const MASK_BEHIND: u64 = ((1 << 19) - 1) << 45;

/// A number that the last 64 bytes make.
pub(crate) fn fold(bytes: &[u8]) -> u64 {
    let last = &bytes[bytes.len().saturating_sub(64)..];
    last.iter().fold(0, |hash: u64, byte| {
        (hash << 1).wrapping_add(GEAR[usize::from(*byte)])
    })
}

/// Whether an item of this number and length is the last, if on average one in so many bytes is.
fn is_last(number: u64, length: usize, bytes: usize) -> bool {
    number < (u64::MAX / bytes as u64).saturating_mul(length as u64)
}

/// Whether a node of this length ends after an item of this number and length.
pub(crate) fn ends_node(node: usize, number: u64, item: usize) -> bool {
    const EACH: usize = 48 << 10;
    node >= limits::TREE_NODE_MIN && is_last(number, item, EACH)
}

/// Whether a bundle of this length ends after a file of this number and length.
pub(crate) fn ends_bundle(bundle: usize, number: u64, file: usize) -> bool {
    const EACH: usize = 256 << 10;
    bundle >= limits::BUNDLE_TARGET || bundle >= limits::BUNDLE_MIN && is_last(number, file, EACH)
}

/// Cuts the data of a large file.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    length: usize,
    hash: u64,
}

impl Cutter {
    /// How many bytes belong to the chunk that was begun, and whether it ends with them.
    pub(crate) fn take(&mut self, data: &[u8]) -> (usize, bool) {
        let mut taken = limits::CUT_MIN.saturating_sub(self.length).min(data.len());
        self.length += taken;
        let gear = &*GEAR;
        for (mask, until) in [
            (MASK_BEFORE, limits::CUT_NORMAL),
            (MASK_BEHIND, limits::CHUNK_MAX),
        ] {
            let span = until.saturating_sub(self.length).min(data.len() - taken);
            let mut hash = self.hash;
            let found = data[taken..taken + span].iter().position(|byte| {
                hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
                hash & mask == 0
            });
            if let Some(place) = found {
                *self = Self::default();
                return (taken + place + 1, true);
            }
            self.hash = hash;
            self.length += span;
            taken += span;
        }
        let full = self.length == limits::CHUNK_MAX;
        if full {
            *self = Self::default();
        }
        (taken, full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that look random, the same in every run.
    fn stream(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Where chunks end, if the data comes in pieces of this length.
    fn cuts(data: &[u8], piece: usize) -> Vec<usize> {
        let (mut cutter, mut at, mut cuts) = (Cutter::default(), 0, Vec::new());
        for mut piece in data.chunks(piece) {
            while !piece.is_empty() {
                let (taken, ends) = cutter.take(piece);
                piece = &piece[taken..];
                at += taken;
                cuts.extend(ends.then_some(at));
            }
        }
        cuts
    }

    #[test]
    fn the_gear_and_what_it_folds_to_stay_as_they_are() {
        assert_eq!(GEAR[0], 7_991_318_245_390_036_974);
        assert_eq!(GEAR[255], 1_445_696_719_907_158_982);
        assert_eq!(fold(b""), 0);
        assert_eq!(fold(b"name"), 11_198_205_045_208_408_238);
        let long = stream(1000);
        assert_eq!(fold(&long), fold(&long[936..]));
        assert_ne!(fold(&long), fold(&long[960..]));
    }

    #[test]
    fn cuts_stay_where_they_are_however_the_data_comes() {
        let data = stream(12 << 20);
        let found = cuts(&data, data.len());
        let expected = [
            1_176_031, 2_330_990, 4_034_831, 7_753_471, 9_289_613, 10_933_463, 11_458_630,
        ];
        assert_eq!(found, expected);
        for piece in [1000, 65_536, 100_003] {
            assert_eq!(cuts(&data, piece), found);
        }
    }

    #[test]
    fn what_never_changes_is_cut_where_a_chunk_is_full() {
        let data = vec![0; 9 << 20];
        assert_eq!(cuts(&data, 10_000), [4 << 20, 8 << 20]);
    }

    #[test]
    fn chunks_behind_an_insertion_end_where_they_did() {
        let mut data = stream(12 << 20);
        let before = cuts(&data, data.len());
        data.splice(5000..5000, [7; 100]);
        let after = cuts(&data, data.len());
        let moved = |cut: &usize| after.contains(&(cut + 100));
        assert!(before.iter().filter(|cut| moved(cut)).count() + 2 >= before.len());
    }
}
