//! Bracket expressions: `[a-z]`, `[!a]`, `[^a]`, `[[:digit:]]`, `[]x]`, `[\]]`.

use super::fault::Fault;

/// A set of bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Class([u64; 4]);

impl Class {
    /// Reads a class whose `[` is at this index of the pattern; returns it and the index after
    /// its `]`.
    pub(super) fn parse(pattern: &[u8], start: usize) -> Result<(Self, usize), Fault> {
        let begin = start + 1; // as faults count
        let mut at = start + 1;
        let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
        if negated {
            at += 1;
        }
        let mut class = Self([0; 4]);
        let mut first = true;
        loop {
            match pattern.get(at) {
                None => return Err(Fault::UnclosedClass(begin)),
                // As the first of the class it is a member.
                Some(b']') if !first => break,
                Some(b'[') if matches!(pattern.get(at + 1), Some(b':' | b'.' | b'=')) => {
                    let (is_member, next) = named(pattern, at)?;
                    (0..=255)
                        .filter(is_member)
                        .for_each(|byte| class.insert(byte));
                    at = next;
                }
                Some(_) => at = class.parse_range(pattern, at, begin)?,
            }
            first = false;
        }
        if negated {
            class.0 = class.0.map(|word| !word);
        }
        Ok((class, at + 1))
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    /// Takes in a byte, or a range of them, and returns the index after it.
    fn parse_range(&mut self, pattern: &[u8], at: usize, begin: usize) -> Result<usize, Fault> {
        let (low, next) = member(pattern, at, begin)?;
        // A hyphen at the end is a member.
        let is_range = pattern.get(next) == Some(&b'-')
            && pattern.get(next + 1).is_some_and(|&byte| byte != b']');
        let (high, next) = if is_range {
            member(pattern, next + 1, begin)?
        } else {
            (low, next)
        };
        if high < low {
            return Err(Fault::ReversedRange(at + 1));
        }
        (low..=high).for_each(|byte| self.insert(byte));
        Ok(next)
    }
}

/// A byte of a class, maybe escaped, and the index after it.
fn member(pattern: &[u8], at: usize, begin: usize) -> Result<(u8, usize), Fault> {
    let (byte, next) = match (pattern.get(at), pattern.get(at + 1)) {
        (Some(b'\\'), Some(&byte)) => (byte, at + 2),
        (Some(b'['), Some(b':' | b'.' | b'=')) => return Err(Fault::UnknownClass(at + 1)),
        (Some(b'\\'), None) | (None, _) => return Err(Fault::UnclosedClass(begin)),
        (Some(&byte), _) => (byte, at + 1),
    };
    if byte == b'/' {
        return Err(Fault::SlashInClass(begin));
    }
    Ok((byte, next))
}

type IsMember = fn(&u8) -> bool;

/// The members of the named class at this index, and the index after it. As in the C locale.
fn named(pattern: &[u8], at: usize) -> Result<(IsMember, usize), Fault> {
    let rest = &pattern[at..];
    let classes: [(&[u8], IsMember); 12] = [
        (b"[:alnum:]", u8::is_ascii_alphanumeric),
        (b"[:alpha:]", u8::is_ascii_alphabetic),
        (b"[:blank:]", |byte| matches!(byte, b' ' | b'\t')),
        (b"[:cntrl:]", u8::is_ascii_control),
        (b"[:digit:]", u8::is_ascii_digit),
        (b"[:graph:]", u8::is_ascii_graphic),
        (b"[:lower:]", u8::is_ascii_lowercase),
        (b"[:print:]", |byte| matches!(byte, b' '..=b'~')),
        (b"[:punct:]", u8::is_ascii_punctuation),
        // Unlike Rust's, C's has the vertical tab.
        (b"[:space:]", |byte| matches!(byte, b' ' | b'\t'..=b'\r')),
        (b"[:upper:]", u8::is_ascii_uppercase),
        (b"[:xdigit:]", u8::is_ascii_hexdigit),
    ];
    classes
        .into_iter()
        .find(|(name, _)| rest.starts_with(name))
        .map(|(name, is_member)| (is_member, at + name.len()))
        .ok_or(Fault::UnknownClass(at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &[u8]) -> Vec<u8> {
        let (class, end) = Class::parse(text, 0).unwrap();
        assert_eq!(end, text.len());
        (0..=255).filter(|&byte| class.contains(byte)).collect()
    }

    #[test]
    fn brackets_hyphens_and_escapes_are_members_where_posix_says_so() {
        assert_eq!(members(b"[]]"), b"]");
        assert_eq!(members(b"[]-]"), b"-]");
        assert_eq!(members(b"[-a]"), b"-a");
        assert_eq!(members(b"[a-]"), b"-a");
        assert_eq!(members(b"[a-c-e]"), b"-abce");
        assert_eq!(members(b"[\\]\\\\]"), b"\\]");
        assert_eq!(members(b"[\\a-\\c]"), b"abc");
        assert_eq!(members(b"[[]"), b"[");
        assert_eq!(members(b"[a!^]"), b"!^a");
        assert_eq!(members(b"[[:digit:]x-z]"), b"0123456789xyz");
        assert_eq!(members(b"[\xe0-\xe2]"), b"\xe0\xe1\xe2");
        assert_eq!(members(b"[!a]"), members(b"[^a]"));
        assert_eq!(members(b"[!a]").len(), 255);
    }

    #[test]
    fn a_bad_class_is_named_with_its_place() {
        let fault = |text: &[u8]| Class::parse(text, 0).unwrap_err();
        for unclosed in [
            "[",
            "[]",
            "[!",
            "[!]",
            "[a",
            "[a-",
            "[a\\",
            "[[:digit:]",
            "[a-\\",
        ] {
            assert_eq!(
                fault(unclosed.as_bytes()),
                Fault::UnclosedClass(1),
                "{unclosed}"
            );
        }
        assert_eq!(fault(b"[a[:word:]]"), Fault::UnknownClass(3));
        assert_eq!(fault(b"[[.a.]]"), Fault::UnknownClass(2));
        assert_eq!(fault(b"[a-[:digit:]]"), Fault::UnknownClass(4));
        assert_eq!(fault(b"[xz-a]"), Fault::ReversedRange(3));
        assert_eq!(fault(b"[a/b]"), Fault::SlashInClass(1));
        assert_eq!(fault(b"[a\\/b]"), Fault::SlashInClass(1));
    }
}
