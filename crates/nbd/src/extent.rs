//! Extents: runs of an export with one status, and the checks on what a server says about them.
//!
//! The flags of `base:allocation` are proto.md's; those of `qemu:dirty-bitmap:NAME` are in QEMU's
//! `docs/interop/nbd.rst`.

use crate::error::Fault;
use crate::handshake::ExportFacts;
use crate::wire::Descriptor;

/// The context that tells holes and zeroes from data.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// A run of bytes of an export with the same flags in one metadata context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes; never 0 in what this crate returns.
    pub length: u64,
    /// The context's flags; unknown bits are kept.
    pub flags: u64,
}

impl Extent {
    /// In `base:allocation`: not allocated.
    pub const HOLE: u64 = 1 << 0;
    /// In `base:allocation`: reads as zeroes.
    pub const ZERO: u64 = 1 << 1;
    /// In `qemu:dirty-bitmap:NAME`: changed.
    pub const DIRTY: u64 = 1 << 0;

    /// First byte after the extent.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether an extent of `base:allocation` is not allocated. What it reads as is undefined
    /// unless it [is zero](Self::is_zero), too.
    pub fn is_hole(&self) -> bool {
        self.flags & Self::HOLE != 0
    }

    /// Whether an extent of `base:allocation` reads as zeroes.
    pub fn is_zero(&self) -> bool {
        self.flags & Self::ZERO != 0
    }

    /// Whether an extent of `qemu:dirty-bitmap:NAME` has changed.
    pub fn is_dirty(&self) -> bool {
        self.flags & Self::DIRTY != 0
    }
}

/// Turns descriptors that answer a request for `length` bytes at `offset` into extents.
///
/// They must be there, be longer than nothing and a multiple of the minimum block, and all but the
/// last must end before the request does; the last may run past the request, where it is clipped,
/// but not past the export.
pub(crate) fn extents_of(
    descriptors: &[Descriptor],
    offset: u64,
    length: u64,
    facts: &ExportFacts,
) -> Result<Vec<Extent>, Fault> {
    if descriptors.is_empty() {
        return Err(Fault::protocol("the block status has no extents"));
    }
    let (end, export_size) = (offset + length, facts.size);
    let mut extents = Vec::with_capacity(descriptors.len());
    let mut position = offset;
    for descriptor in descriptors {
        if descriptor.length == 0 {
            return Err(Fault::protocol(format!(
                "the block status has an extent of no bytes at {position}"
            )));
        }
        let minimum = u64::from(facts.blocks.minimum);
        if !descriptor.length.is_multiple_of(minimum) {
            return Err(Fault::protocol(format!(
                "the block status has an extent of {} bytes at {position}, no multiple of the server's minimum block of {minimum}",
                descriptor.length
            )));
        }
        if position >= end {
            return Err(Fault::protocol(format!(
                "the block status has an extent at {position}, where the requested range has ended"
            )));
        }
        let next = position.checked_add(descriptor.length).filter(|next| *next <= export_size).ok_or_else(|| {
            Fault::protocol(format!(
                "the block status has an extent of {} bytes at {position}, past the export's end at {export_size}",
                descriptor.length
            ))
        })?;
        extents.push(Extent {
            offset: position,
            length: next.min(end) - position,
            flags: descriptor.flags,
        });
        position = next;
    }
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::BlockSizes;

    fn descriptors(lengths: &[u64]) -> Vec<Descriptor> {
        lengths
            .iter()
            .map(|&length| Descriptor {
                length,
                flags: length & 1,
            })
            .collect()
    }

    fn facts(size: u64) -> ExportFacts {
        ExportFacts {
            size,
            flags: 0,
            blocks: BlockSizes::DEFAULT,
        }
    }

    #[test]
    fn an_extent_past_the_request_is_clipped() {
        let extents = extents_of(&descriptors(&[4, 100]), 10, 10, &facts(1000)).unwrap();
        assert_eq!(
            extents[1],
            Extent {
                offset: 14,
                length: 6,
                flags: 0
            }
        );
    }

    #[test]
    fn a_short_answer_is_kept_short() {
        assert_eq!(
            extents_of(&descriptors(&[4]), 10, 10, &facts(1000))
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn an_extent_past_the_export_is_an_error() {
        assert!(extents_of(&descriptors(&[4, 100]), 10, 10, &facts(113)).is_err());
        assert!(extents_of(&descriptors(&[4, u64::MAX]), 10, 10, &facts(u64::MAX)).is_err());
    }

    #[test]
    fn an_extent_that_begins_after_the_request_is_an_error() {
        assert!(extents_of(&descriptors(&[10, 1]), 10, 10, &facts(1000)).is_err());
    }

    #[test]
    fn an_extent_smaller_than_the_servers_block_is_an_error() {
        let blocks = BlockSizes {
            minimum: 512,
            ..BlockSizes::DEFAULT
        };
        let facts = ExportFacts {
            blocks,
            ..facts(4096)
        };
        assert!(extents_of(&descriptors(&[512]), 0, 4096, &facts).is_ok());
        assert!(extents_of(&descriptors(&[513]), 0, 4096, &facts).is_err());
    }
}
