//! The protocol by hand: its bytes as proto.md has them, written without the crate's own code, so
//! that a mistake there does not hide itself.

use std::io::{self, Read, Write};

pub(crate) const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");

/// Options.
pub(crate) const EXPORT_NAME: u32 = 1;
pub(crate) const ABORT: u32 = 2;
pub(crate) const LIST: u32 = 3;
pub(crate) const GO: u32 = 7;
pub(crate) const STRUCTURED_REPLY: u32 = 8;
pub(crate) const SET_META_CONTEXT: u32 = 10;
pub(crate) const EXTENDED_HEADERS: u32 = 11;

/// Replies to options.
pub(crate) const REP_ACK: u32 = 1;
pub(crate) const REP_SERVER: u32 = 2;
pub(crate) const REP_INFO: u32 = 3;
pub(crate) const REP_CONTEXT: u32 = 4;
pub(crate) const ERR_UNSUP: u32 = (1 << 31) + 1;
pub(crate) const ERR_POLICY: u32 = (1 << 31) + 2;
pub(crate) const ERR_INVALID: u32 = (1 << 31) + 3;
pub(crate) const ERR_TLS_REQD: u32 = (1 << 31) + 5;
pub(crate) const ERR_UNKNOWN: u32 = (1 << 31) + 6;
pub(crate) const ERR_SHUTDOWN: u32 = (1 << 31) + 7;

/// Commands.
pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const WRITE_ZEROES: u16 = 6;
pub(crate) const BLOCK_STATUS: u16 = 7;

/// Types of chunks.
pub(crate) const NONE: u16 = 0;
pub(crate) const DATA: u16 = 1;
pub(crate) const HOLE: u16 = 2;
pub(crate) const STATUS: u16 = 5;
pub(crate) const STATUS_EXT: u16 = 6;
pub(crate) const ERROR: u16 = (1 << 15) + 1;
pub(crate) const ERROR_OFFSET: u16 = (1 << 15) + 2;

/// Error numbers.
pub(crate) const EPERM: u32 = 1;
pub(crate) const EIO: u32 = 5;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENOSPC: u32 = 28;
pub(crate) const EOVERFLOW: u32 = 75;
pub(crate) const ESHUTDOWN: u32 = 108;

/// The headers of the transmission phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Simple,
    Structured,
    Extended,
}

pub(crate) const STYLES: [Style; 3] = [Style::Simple, Style::Structured, Style::Extended];

/// A request as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) payload: Vec<u8>,
}

/// Concatenates fields.
macro_rules! bytes {
    ($($field:expr),* $(,)?) => {{
        let mut out: Vec<u8> = Vec::new();
        $(out.extend_from_slice(&$crate::raw::Field::field(&$field));)*
        out
    }};
}
pub(crate) use bytes;

/// What a field looks like on the wire.
pub(crate) trait Field {
    fn field(&self) -> Vec<u8>;
}

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Field for $type {
            fn field(&self) -> Vec<u8> {
                self.to_be_bytes().to_vec()
            }
        }
    )*};
}
integers!(u16 u32 u64);

impl Field for &str {
    fn field(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }
}

impl Field for Vec<u8> {
    fn field(&self) -> Vec<u8> {
        self.clone()
    }
}

impl Field for &[u8] {
    fn field(&self) -> Vec<u8> {
        self.to_vec()
    }
}

pub(crate) fn greeting(flags: u16) -> Vec<u8> {
    bytes!["NBDMAGIC", OPTION_MAGIC, flags]
}

pub(crate) fn option(number: u32, data: &[u8]) -> Vec<u8> {
    bytes![
        OPTION_MAGIC,
        number,
        u32::try_from(data.len()).unwrap(),
        data
    ]
}

pub(crate) fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    bytes![0x0003_e889_0455_65a9_u64, option, kind, length, data]
}

pub(crate) fn counted(text: &str) -> Vec<u8> {
    bytes![u32::try_from(text.len()).unwrap(), text]
}

/// The data of `GO` that asks for the block sizes.
pub(crate) fn go(export: &str) -> Vec<u8> {
    bytes![counted(export), 1_u16, 3_u16]
}

pub(crate) fn contexts(export: &str, queries: &[&str]) -> Vec<u8> {
    let mut out = bytes![counted(export), u32::try_from(queries.len()).unwrap()];
    for query in queries {
        out.extend(counted(query));
    }
    out
}

pub(crate) fn request(style: Style, flags: u16, asked: &Request) -> Vec<u8> {
    let Request {
        command,
        cookie,
        offset,
        length,
        payload,
    } = asked;
    match style {
        Style::Extended => {
            let flags = flags | u16::from(*command == WRITE) << 5;
            bytes![
                0x21e4_1c71_u32,
                flags,
                *command,
                *cookie,
                *offset,
                *length,
                payload.clone()
            ]
        }
        Style::Simple | Style::Structured => {
            let length = u32::try_from(*length).unwrap();
            bytes![
                0x2560_9513_u32,
                flags,
                *command,
                *cookie,
                *offset,
                length,
                payload.clone()
            ]
        }
    }
}

pub(crate) fn read_request(reader: &mut impl Read, style: Style) -> io::Result<Request> {
    let extended = style == Style::Extended;
    let mut header = vec![0; if extended { 32 } else { 28 }];
    reader.read_exact(&mut header)?;
    let magic = if extended {
        0x21e4_1c71
    } else {
        0x2560_9513_u32
    };
    assert_eq!(number(&header[..4]), u64::from(magic), "magic of a request");
    let (command, length) = (
        u16::try_from(number(&header[6..8])).unwrap(),
        number(&header[24..]),
    );
    let mut payload = vec![
        0;
        if command == WRITE {
            usize::try_from(length).unwrap()
        } else {
            0
        }
    ];
    reader.read_exact(&mut payload)?;
    Ok(Request {
        command,
        cookie: number(&header[8..16]),
        offset: number(&header[16..24]),
        length,
        payload,
    })
}

/// A big-endian number of up to eight bytes.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

pub(crate) fn simple_reply(error: u32, cookie: u64) -> Vec<u8> {
    bytes![0x6744_6698_u32, error, cookie]
}

/// A chunk that answers a request; `claimed` is the length its header tells.
pub(crate) fn chunk_of(
    style: Style,
    to: &Request,
    done: bool,
    kind: u16,
    claimed: u64,
    payload: &[u8],
) -> Vec<u8> {
    let flags = u16::from(done);
    match style {
        Style::Extended => {
            bytes![
                0x6e8a_278c_u32,
                flags,
                kind,
                to.cookie,
                to.offset,
                claimed,
                payload
            ]
        }
        Style::Simple | Style::Structured => {
            let claimed = u32::try_from(claimed).unwrap();
            bytes![0x668e_33ef_u32, flags, kind, to.cookie, claimed, payload]
        }
    }
}

pub(crate) fn chunk(style: Style, to: &Request, done: bool, kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u64::try_from(payload.len()).unwrap();
    chunk_of(style, to, done, kind, length, payload)
}

/// A status chunk of one context.
pub(crate) fn status(
    style: Style,
    to: &Request,
    done: bool,
    context: u32,
    extents: &[(u64, u64)],
) -> Vec<u8> {
    let mut payload = bytes![context];
    if style == Style::Extended {
        payload.extend(bytes![u32::try_from(extents.len()).unwrap()]);
    }
    for (length, flags) in extents {
        payload.extend(match style {
            Style::Extended => bytes![*length, *flags],
            Style::Simple | Style::Structured => {
                bytes![
                    u32::try_from(*length).unwrap(),
                    u32::try_from(*flags).unwrap()
                ]
            }
        });
    }
    let kind = if style == Style::Extended {
        STATUS_EXT
    } else {
        STATUS
    };
    chunk(style, to, done, kind, &payload)
}

/// An error chunk with a message.
pub(crate) fn error(style: Style, to: &Request, done: bool, errno: u32, message: &str) -> Vec<u8> {
    let payload = bytes![errno, u16::try_from(message.len()).unwrap(), message];
    chunk(style, to, done, ERROR, &payload)
}

/// Reads one option reply: its option, its kind, its data.
pub(crate) fn read_option_reply(reader: &mut impl Read) -> io::Result<(u32, u32, Vec<u8>)> {
    let mut header = [0; 20];
    reader.read_exact(&mut header)?;
    let field = |range: std::ops::Range<usize>| u32::try_from(number(&header[range])).unwrap();
    let mut data = vec![0; usize::try_from(field(16..20)).unwrap()];
    reader.read_exact(&mut data)?;
    Ok((field(8..12), field(12..16), data))
}

/// Reads one reply without fragments: its error (0 for none) and its data.
pub(crate) fn read_reply(
    reader: &mut impl Read,
    style: Style,
    read: usize,
) -> io::Result<(u64, u32, Vec<u8>)> {
    if style == Style::Simple {
        let mut header = [0; 16];
        reader.read_exact(&mut header)?;
        let error = u32::try_from(number(&header[4..8])).unwrap();
        let mut data = vec![0; if error == 0 { read } else { 0 }];
        reader.read_exact(&mut data)?;
        return Ok((number(&header[8..16]), error, data));
    }
    let mut header = vec![0; if style == Style::Extended { 32 } else { 20 }];
    reader.read_exact(&mut header)?;
    let kind = u16::try_from(number(&header[6..8])).unwrap();
    let length = number(
        &header[if style == Style::Extended {
            24..32
        } else {
            16..20
        }],
    );
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    reader.read_exact(&mut payload)?;
    let cookie = number(&header[8..16]);
    Ok(match kind {
        DATA => (cookie, 0, payload[8..].to_vec()),
        kind if kind & 1 << 15 != 0 => (
            cookie,
            u32::try_from(number(&payload[..4])).unwrap(),
            Vec::new(),
        ),
        _ => (cookie, 0, payload),
    })
}

/// Sends everything; a peer that is gone is no failure of the test.
pub(crate) fn send(writer: &mut impl Write, bytes: &[u8]) {
    writer.write_all(bytes).ok();
}
