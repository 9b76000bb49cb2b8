//! Why a pattern cannot be used.

use std::fmt;

use crate::limits;

/// What is wrong with a pattern. Positions count bytes from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    Empty,
    TooLong,
    TooManyParts,
    Nul,
    EscapeAtEnd,
    TwiceNegated,
    /// A class that begins here has no end.
    UnclosedClass(usize),
    /// `[:name:]` with a name nobody knows, `[.x.]` or `[=x=]`.
    UnknownClass(usize),
    /// A range whose end comes before its start: some programs swap them, others match nothing.
    ReversedRange(usize),
    /// To some programs such a class can match a slash, to others never.
    SlashInClass(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::TooLong => write!(f, "it is longer than {} bytes", limits::PATTERN_BYTES_MAX),
            Self::TooManyParts => write!(
                f,
                "it has more than {} parts between slashes",
                limits::PATTERN_PARTS_MAX
            ),
            Self::Nul => f.write_str("it contains a NUL byte"),
            Self::EscapeAtEnd => f.write_str("it ends with a backslash that escapes nothing"),
            Self::TwiceNegated => {
                f.write_str("it begins with `!!`; a name that begins with `!` is written `\\!`")
            }
            Self::UnclosedClass(at) => {
                write!(f, "the class that begins at byte {at} has no `]`")
            }
            Self::UnknownClass(at) => write!(
                f,
                "the named class at byte {at} is unknown; a plain `[` is written `\\[`"
            ),
            Self::ReversedRange(at) => {
                write!(f, "the range at byte {at} ends before it begins")
            }
            Self::SlashInClass(at) => {
                write!(f, "the class that begins at byte {at} contains a slash")
            }
        }
    }
}

/// Bytes of a path or pattern as a message shows them: control characters escaped, what is not
/// UTF-8 replaced, the middle of a very long one left out.
pub(super) fn shown(bytes: &[u8]) -> String {
    let half = limits::SHOWN_BYTES_MAX / 2;
    if bytes.len() > limits::SHOWN_BYTES_MAX {
        let (head, tail) = (&bytes[..half], &bytes[bytes.len() - half..]);
        return format!("{} ... {}", shown(head), shown(tail));
    }
    let mut text = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_one_line_of_bounded_length() {
        assert_eq!(
            shown(b"a\n\x1b[31m\xff\xc3\xa4"),
            "a\\n\\u{1b}[31m\u{fffd}\u{e4}"
        );
        let long = shown(&vec![b'x'; 100_000]);
        assert_eq!(long.len(), limits::SHOWN_BYTES_MAX + " ... ".len());
    }
}
