//! The part of a pattern between two slashes, held against one name.

use super::class::Class;

/// A part without slashes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Glob {
    /// One name.
    Literal(Vec<u8>),
    Tokens(Vec<Token>),
}

/// What matches one byte of a name, or, as `Star`, any number of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Token {
    Byte(u8),
    Any,
    Class(Box<Class>),
    Star,
}

impl Glob {
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        let literal = tokens.iter().map(|token| match token {
            Token::Byte(byte) => Some(*byte),
            Token::Any | Token::Class(_) | Token::Star => None,
        });
        match literal.collect() {
            Some(name) => Self::Literal(name),
            None => Self::Tokens(tokens),
        }
    }

    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => literal == name,
            Self::Tokens(tokens) => match_tokens(tokens, name).0,
        }
    }
}

/// Whether the tokens match the whole name, and in how many steps: not more than their number
/// times that of the name's bytes, because what an earlier star takes need never be tried again
/// once a later one is reached.
fn match_tokens(tokens: &[Token], name: &[u8]) -> (bool, usize) {
    let (mut token, mut at, mut steps) = (0, 0, 0);
    // The token after the last star, and where in the name that star ends so far.
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        steps += 1;
        match tokens.get(token) {
            Some(Token::Star) => {
                token += 1;
                star = Some((token, at));
            }
            Some(next) if next.takes(name[at]) => {
                token += 1;
                at += 1;
            }
            _ => {
                let Some((after, end)) = star else {
                    return (false, steps);
                };
                token = after;
                at = end + 1;
                star = Some((after, at));
            }
        }
    }
    let rest = &tokens[token..];
    (rest.iter().all(|token| *token == Token::Star), steps)
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::Any => true,
            Self::Class(class) => class.contains(byte),
            Self::Star => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token> {
        let token = |byte| match byte {
            b'*' => Token::Star,
            b'?' => Token::Any,
            byte => Token::Byte(byte),
        };
        text.bytes().map(token).collect()
    }

    #[test]
    fn a_hostile_part_takes_no_more_steps_than_its_length_times_the_names() {
        let name = [b'a'; 255];
        let hostile = [
            "a*".repeat(100) + "b",
            "*a".repeat(127) + "*b",
            "*".to_owned() + &"a".repeat(127) + "b",
            "*".to_owned() + &"a".repeat(127) + "b*",
            "*?".repeat(127) + "b",
            "a*b".repeat(80),
        ];
        for part in hostile {
            let part = tokens(&part);
            let (matches, steps) = match_tokens(&part, &name);
            assert!(!matches);
            assert!(steps <= (part.len() + 1) * name.len(), "{steps} steps");
        }
    }

    #[test]
    fn a_star_gives_back_what_the_rest_needs() {
        for (part, name, expected) in [
            ("a*b*c", "axxbxxbxxc", true),
            ("a*b*c", "axxbxxbxxcx", false),
            ("*ab", "aab", true),
            ("*", "", true),
            ("?*", "", false),
            ("?*", "x", true),
            ("*.?", "a.b.c", true),
            ("a*a", "a", false),
        ] {
            let matches = Glob::new(tokens(part)).matches(name.as_bytes());
            assert_eq!(matches, expected, "{part} {name}");
        }
    }
}
