//! Numbers and fixed-size messages of the protocol, to and from bytes; no IO, no state.
//!
//! Names follow proto.md without their `NBD_` prefix. All integers are big-endian. Decoders take
//! exactly the bytes of one message and check its magic; what a number means is judged by the
//! state machines in `handshake` and `transmission`.

mod fields;
mod headers;
mod names;
mod status;
mod text;

pub(crate) use fields::Fields;
pub(crate) use headers::{OptionHeader, OptionReplyHeader, ReplyHeader, RequestHeader, Style};
pub(crate) use names::*;
pub(crate) use status::{Descriptor, decode_status, encode_status};
pub(crate) use text::{cut, printable, put_counted, text};
