//! Values on their way to Perl and back: each is an object with one key, which says what it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use snapkeep_api::{Error, ErrorKind, Result};

use super::broken;
use crate::limits;

/// An argument of a call.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    Undefined,
    Number(u64),
    Text(String),
    /// A guest's configuration: the only value that callers pass on tainted.
    Configuration(Vec<u8>),
    List(Vec<Arg>),
    Hash(Vec<(String, Arg)>),
    /// A file of this process, by its descriptor's path and its flags.
    File {
        path: String,
        flags: u32,
    },
    /// The sub `next-dirty-region` of a device.
    Regions(String),
}

impl Arg {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A file as the driver opens it: the same file, in the same mode. It has to stay open here
    /// until the call is over.
    pub(crate) fn file(file: &File) -> Result<Self> {
        let flags = rustix::fs::fcntl_getfl(file).map_err(|e| {
            Error::with_source(ErrorKind::Source, "cannot look at a disk's file", e)
        })?;
        let mode = flags & rustix::fs::OFlags::RWMODE;
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let flags = mode.bits();
        Ok(Self::File { path, flags })
    }

    pub(crate) fn json(&self) -> Json {
        match self {
            Self::Undefined => json!({"undefined": 1}),
            Self::Number(number) => json!({"number": number.to_string()}),
            Self::Text(text) => json!({"bytes": encode(text)}),
            Self::Configuration(bytes) => json!({"configuration": encode(bytes)}),
            Self::List(list) => {
                let list: Vec<_> = list.iter().map(Self::json).collect();
                json!({"list": list})
            }
            Self::Hash(pairs) => {
                let pairs = pairs.iter();
                let pairs: Map<_, _> = pairs.map(|(k, v)| (encode(k), v.json())).collect();
                json!({"hash": pairs})
            }
            Self::File { path, flags } => {
                json!({"file": {"path": encode(path), "flags": flags.to_string()}})
            }
            Self::Regions(device) => json!({"regions": encode(device)}),
        }
    }
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// Bytes that the driver told.
pub(crate) fn decode(text: &Json) -> Result<Vec<u8>> {
    let text = text.as_str();
    let bytes = text.and_then(|text| STANDARD.decode(text).ok());
    bytes.ok_or_else(|| broken("the driver told what is no base64"))
}

/// Bytes as text for people: no control characters, not too long.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut line = String::new();
    for c in text.trim_end().chars() {
        if line.len() > limits::ERROR_BYTES_MAX {
            line.push_str(" …");
            break;
        }
        match c {
            '\n' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// What a class returned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Returned {
    Undefined,
    Scalar(Vec<u8>),
    List(Vec<Returned>),
    Hash(BTreeMap<Vec<u8>, Returned>),
}

impl Returned {
    pub(crate) fn parse(told: &Json) -> Result<Self> {
        Self::at_depth(told, 0)
    }

    fn at_depth(told: &Json, depth: usize) -> Result<Self> {
        if depth > limits::VALUE_DEPTH_MAX {
            return Err(broken("a value was returned that is nested too deeply"));
        }
        let pairs = told.as_object();
        let pair = pairs.and_then(|pairs| pairs.iter().next());
        let (kind, value) = pair.ok_or_else(|| broken("the driver told no value"))?;
        match (kind.as_str(), value) {
            ("undefined", _) => Ok(Self::Undefined),
            ("bytes", text) => Ok(Self::Scalar(decode(text)?)),
            ("list", Json::Array(list)) => {
                let list = list.iter().map(|value| Self::at_depth(value, depth + 1));
                Ok(Self::List(list.collect::<Result<_>>()?))
            }
            ("hash", Json::Object(pairs)) => {
                let pairs = pairs.iter().map(|(key, value)| {
                    let key = decode(&Json::String(key.clone()))?;
                    Ok((key, Self::at_depth(value, depth + 1)?))
                });
                Ok(Self::Hash(pairs.collect::<Result<_>>()?))
            }
            _ => Err(broken("the driver told an unknown value")),
        }
    }

    /// A scalar's bytes, if it is one that is defined.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Scalar(bytes) => Some(bytes),
            Self::Undefined | Self::List(_) | Self::Hash(_) => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(crate) fn hash(&self) -> Option<&BTreeMap<Vec<u8>, Returned>> {
        match self {
            Self::Hash(pairs) => Some(pairs),
            Self::Undefined | Self::Scalar(_) | Self::List(_) => None,
        }
    }

    /// A value of a hash, if it is one and has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Returned> {
        self.hash()?.get(key.as_bytes())
    }

    /// What Perl takes for false.
    pub(crate) fn is_false(&self) -> bool {
        match self {
            Self::Undefined => true,
            Self::Scalar(bytes) => bytes.is_empty() || bytes == b"0",
            Self::List(_) | Self::Hash(_) => false,
        }
    }
}
