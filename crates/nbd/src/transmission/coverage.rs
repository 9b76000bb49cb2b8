//! Which bytes of a read have arrived: each exactly once.

use crate::error::Fault;
use crate::limits;

/// The pieces of one read that have arrived, ordered, disjoint, and not touching each other.
#[derive(Debug)]
pub(super) struct Coverage {
    start: u64,
    end: u64,
    pieces: Vec<(u64, u64)>,
}

impl Coverage {
    /// Of a read of `length` bytes at `offset`; the caller has checked that the sum fits.
    pub(super) fn new(offset: u64, length: u64) -> Self {
        Self {
            start: offset,
            end: offset + length,
            pieces: Vec::new(),
        }
    }

    /// Notes that `length` bytes at `offset` are about to arrive.
    pub(super) fn add(&mut self, offset: u64, length: u64) -> Result<(), Fault> {
        let end = offset
            .checked_add(length)
            .filter(|end| offset >= self.start && *end <= self.end)
            .ok_or_else(|| {
                Fault::protocol(format!(
                    "the reply to a read of {}..{} holds {length} bytes at {offset}, outside it",
                    self.start, self.end
                ))
            })?;
        let after = self.pieces.partition_point(|piece| piece.0 < offset);
        let overlaps_before = after > 0 && self.pieces[after - 1].1 > offset;
        let overlaps_after = self.pieces.get(after).is_some_and(|piece| piece.0 < end);
        if overlaps_before || overlaps_after {
            return Err(Fault::protocol(format!(
                "the reply to a read holds bytes of {offset}..{end} twice"
            )));
        }
        let joins_before = after > 0 && self.pieces[after - 1].1 == offset;
        let joins_after = self.pieces.get(after).is_some_and(|piece| piece.0 == end);
        match (joins_before, joins_after) {
            (true, true) => self.pieces[after - 1].1 = self.pieces.remove(after).1,
            (true, false) => self.pieces[after - 1].1 = end,
            (false, true) => self.pieces[after].0 = offset,
            (false, false) if self.pieces.len() < limits::MAX_READ_PIECES => {
                self.pieces.insert(after, (offset, end));
            }
            (false, false) => {
                return Err(Fault::protocol(format!(
                    "the reply to a read is scattered into more than {} pieces",
                    limits::MAX_READ_PIECES
                )));
            }
        }
        Ok(())
    }

    /// Fails with the first gap.
    pub(super) fn check_complete(&self) -> Result<(), Fault> {
        let first = self.pieces.first().copied();
        let (start, end) = first.unwrap_or((self.end, self.end));
        if start > self.start {
            return Err(self.gap(self.start, start));
        }
        if end < self.end {
            return Err(self.gap(end, self.pieces.get(1).map_or(self.end, |piece| piece.0)));
        }
        Ok(())
    }

    fn gap(&self, from: u64, to: u64) -> Fault {
        Fault::protocol(format!(
            "the reply to a read of {}..{} ended without {from}..{to}",
            self.start, self.end
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scattered_bytes_are_bounded() {
        let mut coverage = Coverage::new(0, 1 << 30);
        let result = (0..)
            .step_by(2)
            .take(limits::MAX_READ_PIECES + 1)
            .try_for_each(|offset| coverage.add(offset, 1));
        assert!(result.unwrap_err().message.contains("scattered"));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_bitset(adds in prop::collection::vec((0u64..70, 1u64..20), 0..30)) {
            let mut coverage = Coverage::new(4, 60);
            let mut model = [false; 100];
            for (offset, length) in adds {
                let range = usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap();
                let fits = offset >= 4 && offset + length <= 64 && !model[range.clone()].contains(&true);
                prop_assert_eq!(coverage.add(offset, length).is_ok(), fits);
                if fits {
                    model[range].fill(true);
                }
                prop_assert_eq!(coverage.check_complete().is_ok(), !model[4..64].contains(&false));
            }
        }
    }
}
