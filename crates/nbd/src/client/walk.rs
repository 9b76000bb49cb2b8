//! Walking the extents of a range.

use std::ops::Deref;
use std::vec;

use super::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::extent::Extent;
use crate::limits;

/// The extents of a range in one metadata context, in order; see [`Client::extents`].
///
/// Neighbours have been joined: an extent is given out once the next one's flags differ.
#[derive(Debug)]
pub struct Extents<C> {
    client: C,
    context: String,
    start: u64,
    /// Where the next call begins.
    position: u64,
    end: u64,
    calls: u64,
    answered: vec::IntoIter<Extent>,
    /// Grows while its neighbours have the same flags.
    current: Option<Extent>,
    failed: bool,
}

impl<C: Deref<Target = Client>> Extents<C> {
    pub(super) fn new(client: C, context: &str, offset: u64, length: u64) -> Self {
        Self {
            client,
            context: context.to_owned(),
            start: offset,
            position: offset,
            // A range that overflows is past the export's end and fails at the first call.
            end: offset.saturating_add(length),
            calls: 0,
            answered: Vec::new().into_iter(),
            current: None,
            failed: false,
        }
    }

    /// The next extent as the server cut it; `None` at the end of the range.
    fn answer(&mut self) -> Result<Option<Extent>> {
        if let Some(extent) = self.answered.next() {
            return Ok(Some(extent));
        }
        if self.position >= self.end {
            return Ok(None);
        }
        self.calls += 1;
        let covered = self.position - self.start;
        if self.calls > limits::FREE_STATUS_CALLS + covered / limits::MIN_BYTES_PER_STATUS_CALL {
            let message = format!(
                "reading the block status of {}: {} answers cover only {covered} bytes",
                self.client.name,
                self.calls - 1
            );
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        let extents =
            self.client
                .block_status(&self.context, self.position, self.end - self.position)?;
        // There is at least one, and they are contiguous from the position on.
        self.position = extents.last().map_or(self.end, Extent::end);
        self.answered = extents.into_iter();
        Ok(self.answered.next())
    }
}

impl<C: Deref<Target = Client>> Iterator for Extents<C> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        loop {
            match self.answer() {
                Ok(Some(extent)) => match &mut self.current {
                    Some(current) if current.flags == extent.flags => {
                        current.length += extent.length;
                    }
                    current => {
                        if let Some(complete) = current.replace(extent) {
                            return Some(Ok(complete));
                        }
                    }
                },
                Ok(None) => return self.current.take().map(Ok),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
