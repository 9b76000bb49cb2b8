//! Byte ranges of a volume.

use std::num::NonZeroU64;

use crate::{Error, ErrorKind, Result};

/// A non-empty byte range that does not wrap around.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Region {
    offset: u64,
    length: NonZeroU64,
}

impl Region {
    /// The range of `length` bytes from `offset`; an error if it is empty or wraps around.
    pub fn new(offset: u64, length: u64) -> Result<Self> {
        let invalid = || {
            Error::new(
                ErrorKind::Protocol,
                format!("a region of {length} bytes at offset {offset} is not a range"),
            )
        };
        let length = NonZeroU64::new(length).ok_or_else(invalid)?;
        offset.checked_add(length.get()).ok_or_else(invalid)?;
        Ok(Self { offset, length })
    }

    /// First byte.
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// Number of bytes, at least one.
    pub fn length(self) -> u64 {
        self.length.get()
    }

    /// The byte after the last.
    pub fn end(self) -> u64 {
        self.offset + self.length.get()
    }
}
