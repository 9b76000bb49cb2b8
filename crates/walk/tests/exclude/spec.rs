//! Patterns as a model knows them, before they are text, and the simplest matcher there can be: it
//! holds a pattern against a whole path and tries everything.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// A pattern.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) includes: bool,
    pub(crate) anchored: bool,
    pub(crate) parts: Vec<Part>,
    pub(crate) folders_only: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Part {
    Folders,
    Name(Vec<Token>),
}

#[derive(Clone, Debug)]
pub(crate) enum Token {
    Byte(u8),
    Any,
    Star,
    /// Whether it is negated, and with which sign; ranges, both ends with them.
    Class(Option<u8>, Vec<(u8, u8)>),
}

/// Tokens of one part.
pub(crate) fn tokens(bytes: &'static [u8]) -> impl Strategy<Value = Vec<Token>> {
    let range = (select(bytes), select(bytes)).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let sign = select(vec![None, Some(b'!'), Some(b'^')]);
    let token = prop_oneof![
        5 => select(bytes).prop_map(Token::Byte),
        1 => Just(Token::Any),
        2 => Just(Token::Star),
        1 => (sign, vec(range, 1..3)).prop_map(|(sign, ranges)| Token::Class(sign, ranges)),
    ];
    vec(token, 1..5).prop_map(|mut tokens| {
        // Two stars alone would be another thing.
        tokens.dedup_by(|a, b| matches!((a, b), (Token::Star, Token::Star)));
        tokens
    })
}

/// Patterns whose names have these bytes.
pub(crate) fn specs(bytes: &'static [u8]) -> impl Strategy<Value = Spec> {
    let part = prop_oneof![
        1 => Just(Part::Folders),
        4 => tokens(bytes).prop_map(Part::Name),
    ];
    (any::<bool>(), any::<bool>(), vec(part, 1..4), any::<bool>()).prop_map(
        |(includes, anchored, parts, folders_only)| Spec {
            includes,
            anchored,
            parts,
            folders_only,
        },
    )
}

impl Spec {
    /// As it is written.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.includes {
            text.push(b'!');
        }
        if self.anchored {
            text.push(b'/');
        }
        for (number, part) in self.parts.iter().enumerate() {
            if number > 0 {
                text.push(b'/');
            }
            match part {
                Part::Folders => text.extend_from_slice(b"**"),
                Part::Name(tokens) => text.extend(tokens.iter().flat_map(Token::text)),
            }
        }
        if self.folders_only {
            text.push(b'/');
        }
        text
    }

    /// Whether it matches the path of these names, relative to where the pattern belongs.
    pub(crate) fn matches(&self, names: &[&[u8]], is_directory: bool) -> bool {
        let starts = if self.anchored { 1 } else { names.len() };
        (is_directory || !self.folders_only)
            && (0..starts).any(|start| match_parts(&self.parts, &names[start..]))
    }
}

impl Token {
    pub(crate) fn text(&self) -> Vec<u8> {
        match self {
            Self::Byte(byte) => escape(*byte),
            Self::Any => b"?".to_vec(),
            Self::Star => b"*".to_vec(),
            Self::Class(sign, ranges) => {
                let mut text = b"[".to_vec();
                text.extend(sign);
                for &(low, high) in ranges {
                    text.extend(escape(low));
                    if low < high {
                        text.push(b'-');
                        text.extend(escape(high));
                    }
                }
                text.push(b']');
                text
            }
        }
    }
}

/// A byte that stands for itself.
pub(crate) fn escape(byte: u8) -> Vec<u8> {
    if byte.is_ascii_alphanumeric() || byte >= 0x80 {
        vec![byte]
    } else {
        vec![b'\\', byte]
    }
}

fn match_parts(parts: &[Part], names: &[&[u8]]) -> bool {
    match parts {
        [] => names.is_empty(),
        [Part::Folders] => !names.is_empty(),
        [Part::Folders, rest @ ..] => {
            (0..=names.len()).any(|folders| match_parts(rest, &names[folders..]))
        }
        [Part::Name(tokens), rest @ ..] => names
            .split_first()
            .is_some_and(|(name, names)| match_name(tokens, name) && match_parts(rest, names)),
    }
}

fn match_name(tokens: &[Token], name: &[u8]) -> bool {
    let Some((token, rest)) = tokens.split_first() else {
        return name.is_empty();
    };
    let takes = |byte: u8| match token {
        Token::Byte(own) => byte == *own,
        Token::Any => true,
        Token::Class(sign, ranges) => {
            ranges
                .iter()
                .any(|&(low, high)| low <= byte && byte <= high)
                == sign.is_none()
        }
        Token::Star => false,
    };
    if matches!(token, Token::Star) {
        return (0..=name.len()).any(|bytes| match_name(rest, &name[bytes..]));
    }
    name.split_first()
        .is_some_and(|(&byte, name)| takes(byte) && match_name(rest, name))
}
