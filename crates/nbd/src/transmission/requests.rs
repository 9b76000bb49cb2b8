//! The server's side of the transmission phase: what a request asks for, whether it may, and the
//! bytes of the replies.

use crate::error::{Errno, Fault};
use crate::handshake::Agreed;
use crate::limits;
use crate::wire::{
    CHUNK_DONE, Descriptor, ReplyHeader, RequestHeader, Style, chunk, command, command_flag, cut,
    encode_status, transmit,
};

/// A request that has been judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    /// Of the effect; for an accepted request that moves data it is at most
    /// [`limits::MAX_PAYLOAD_BYTES`].
    pub(crate) length: u64,
    /// Bytes of payload that follow on the wire, whatever the verdict.
    pub(crate) payload: u64,
    /// What to do, or the error to answer with.
    pub(crate) verdict: Result<Command, Errno>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read,
    Write { durable: bool },
    Disconnect,
    Flush,
    Trim { durable: bool },
    WriteZeroes { durable: bool, may_punch: bool },
    BlockStatus { one: bool },
}

impl Request {
    /// Judges a request. `Err` means that the stream cannot be followed any more.
    pub(crate) fn judge(header: RequestHeader, agreed: &Agreed) -> Result<Self, Fault> {
        let RequestHeader {
            flags,
            command,
            cookie,
            offset,
            length,
        } = header;
        // The flag exists with extended headers only. A write has a payload even without it: QEMU's
        // client (10.0) never sets it, and its own server, like any that means to serve it, reads on.
        let is_flagged = agreed.style == Style::Extended && flags & command_flag::PAYLOAD_LEN != 0;
        let is_write = command == command::WRITE;
        let payload = if is_flagged || is_write { length } else { 0 };
        if payload > u64::from(limits::MAX_PAYLOAD_BYTES) {
            return Err(Fault::protocol(format!(
                "the client sends a payload of {payload} bytes"
            )));
        }
        let verdict = if is_flagged && !is_write {
            Err(Errno::Invalid)
        } else {
            let known = if is_flagged {
                command_flag::PAYLOAD_LEN
            } else {
                0
            };
            command_of(command, flags & !known, agreed).and_then(|command| {
                check(command, offset, length, agreed)?;
                Ok(command)
            })
        };
        Ok(Self {
            cookie,
            offset,
            length,
            payload,
            verdict,
        })
    }

    /// Bytes that answering holds in memory, about.
    pub(crate) fn data_bytes(&self) -> u64 {
        match self.verdict {
            Ok(Command::Read | Command::Write { .. }) => self.length,
            Ok(Command::BlockStatus { .. }) => limits::STATUS_WORK_BYTES,
            Ok(_) | Err(_) => 0,
        }
    }
}

fn command_of(command: u16, flags: u16, agreed: &Agreed) -> Result<Command, Errno> {
    let fua = if agreed.facts.has(transmit::SEND_FUA) {
        command_flag::FUA
    } else {
        0
    };
    let durable = flags & command_flag::FUA != 0;
    // proto.md: with FUA agreed on, the flag is to be accepted with every command.
    let (allowed, command) = match command {
        command::READ => {
            let df = if agreed.facts.has(transmit::SEND_DF) {
                command_flag::DF
            } else {
                0
            };
            (df, Command::Read)
        }
        command::WRITE => (0, Command::Write { durable }),
        command::DISC => (0, Command::Disconnect),
        command::FLUSH => (0, Command::Flush),
        command::TRIM => (0, Command::Trim { durable }),
        command::WRITE_ZEROES => {
            let may_punch = flags & command_flag::NO_HOLE == 0;
            (
                command_flag::NO_HOLE,
                Command::WriteZeroes { durable, may_punch },
            )
        }
        command::BLOCK_STATUS => (
            command_flag::REQ_ONE,
            Command::BlockStatus {
                one: flags & command_flag::REQ_ONE != 0,
            },
        ),
        _ => return Err(Errno::Invalid),
    };
    if flags & !(allowed | fua) != 0 {
        return Err(Errno::Invalid);
    }
    Ok(command)
}

fn check(command: Command, offset: u64, length: u64, agreed: &Agreed) -> Result<(), Errno> {
    let facts = &agreed.facts;
    let inside = offset
        .checked_add(length)
        .is_some_and(|end| end <= facts.size);
    let moves_too_much = length > u64::from(limits::MAX_PAYLOAD_BYTES);
    match command {
        Command::Disconnect => Ok(()),
        // proto.md: the client may try again with less.
        Command::Read if inside && moves_too_much => Err(Errno::Overflow),
        Command::Flush if facts.has(transmit::SEND_FLUSH) => Ok(()),
        Command::BlockStatus { .. } if inside && length > 0 && !agreed.contexts.is_empty() => {
            Ok(())
        }
        Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. }
            if facts.is_read_only() =>
        {
            Err(Errno::Permission)
        }
        Command::Read | Command::Write { .. } | Command::WriteZeroes { .. } if inside => Ok(()),
        Command::Write { .. } | Command::WriteZeroes { .. } => Err(Errno::NoSpace),
        Command::Trim { .. } if inside && facts.has(transmit::SEND_TRIM) => Ok(()),
        Command::Flush | Command::Read | Command::BlockStatus { .. } | Command::Trim { .. } => {
            Err(Errno::Invalid)
        }
    }
}

/// The bytes in front of the data that answers a read; the data follows at once and ends the reply.
pub(crate) fn read_head(style: Style, request: &Request) -> Vec<u8> {
    if style == Style::Simple || request.length == 0 {
        return success(style, request);
    }
    let mut out = Vec::with_capacity(40);
    put_chunk_header(
        style,
        request,
        CHUNK_DONE,
        chunk::OFFSET_DATA,
        8 + request.length,
        &mut out,
    );
    out.extend_from_slice(&request.offset.to_be_bytes());
    out
}

/// The reply to a request that succeeded and has nothing to say.
pub(crate) fn success(style: Style, request: &Request) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    match style {
        Style::Simple => ReplyHeader::Simple {
            error: 0,
            cookie: request.cookie,
        }
        .encode(&mut out),
        Style::Structured | Style::Extended => {
            put_chunk_header(style, request, CHUNK_DONE, chunk::NONE, 0, &mut out);
        }
    }
    out
}

/// The reply to a request that failed.
pub(crate) fn failure(style: Style, request: &Request, errno: Errno, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    match style {
        Style::Simple => {
            ReplyHeader::Simple {
                error: errno.to_wire(),
                cookie: request.cookie,
            }
            .encode(&mut out);
        }
        Style::Structured | Style::Extended => {
            let message = cut(message);
            let length = u16::try_from(message.len()).expect("it was cut to a length that fits");
            put_chunk_header(
                style,
                request,
                CHUNK_DONE,
                chunk::ERROR,
                6 + u64::from(length),
                &mut out,
            );
            out.extend_from_slice(&errno.to_wire().to_be_bytes());
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(message.as_bytes());
        }
    }
    out
}

/// The reply to a block-status request: one chunk for each context.
pub(crate) fn status(
    style: Style,
    request: &Request,
    contexts: &[(u32, Vec<Descriptor>)],
) -> Vec<u8> {
    let extended = style == Style::Extended;
    let kind = if extended {
        chunk::BLOCK_STATUS_EXT
    } else {
        chunk::BLOCK_STATUS
    };
    let mut out = Vec::new();
    for (index, (context, descriptors)) in contexts.iter().enumerate() {
        let mut payload = Vec::new();
        encode_status(*context, descriptors, extended, &mut payload);
        let flags = if index + 1 == contexts.len() {
            CHUNK_DONE
        } else {
            0
        };
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        put_chunk_header(style, request, flags, kind, length, &mut out);
        out.extend_from_slice(&payload);
    }
    out
}

fn put_chunk_header(
    style: Style,
    request: &Request,
    flags: u16,
    kind: u16,
    length: u64,
    out: &mut Vec<u8>,
) {
    let Request { cookie, offset, .. } = *request;
    if style == Style::Extended {
        ReplyHeader::Extended {
            flags,
            kind,
            cookie,
            offset,
            length,
        }
        .encode(out);
    } else {
        let length = u32::try_from(length).expect("chunks of this server are a few MiB at most");
        ReplyHeader::Structured {
            flags,
            kind,
            cookie,
            length,
        }
        .encode(out);
    }
}
