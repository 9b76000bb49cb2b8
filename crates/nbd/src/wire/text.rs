//! Strings of the protocol.

use crate::limits;

/// A string of the protocol: UTF-8, without NUL, not too long.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    if bytes.len() > limits::MAX_STRING_BYTES || bytes.contains(&0) {
        return None;
    }
    String::from_utf8(bytes.to_vec()).ok()
}

/// Appends a string behind its 32-bit length.
pub(crate) fn put_counted(text: &str, out: &mut Vec<u8>) {
    let length = u32::try_from(text.len()).expect("strings of the protocol are bounded");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A peer's bytes fit to be shown: cut to a sane length, control characters replaced.
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(limits::MAX_STRING_BYTES)])
        .chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// As much of a text as a string of the protocol may hold.
pub(crate) fn cut(text: &str) -> &str {
    let mut end = text.len().min(limits::MAX_STRING_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
