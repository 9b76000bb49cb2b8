//! Messages: JSON objects, one on each line.

mod base64;
mod fields;
mod lines;

pub(crate) use base64::{bytes, encode, optional_bytes};
pub(crate) use fields::{flag, number, optional_number};
pub(crate) use lines::{Lines, Received};

use serde::Deserialize;
use serde_json::Value;
use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits;

/// What comes: a call whose arguments nobody looked at yet.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) call: String,
    #[serde(default)]
    pub(crate) args: Value,
}

impl Message {
    /// The call on a line.
    pub(crate) fn parse(line: &[u8]) -> Result<Self> {
        let broken = |why: &str| {
            let what = format!("what came is no call: {why}");
            Error::new(ErrorKind::Protocol, what)
        };
        // What serde says names a place and a type, and may show a piece of what came.
        let message: Self = serde_json::from_slice(line).map_err(|e| {
            let what = "what came is no call";
            Error::with_source(ErrorKind::Protocol, what, e)
        })?;
        if message.id.len() > limits::ID_BYTES_MAX {
            return Err(broken("its id is too long"));
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_call_is_refused() {
        for bad in [
            &b"x"[..],
            b"",
            b"[]",
            b"{}",
            b"{\"id\":1,\"call\":\"hello\"}",
            b"{\"id\":\"1\"}",
            b"{\"id\":\"1\",\"call\":\"\xff\"}",
        ] {
            let error = Message::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
        let long = format!("{{\"id\":\"{}\",\"call\":\"a\"}}", "1".repeat(65));
        assert!(Message::parse(long.as_bytes()).is_err());
        let good = Message::parse(b"{\"call\":\"provider_name\",\"id\":\"7-1\",\"x\":1}").unwrap();
        assert_eq!((&*good.id, &*good.call), ("7-1", "provider_name"));
        assert_eq!(good.args, Value::Null);
    }
}
