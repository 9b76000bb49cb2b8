//! The headers of options, requests and replies.

use super::Fields;
use super::names::{
    EXTENDED_REPLY_MAGIC, EXTENDED_REQUEST_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC,
};

/// Which headers both sides agreed on for the transmission phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Style {
    /// Compact requests, simple replies only.
    Simple,
    /// Compact requests, structured replies (simple ones still allowed without payload).
    Structured,
    /// Extended requests and replies only.
    Extended,
}

/// An option as the client sends it, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OptionHeader {
    pub(crate) option: u32,
    pub(crate) length: u32,
}

/// A reply to an option, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OptionReplyHeader {
    pub(crate) option: u32,
    pub(crate) reply: u32,
    pub(crate) length: u32,
}

/// A request of the transmission phase, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestHeader {
    pub(crate) flags: u16,
    pub(crate) command: u16,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
    /// Of the payload or of the effect; compact headers carry 32 bits of it.
    pub(crate) length: u64,
}

/// A reply of the transmission phase, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyHeader {
    Simple {
        error: u32,
        cookie: u64,
    },
    Structured {
        flags: u16,
        kind: u16,
        cookie: u64,
        length: u32,
    },
    Extended {
        flags: u16,
        kind: u16,
        cookie: u64,
        offset: u64,
        length: u64,
    },
}

impl OptionHeader {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        out.extend_from_slice(&self.option.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        if fields.u64()? != OPTION_MAGIC {
            return None;
        }
        Some(Self {
            option: fields.u32()?,
            length: fields.u32()?,
        })
    }
}

impl OptionReplyHeader {
    pub(crate) const BYTES: usize = 20;

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        out.extend_from_slice(&self.option.to_be_bytes());
        out.extend_from_slice(&self.reply.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        if fields.u64()? != OPTION_REPLY_MAGIC {
            return None;
        }
        Some(Self {
            option: fields.u32()?,
            reply: fields.u32()?,
            length: fields.u32()?,
        })
    }
}

impl RequestHeader {
    /// Bytes of a request header in this style.
    pub(crate) fn bytes(style: Style) -> usize {
        match style {
            Style::Simple | Style::Structured => 28,
            Style::Extended => 32,
        }
    }

    /// Appends the header. Fails, leaving `out` alone, if a compact header cannot hold the length.
    pub(crate) fn encode(self, style: Style, out: &mut Vec<u8>) -> Option<()> {
        let compact_length = u32::try_from(self.length);
        let magic = match style {
            Style::Simple | Style::Structured => {
                compact_length.ok()?;
                REQUEST_MAGIC
            }
            Style::Extended => EXTENDED_REQUEST_MAGIC,
        };
        out.extend_from_slice(&magic.to_be_bytes());
        out.extend_from_slice(&self.flags.to_be_bytes());
        out.extend_from_slice(&self.command.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        match (style, compact_length) {
            (Style::Simple | Style::Structured, Ok(length)) => {
                out.extend_from_slice(&length.to_be_bytes());
            }
            _ => out.extend_from_slice(&self.length.to_be_bytes()),
        }
        Some(())
    }

    pub(crate) fn decode(style: Style, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let magic = match style {
            Style::Simple | Style::Structured => REQUEST_MAGIC,
            Style::Extended => EXTENDED_REQUEST_MAGIC,
        };
        if fields.u32()? != magic {
            return None;
        }
        Some(Self {
            flags: fields.u16()?,
            command: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: match style {
                Style::Simple | Style::Structured => u64::from(fields.u32()?),
                Style::Extended => fields.u64()?,
            },
        })
    }
}

impl ReplyHeader {
    /// What must be read before anything about a reply is known: the shortest header of the style.
    pub(crate) fn first_bytes(style: Style) -> usize {
        match style {
            Style::Simple | Style::Structured => 16,
            Style::Extended => 32,
        }
    }

    /// The whole length of the header that starts with this magic, if it is one of this style.
    pub(crate) fn bytes(style: Style, magic: u32) -> Option<usize> {
        match (style, magic) {
            (Style::Simple | Style::Structured, SIMPLE_REPLY_MAGIC) => Some(16),
            (Style::Structured, STRUCTURED_REPLY_MAGIC) => Some(20),
            (Style::Extended, EXTENDED_REPLY_MAGIC) => Some(32),
            _ => None,
        }
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Simple { error, cookie } => {
                out.extend_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
                out.extend_from_slice(&error.to_be_bytes());
                out.extend_from_slice(&cookie.to_be_bytes());
            }
            Self::Structured {
                flags,
                kind,
                cookie,
                length,
            } => {
                out.extend_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
                out.extend_from_slice(&flags.to_be_bytes());
                out.extend_from_slice(&kind.to_be_bytes());
                out.extend_from_slice(&cookie.to_be_bytes());
                out.extend_from_slice(&length.to_be_bytes());
            }
            Self::Extended {
                flags,
                kind,
                cookie,
                offset,
                length,
            } => {
                out.extend_from_slice(&EXTENDED_REPLY_MAGIC.to_be_bytes());
                out.extend_from_slice(&flags.to_be_bytes());
                out.extend_from_slice(&kind.to_be_bytes());
                out.extend_from_slice(&cookie.to_be_bytes());
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
    }

    /// Decodes a complete header of any style.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        match fields.u32()? {
            SIMPLE_REPLY_MAGIC => Some(Self::Simple {
                error: fields.u32()?,
                cookie: fields.u64()?,
            }),
            STRUCTURED_REPLY_MAGIC => Some(Self::Structured {
                flags: fields.u16()?,
                kind: fields.u16()?,
                cookie: fields.u64()?,
                length: fields.u32()?,
            }),
            EXTENDED_REPLY_MAGIC => Some(Self::Extended {
                flags: fields.u16()?,
                kind: fields.u16()?,
                cookie: fields.u64()?,
                offset: fields.u64()?,
                length: fields.u64()?,
            }),
            _ => None,
        }
    }
}
