//! The kinds of messages, and how long each may be.

use super::fields::Fault;
use crate::limits;

/// What a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Hello,
    Batch,
    Enter,
    Leave,
    Entry,
    Data,
    Hole,
    End,
    Lost,
    Problem,
    KeepAlive,
    Done,
    Fatal,
    Request,
    Answers,
}

/// The beginning of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    /// What it is.
    pub(crate) kind: Kind,
    /// Bytes that follow, no more than the kind may have.
    pub(crate) length: usize,
}

const KINDS: [Kind; 15] = [
    Kind::Hello,
    Kind::Batch,
    Kind::Enter,
    Kind::Leave,
    Kind::Entry,
    Kind::Data,
    Kind::Hole,
    Kind::End,
    Kind::Lost,
    Kind::Problem,
    Kind::KeepAlive,
    Kind::Done,
    Kind::Fatal,
    Kind::Request,
    Kind::Answers,
];

impl Kind {
    /// Its number on the wire.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Batch => 2,
            Self::Enter => 3,
            Self::Leave => 4,
            Self::Entry => 5,
            Self::Data => 6,
            Self::Hole => 7,
            Self::End => 8,
            Self::Lost => 9,
            Self::Problem => 10,
            Self::KeepAlive => 11,
            Self::Done => 12,
            Self::Fatal => 13,
            Self::Request => 14,
            Self::Answers => 15,
        }
    }

    /// The longest payload.
    pub(crate) fn longest(self) -> usize {
        match self {
            Self::Leave | Self::KeepAlive | Self::Done => 0,
            Self::Hello | Self::Hole => 16,
            Self::Batch => limits::BATCH_BYTES_MAX,
            Self::Enter | Self::Entry => limits::TOLD_BYTES_MAX,
            Self::Data => limits::DATA_BYTES_MAX,
            Self::End | Self::Lost | Self::Problem | Self::Fatal => limits::TEXT_BYTES_MAX,
            Self::Request => limits::REQUEST_BYTES_MAX,
            Self::Answers => limits::BATCH_MAX,
        }
    }
}

/// Reads a message's beginning.
pub(crate) fn header(bytes: [u8; limits::HEADER_BYTES]) -> Result<Header, Fault> {
    let [a, b, c, d, number] = bytes;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let kind = KINDS.into_iter().find(|kind| kind.number() == number);
    let kind = kind.ok_or(Fault("a message is of no known kind"))?;
    if length > kind.longest() {
        return Err(Fault("a message is longer than its kind may be"));
    }
    if kind == Kind::Data && length == 0 {
        return Err(Fault("a piece of content is empty"));
    }
    Ok(Header { kind, length })
}
