//! The client's side of the transmission phase: what replies mean and where their data belongs.
//!
//! Every reply is matched with a request in flight, every byte of a read is accounted for exactly
//! once, and nothing is kept for a length that was not checked. Data never passes through here: the
//! machine says where in the export the next bytes of the socket lie, and whoever does the IO reads
//! them there.

use std::mem;

use super::coverage::Coverage;
use crate::error::{Errno, Fault};
use crate::limits;
use crate::wire::{
    CHUNK_DONE, Descriptor, Fields, ReplyHeader, Style, chunk, decode_status, printable,
};

/// What a request was for, as far as its reply is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Read,
    Status,
    /// A command whose reply carries nothing.
    Effect,
}

/// What to do with the next bytes of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Give up to so many to [`Replies::feed`].
    Bytes(usize),
    /// So many are the export's from this offset on: put them there, then tell
    /// [`Replies::data_arrived`].
    Data { offset: u64, length: usize },
}

/// What came of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Offset and length of a part of a read that is zeroes.
    pub(crate) zeroes: Option<(u64, u64)>,
    pub(crate) finished: Option<Finished>,
}

/// The end of the reply to one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) cookie: u64,
    /// The block status by context number, empty for other requests; or the server's error.
    pub(crate) result: Result<Vec<(u32, Vec<Descriptor>)>, Refusal>,
}

/// An error the server answered with. The connection is still in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    pub(crate) message: String,
    /// Where in the export it happened, if the server said so.
    pub(crate) offset: Option<u64>,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Replies {
    style: Style,
    /// Numbers of the contexts that every block status must answer for.
    contexts: Vec<u32>,
    pending: Vec<Pending>,
    state: State,
    buffer: Vec<u8>,
    need: usize,
}

#[derive(Debug)]
struct Pending {
    cookie: u64,
    asked: Asked,
    offset: u64,
    length: u64,
    coverage: Coverage,
    status: Vec<(u32, Vec<Descriptor>)>,
    refusal: Option<Refusal>,
    errors: usize,
}

/// A chunk whose header is known.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    kind: u16,
    cookie: u64,
    done: bool,
    length: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// As much of a header as every reply of the style has.
    First,
    /// The rest of a header.
    Header,
    /// The offset in front of data.
    DataOffset(Chunk),
    /// A payload that is not data.
    Payload(Chunk),
    Data {
        cookie: u64,
        done: bool,
        offset: u64,
        length: usize,
    },
}

impl Replies {
    pub(crate) fn new(style: Style, contexts: Vec<u32>) -> Self {
        let need = ReplyHeader::first_bytes(style);
        Self {
            style,
            contexts,
            pending: Vec::new(),
            state: State::First,
            buffer: Vec::new(),
            need,
        }
    }

    /// Notes a request that is being sent. Its range lies within the export.
    pub(crate) fn expect(&mut self, cookie: u64, asked: Asked, offset: u64, length: u64) {
        debug_assert!(self.pending.len() < limits::MAX_CLIENT_IN_FLIGHT);
        self.pending.push(Pending {
            cookie,
            asked,
            offset,
            length,
            coverage: Coverage::new(offset, length),
            status: Vec::new(),
            refusal: None,
            errors: 0,
        });
    }

    /// Requests without a complete reply.
    pub(crate) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn next(&self) -> Next {
        match self.state {
            State::Data { offset, length, .. } => Next::Data { offset, length },
            State::First | State::Header | State::DataOffset(_) | State::Payload(_) => {
                Next::Bytes((self.need - self.buffer.len()).min(limits::PAYLOAD_STEP_BYTES))
            }
        }
    }

    /// Takes bytes, no more than [`Next::Bytes`] allows.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Progress, Fault> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < self.need {
            return Ok(Progress::default());
        }
        match self.state {
            State::First => self.first(),
            State::Header => self.header(),
            State::DataOffset(chunk) => {
                let offset = Fields::new(&mem::take(&mut self.buffer)).u64().unwrap_or(0);
                self.data(chunk.cookie, chunk.done, offset, chunk.length - 8)?;
                Ok(Progress::default())
            }
            State::Payload(chunk) => {
                let payload = mem::take(&mut self.buffer);
                self.restart();
                self.payload(chunk, &payload)
            }
            State::Data { .. } => Err(Fault::protocol("bytes of data were taken for a header")),
        }
    }

    /// Notes that the first `count` of the bytes named by [`Next::Data`] are in place.
    pub(crate) fn data_arrived(&mut self, count: usize) -> Result<Progress, Fault> {
        if let State::Data {
            cookie,
            done,
            offset,
            length,
        } = &mut self.state
        {
            *length -= count;
            *offset += u64::try_from(count).unwrap_or(u64::MAX);
            if *length == 0 {
                let (cookie, done) = (*cookie, *done);
                self.restart();
                return self.end_of_chunk(cookie, done);
            }
        }
        Ok(Progress::default())
    }

    fn first(&mut self) -> Result<Progress, Fault> {
        let magic = Fields::new(&self.buffer).u32().unwrap_or(0);
        let bytes = ReplyHeader::bytes(self.style, magic).ok_or_else(|| {
            Fault::protocol(format!(
                "a reply begins with {magic:#010x}, which none may here"
            ))
        })?;
        if bytes > self.buffer.len() {
            self.state = State::Header;
            self.need = bytes;
            return Ok(Progress::default());
        }
        self.header()
    }

    fn header(&mut self) -> Result<Progress, Fault> {
        let bytes = mem::take(&mut self.buffer);
        let header = ReplyHeader::decode(&bytes)
            .ok_or_else(|| Fault::protocol("the header of a reply is malformed"))?;
        self.restart();
        match header {
            ReplyHeader::Simple { error, cookie } => self.simple(error, cookie),
            ReplyHeader::Structured {
                flags,
                kind,
                cookie,
                length,
            } => self.chunk(Chunk {
                kind,
                cookie,
                done: flags & CHUNK_DONE != 0,
                length: u64::from(length),
            }),
            ReplyHeader::Extended {
                flags,
                kind,
                cookie,
                offset,
                length,
            } => {
                let asked = self.pending(cookie)?.offset;
                if asked != offset {
                    return Err(Fault::protocol(format!(
                        "the reply to a request at {asked} says it is for {offset}"
                    )));
                }
                self.chunk(Chunk {
                    kind,
                    cookie,
                    done: flags & CHUNK_DONE != 0,
                    length,
                })
            }
        }
    }

    fn simple(&mut self, error: u32, cookie: u64) -> Result<Progress, Fault> {
        let style = self.style;
        let pending = self.pending(cookie)?;
        if pending.asked == Asked::Read && style == Style::Structured {
            return Err(Fault::protocol(
                "a read was answered with a simple reply although structured ones were agreed",
            ));
        }
        if error != 0 {
            pending.refuse(Errno::from_wire(error), String::new(), None)?;
        } else if pending.asked == Asked::Read {
            let (offset, length) = (pending.offset, pending.length);
            self.data(cookie, true, offset, length)?;
            return Ok(Progress::default());
        }
        self.end_of_chunk(cookie, true)
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<Progress, Fault> {
        let style = self.style;
        let asked = self.pending(chunk.cookie)?.asked;
        let (least, most) = match (chunk.kind, asked) {
            (chunk::NONE, _) if chunk.done => (0, 0),
            (chunk::NONE, _) => {
                return Err(Fault::protocol("an empty chunk does not end its reply"));
            }
            (chunk::OFFSET_DATA, Asked::Read) => {
                (9, u64::from(limits::MAX_CLIENT_REQUEST_BYTES) + 8)
            }
            (chunk::OFFSET_HOLE, Asked::Read) => (12, 12),
            (chunk::BLOCK_STATUS, Asked::Status) if style == Style::Structured => {
                (12, 4 + 8 * MAX_DESCRIPTORS)
            }
            (chunk::BLOCK_STATUS_EXT, Asked::Status) if style == Style::Extended => {
                (24, 8 + 16 * MAX_DESCRIPTORS)
            }
            (chunk::ERROR_OFFSET, _) => (14, MAX_ERROR_BYTES),
            (kind, _) if kind & chunk::ERROR_BIT != 0 => (6, MAX_ERROR_BYTES),
            (kind, asked) => {
                return Err(Fault::protocol(format!(
                    "a chunk of type {kind} does not answer {}",
                    asked.name()
                )));
            }
        };
        if chunk.length < least || chunk.length > most {
            return Err(Fault::protocol(format!(
                "a chunk of type {} in the reply to {} has {} bytes, allowed are {least} to {most}",
                chunk.kind,
                asked.name(),
                chunk.length
            )));
        }
        if chunk.length == 0 {
            return self.end_of_chunk(chunk.cookie, chunk.done);
        }
        if chunk.kind == chunk::OFFSET_DATA {
            self.state = State::DataOffset(chunk);
            self.need = 8;
        } else {
            self.state = State::Payload(chunk);
            self.need =
                usize::try_from(chunk.length).expect("a payload that is kept is at most some MiB");
        }
        Ok(Progress::default())
    }

    fn data(&mut self, cookie: u64, done: bool, offset: u64, length: u64) -> Result<(), Fault> {
        self.pending(cookie)?.coverage.add(offset, length)?;
        let length = usize::try_from(length).expect("data lies within a request of some MiB");
        self.state = State::Data {
            cookie,
            done,
            offset,
            length,
        };
        Ok(())
    }

    fn payload(&mut self, chunk: Chunk, payload: &[u8]) -> Result<Progress, Fault> {
        let extended = self.style == Style::Extended;
        let mut zeroes = None;
        match chunk.kind {
            chunk::OFFSET_HOLE => {
                let mut fields = Fields::new(payload);
                let (offset, length) = (
                    fields.u64().unwrap_or(0),
                    u64::from(fields.u32().unwrap_or(0)),
                );
                if length == 0 {
                    return Err(Fault::protocol(
                        "a hole in the reply to a read has no bytes",
                    ));
                }
                self.pending(chunk.cookie)?.coverage.add(offset, length)?;
                zeroes = Some((offset, length));
            }
            chunk::BLOCK_STATUS | chunk::BLOCK_STATUS_EXT => {
                let (context, descriptors) = decode_status(payload, extended)?;
                if !self.contexts.contains(&context) {
                    return Err(Fault::protocol(format!(
                        "a block status is for the unknown context {context}"
                    )));
                }
                let pending = self.pending(chunk.cookie)?;
                if pending.status.iter().any(|(known, _)| *known == context) {
                    return Err(Fault::protocol(format!(
                        "a block status answers twice for the context {context}"
                    )));
                }
                pending.status.push((context, descriptors));
            }
            kind => self.pending(chunk.cookie)?.error_chunk(kind, payload)?,
        }
        let progress = self.end_of_chunk(chunk.cookie, chunk.done)?;
        Ok(Progress { zeroes, ..progress })
    }

    fn end_of_chunk(&mut self, cookie: u64, done: bool) -> Result<Progress, Fault> {
        if !done {
            return Ok(Progress::default());
        }
        let contexts = self.contexts.len();
        let index = self.index(cookie)?;
        let pending = self.pending.swap_remove(index);
        let result = if let Some(refusal) = pending.refusal {
            Err(refusal)
        } else {
            match pending.asked {
                Asked::Read => pending.coverage.check_complete()?,
                Asked::Status if pending.status.len() < contexts => {
                    return Err(Fault::protocol(
                        "a block status lacks one of the contexts agreed on",
                    ));
                }
                Asked::Status | Asked::Effect => {}
            }
            Ok(pending.status)
        };
        Ok(Progress {
            zeroes: None,
            finished: Some(Finished { cookie, result }),
        })
    }

    fn restart(&mut self) {
        self.state = State::First;
        self.need = ReplyHeader::first_bytes(self.style);
    }

    fn pending(&mut self, cookie: u64) -> Result<&mut Pending, Fault> {
        let index = self.index(cookie)?;
        Ok(&mut self.pending[index])
    }

    fn index(&self, cookie: u64) -> Result<usize, Fault> {
        self.pending
            .iter()
            .position(|pending| pending.cookie == cookie)
            .ok_or_else(|| {
                Fault::protocol(format!(
                    "a reply has the cookie {cookie:#x}, which no request in flight has"
                ))
            })
    }
}

impl Pending {
    fn error_chunk(&mut self, kind: u16, payload: &[u8]) -> Result<(), Fault> {
        let broken = || {
            Fault::protocol(format!(
                "an error chunk of {} bytes is malformed",
                payload.len()
            ))
        };
        let mut fields = Fields::new(payload);
        let error = fields.u32().ok_or_else(broken)?;
        let length = usize::from(fields.u16().ok_or_else(broken)?);
        let message = fields.take(length).ok_or_else(broken)?;
        if error == 0 || length > limits::MAX_STRING_BYTES {
            return Err(broken());
        }
        let mut offset = None;
        if kind == chunk::ERROR_OFFSET {
            let at = fields.u64().ok_or_else(broken)?;
            if at < self.offset || at - self.offset >= self.length.max(1) {
                return Err(Fault::protocol(format!(
                    "an error is said to be at {at}, outside its request"
                )));
            }
            offset = Some(at);
        }
        self.refuse(Errno::from_wire(error), printable(message), offset)
    }

    /// Keeps the first error of a reply.
    fn refuse(&mut self, errno: Errno, message: String, offset: Option<u64>) -> Result<(), Fault> {
        self.errors += 1;
        if self.errors > limits::MAX_ERRORS_PER_REPLY {
            return Err(Fault::protocol(
                "the reply to one request holds too many errors",
            ));
        }
        self.refusal.get_or_insert(Refusal {
            errno,
            message,
            offset,
        });
        Ok(())
    }
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "a read",
            Self::Status => "a block-status request",
            Self::Effect => "a request without data in its reply",
        }
    }
}

const MAX_DESCRIPTORS: u64 = limits::MAX_STATUS_DESCRIPTORS as u64;
const MAX_ERROR_BYTES: u64 = limits::MAX_ERROR_PAYLOAD_BYTES as u64;
