//! A set of chunks that are in the index, in a bit for each: an index has millions.

use crate::index::Location;

/// Marked chunks, by the pack and the number in it where the index finds them, which stays so.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    chunks: Vec<Vec<u64>>,
    /// Packs of which all chunks are marked, in a bit for each.
    packs: Vec<u64>,
}

impl Marks {
    pub(crate) fn contains(&self, place: &Location) -> bool {
        self.contains_number(place.pack, place.number)
    }

    /// The same of the chunk with this number in this pack.
    pub(crate) fn contains_number(&self, pack: u32, number: u32) -> bool {
        let (pack, word, bit) = bit(pack, number);
        let whole = self.packs.get(pack / 64);
        if whole.is_some_and(|word| word & (1 << (pack % 64)) != 0) {
            return true;
        }
        let words = self.chunks.get(pack);
        words
            .and_then(|words| words.get(word))
            .is_some_and(|word| word & bit != 0)
    }

    pub(crate) fn insert(&mut self, place: &Location) {
        let (pack, word, bit) = bit(place.pack, place.number);
        *grown(grown(&mut self.chunks, pack), word) |= bit;
    }

    pub(crate) fn remove(&mut self, place: &Location) {
        let (pack, word, bit) = bit(place.pack, place.number);
        *grown(grown(&mut self.chunks, pack), word) &= !bit;
    }

    /// Marks all chunks of a pack, for good.
    pub(crate) fn insert_pack(&mut self, pack: u32) {
        let pack = pack as usize;
        *grown(&mut self.packs, pack / 64) |= 1 << (pack % 64);
    }
}

/// A chunk's pack, word and bit.
fn bit(pack: u32, number: u32) -> (usize, usize, u64) {
    let number = number as usize;
    (pack as usize, number / 64, 1 << (number % 64))
}

/// The item with this number, after those that are missing were made.
fn grown<T: Clone + Default>(items: &mut Vec<T>, number: usize) -> &mut T {
    if items.len() <= number {
        items.resize(number + 1, T::default());
    }
    &mut items[number]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(pack: u32, number: u32) -> Location {
        Location {
            number,
            pack,
            offset: 0,
            stored: 0,
            plain: 0,
            compressed: false,
        }
    }

    #[test]
    fn what_was_marked_is_until_it_is_removed() {
        let places = [(0, 0), (0, 63), (0, 64), (3, 65_535), (70, 1)].map(|(p, n)| place(p, n));
        let mut marks = Marks::default();
        for place in &places {
            assert!(!marks.contains(place));
            marks.insert(place);
            marks.insert(place);
        }
        assert!(places.iter().all(|place| marks.contains(place)));
        for other in [(0, 1), (1, 0), (3, 0), (70, 0), (71, 1)] {
            assert!(!marks.contains(&place(other.0, other.1)));
        }
        marks.remove(&places[1]);
        marks.remove(&place(9, 9));
        assert!(!marks.contains(&places[1]) && marks.contains(&places[2]));
        marks.insert_pack(65);
        assert!(marks.contains(&place(65, 7)) && !marks.contains(&place(64, 7)));
    }
}
