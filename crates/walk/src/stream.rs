//! What a walker and the privileged process say to each other, as bytes. Nothing here does IO.
//!
//! A message is its payload's length (32 bits, little endian as all numbers), its kind (a byte) and
//! its payload. A length is checked against what its kind may have before anything is allocated.
//!
//! ```text
//! walker                              privileged process
//! Hello ────────────────────────────▶
//!       ◀──────────────────────────── Request
//! Enter ────────────────────────────▶  the root
//! Batch ────────────────────────────▶  some entries of the folder, the last of them may be a folder
//!       ◀──────────────────────────── Answers, as many
//! Entry, (Data, Hole)…, End or Lost ▶
//! Enter … Leave ────────────────────▶
//! Leave, Done ──────────────────────▶
//! ```
//!
//! `Problem` may come wherever a step may, `KeepAlive` anywhere, `Fatal` instead of anything. The
//! first message has the version: both sides are the same program, so there is no negotiation.

mod decode;
mod encode;
mod fields;
mod kind;
mod request;

pub(crate) use decode::{Message, Sent, decode};
pub(crate) use encode::{Telling, batch, empty, hello, hole, problem, text, told};
pub(crate) use fields::Fault;
pub(crate) use kind::{Header, Kind, header};
pub use request::Request;
pub(crate) use request::{Wish, answers, decode_answers, decode_request, encode_request};

/// The version of this protocol.
pub(crate) const VERSION: u16 = 1;

#[cfg(test)]
mod tests;
