//! The handshake phase as two state machines without IO: bytes go in, bytes to send and an outcome
//! come out (proto.md, "Handshake" and "Option types").
//!
//! A [`Machine`] says how many bytes it wants next and never takes more, so whoever does the IO
//! never holds bytes of the phase that follows. How the input is cut into pieces changes nothing.

pub(crate) mod client;
mod inbox;
mod options;
pub(crate) mod server;
#[cfg(test)]
mod tests;

use crate::error::Fault;
use crate::limits;
use crate::wire::{Style, transmit};

use inbox::Inbox;

/// Either side of a handshake.
pub(crate) trait Machine {
    /// How a handshake ends.
    type Outcome;

    /// Treats one message of exactly the length that the inbox waited for.
    fn message(&mut self, message: &[u8]) -> Result<(), Fault>;

    fn inbox(&mut self) -> &mut Inbox;

    /// Bytes to send now; after an error, the last words to the peer.
    fn take_output(&mut self) -> Vec<u8>;

    /// The outcome, once.
    fn take_outcome(&mut self) -> Option<Self::Outcome>;

    /// Bytes still missing from the next message; 0 once there is an outcome.
    fn wants(&mut self) -> usize {
        self.inbox().wants()
    }

    /// Takes at most as many bytes as are wanted off the front of `input`; returns how many.
    fn feed(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let taken = self.inbox().add(input);
        while let Some(message) = self.inbox().take() {
            self.message(&message)?;
        }
        Ok(taken)
    }
}

/// What both sides know about an export once the handshake is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExportFacts {
    pub(crate) size: u64,
    /// Transmission flags.
    pub(crate) flags: u16,
    pub(crate) blocks: BlockSizes,
}

/// Size constraints of an export, in bytes (proto.md, "Size constraints").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths must be multiples of this power of two.
    pub minimum: u32,
    /// Aligned requests of at least this power of two are efficient.
    pub preferred: u32,
    /// Most data that one request may carry in either direction.
    pub maximum: u32,
}

/// What a handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) style: Style,
    pub(crate) facts: ExportFacts,
    /// Chosen metadata contexts: their number on the wire and their name.
    pub(crate) contexts: Vec<(u32, String)>,
}

impl ExportFacts {
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.has(transmit::READ_ONLY)
    }
}

impl BlockSizes {
    /// What holds where a server says nothing.
    pub const DEFAULT: Self = Self {
        minimum: 1,
        preferred: limits::DEFAULT_PREFERRED_BLOCK_BYTES,
        maximum: limits::MAX_PAYLOAD_BYTES,
    };

    fn check(self) -> Result<Self, Fault> {
        let Self {
            minimum,
            preferred,
            maximum,
        } = self;
        let sound = minimum.is_power_of_two()
            && minimum <= limits::MAX_MINIMUM_BLOCK_BYTES
            && preferred.is_power_of_two()
            && preferred >= minimum.max(limits::MIN_PREFERRED_BLOCK_BYTES)
            && maximum >= preferred;
        if sound {
            return Ok(self);
        }
        Err(Fault::protocol(format!(
            "the server's block sizes make no sense: minimum {minimum}, preferred {preferred}, maximum {maximum}"
        )))
    }
}
