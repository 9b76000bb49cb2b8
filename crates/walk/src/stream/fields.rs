//! Numbers and bytes within a message.

use snapkeep_api::tree::Timestamp;

use crate::limits;

/// What is wrong with what the peer sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Fault(pub(crate) &'static str);

const SHORT: Fault = Fault("a message is shorter than what it says");

/// Reads a message's fields in order.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes with their length before them.
    pub(crate) fn long(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.u32()?).map_err(|_| SHORT)?;
        self.bytes(length)
    }

    /// The same for at most 255.
    pub(crate) fn short(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::from(self.u8()?);
        self.bytes(length)
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, Fault> {
        let seconds = self.array().map(i64::from_le_bytes)?;
        let nanos = self.u32()?;
        if nanos > 999_999_999 {
            return Err(Fault("a time has more nanoseconds than a second"));
        }
        Ok(Timestamp { seconds, nanos })
    }

    /// Text for people, on one line whatever is in it.
    pub(crate) fn text(&mut self) -> Result<String, Fault> {
        let text = self.long()?;
        if text.len() > limits::WHY_BYTES_MAX {
            return Err(Fault("a reason is too long"));
        }
        let mut line = String::new();
        for character in String::from_utf8_lossy(text).chars() {
            if character.is_control() {
                line.extend(character.escape_default());
            } else {
                line.push(character);
            }
        }
        Ok(line)
    }

    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn end(self) -> Result<(), Fault> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Fault("a message is longer than what it says"))
    }
}

pub(super) fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend(time.seconds.to_le_bytes());
    out.extend(time.nanos.to_le_bytes());
}

/// What is longer cannot be told: the receiver would refuse the message for its length.
pub(super) fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(bytes);
}

/// As [`put_long`], for at most 255 bytes.
pub(super) fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend(bytes);
}
