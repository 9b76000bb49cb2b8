//! The data of options and of the replies to them, to and from bytes.

use crate::limits;
use crate::wire::{Fields, OptionHeader, OptionReplyHeader, info, put_counted, reply, text};

/// Data of `GO` and `INFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GoRequest {
    pub(crate) export: String,
    pub(crate) infos: Vec<u16>,
}

/// Data of `SET_META_CONTEXT` and `LIST_META_CONTEXT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContextRequest {
    pub(crate) export: String,
    pub(crate) queries: Vec<String>,
}

impl GoRequest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_counted(&self.export, &mut out);
        out.extend_from_slice(
            &u16::try_from(self.infos.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes(),
        );
        for kind in &self.infos {
            out.extend_from_slice(&kind.to_be_bytes());
        }
        out
    }

    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(data);
        let export = text(fields.counted()?)?;
        let count = usize::from(fields.u16()?);
        if count > limits::MAX_INFO_REQUESTS {
            return None;
        }
        let infos = (0..count).map(|_| fields.u16()).collect::<Option<_>>()?;
        fields.is_empty().then_some(Self { export, infos })
    }
}

impl ContextRequest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_counted(&self.export, &mut out);
        out.extend_from_slice(
            &u32::try_from(self.queries.len())
                .unwrap_or(u32::MAX)
                .to_be_bytes(),
        );
        for query in &self.queries {
            put_counted(query, &mut out);
        }
        out
    }

    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(data);
        let export = text(fields.counted()?)?;
        let count = usize::try_from(fields.u32()?).ok()?;
        if count > limits::MAX_CONTEXT_QUERIES {
            return None;
        }
        let queries = (0..count)
            .map(|_| text(fields.counted()?))
            .collect::<Option<_>>()?;
        fields.is_empty().then_some(Self { export, queries })
    }
}

/// Appends a whole option.
pub(crate) fn put_option(option: u32, data: &[u8], out: &mut Vec<u8>) {
    let length =
        u32::try_from(data.len()).expect("option data is bounded by the limits on strings");
    OptionHeader { option, length }.encode(out);
    out.extend_from_slice(data);
}

/// Appends a whole reply to an option.
pub(crate) fn put_reply(option: u32, reply: u32, data: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(data.len()).expect("reply data is bounded by the limits on strings");
    OptionReplyHeader {
        option,
        reply,
        length,
    }
    .encode(out);
    out.extend_from_slice(data);
}

/// Appends an `INFO` reply.
pub(crate) fn put_info(option: u32, kind: u16, data: &[u8], out: &mut Vec<u8>) {
    let mut whole = kind.to_be_bytes().to_vec();
    whole.extend_from_slice(data);
    put_reply(option, reply::INFO, &whole, out);
}

/// The information a client asks for.
pub(crate) const WANTED_INFO: [u16; 1] = [info::BLOCK_SIZE];
