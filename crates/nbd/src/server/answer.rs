//! Answering one request from an export.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::status::{Wanted, describe};
use super::{Export, ExportError, Shared};
use crate::error::Errno;
use crate::handshake::Agreed;
use crate::transmission::requests::{self, Command, Request};

/// What answering needs.
pub(super) struct Answers<'a> {
    pub(super) export: &'a dyn Export,
    pub(super) agreed: &'a Agreed,
    pub(super) shared: &'a Shared,
    /// Client and export, for the log.
    pub(super) who: &'a str,
}

impl Answers<'_> {
    /// The reply's bytes, and how many of the buffer's bytes follow them.
    pub(super) fn answer(
        &self,
        request: &Request,
        payload: &[u8],
        buffer: &mut Vec<u8>,
    ) -> (Vec<u8>, usize) {
        let style = self.agreed.style;
        let command = match request.verdict {
            Ok(command) => command,
            Err(errno) => {
                return (
                    requests::failure(style, request, errno, "the request is not allowed"),
                    0,
                );
            }
        };
        // An export that panics fails this request, not the server.
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.perform(command, request, payload, buffer)
        }));
        let result =
            result.unwrap_or_else(|_| Err(ExportError::new(Errno::Io, "the export panicked")));
        result.unwrap_or_else(|error| {
            let Request { offset, length, .. } = request;
            self.shared.log(
                self.who,
                &format!("{command:?} of {length} bytes at {offset} fails: {error}"),
            );
            (
                requests::failure(style, request, error.errno, &error.message),
                0,
            )
        })
    }

    fn perform(
        &self,
        command: Command,
        request: &Request,
        payload: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(Vec<u8>, usize), ExportError> {
        let Request { offset, length, .. } = *request;
        let style = self.agreed.style;
        let flush = |durable| if durable { self.export.flush() } else { Ok(()) };
        match command {
            Command::Read => {
                let length =
                    usize::try_from(length).expect("reads are bounded by the largest payload");
                if buffer.len() < length {
                    buffer.resize(length, 0);
                }
                self.export.read_at(offset, &mut buffer[..length])?;
                return Ok((requests::read_head(style, request), length));
            }
            Command::BlockStatus { one } => {
                let size = self.agreed.facts.size;
                let coalesce_bytes = self.shared.options.coalesce_bytes;
                let mut answered = Vec::with_capacity(self.agreed.contexts.len());
                for (number, context) in &self.agreed.contexts {
                    let wanted = Wanted {
                        size,
                        context,
                        offset,
                        length,
                        one,
                        coalesce_bytes,
                    };
                    answered.push((*number, describe(self.export, wanted)?));
                }
                return Ok((requests::status(style, request, &answered), 0));
            }
            Command::Write { durable } => {
                self.export.write_at(offset, payload)?;
                flush(durable)?;
            }
            Command::WriteZeroes { durable, may_punch } => {
                self.export.write_zeroes(offset, length, may_punch)?;
                flush(durable)?;
            }
            Command::Trim { durable } => {
                self.export.trim(offset, length)?;
                flush(durable)?;
            }
            Command::Flush => self.export.flush()?,
            Command::Disconnect => {}
        }
        Ok((requests::success(style, request), 0))
    }
}
