//! One pattern: its parts, and which of them a path has come to.

use super::class::Class;
use super::fault::Fault;
use super::glob::{Glob, Token};
use crate::limits;

/// A pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    parts: Vec<Part>,
    /// Takes again what an earlier pattern leaves out.
    pub(super) includes: bool,
    folders_only: bool,
}

#[derive(Clone, Debug)]
enum Part {
    /// `**`: any number of folders; as the last part, anything inside.
    Folders,
    Name(Glob),
}

/// The parts of a pattern that the next name may belong to, one bit each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct State(u64);

impl State {
    /// Whether nothing below can match any more.
    pub(super) fn is_dead(self) -> bool {
        self.0 == 0
    }

    fn has(self, part: usize) -> bool {
        self.0 >> part & 1 == 1
    }
}

impl Pattern {
    /// Reads a pattern as the administrator, or a line of a file, gives it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Fault> {
        if text.len() > limits::PATTERN_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        if text.contains(&0) {
            return Err(Fault::Nul);
        }
        let rest = text.strip_prefix(b"!").unwrap_or(text);
        let start = text.len() - rest.len();
        if rest.is_empty() {
            return Err(Fault::Empty);
        }
        if start == 1 && rest[0] == b'!' {
            return Err(Fault::TwiceNegated);
        }
        let mut parts = Parts::default();
        let anchored = rest.starts_with(b"/") || rest.starts_with(b"\\/");
        let mut at = start;
        while let Some(&byte) = text.get(at) {
            at = match byte {
                b'\\' => {
                    let escaped = *text.get(at + 1).ok_or(Fault::EscapeAtEnd)?;
                    parts.push_byte(escaped);
                    at + 2
                }
                b'[' => {
                    let (class, next) = Class::parse(text, at)?;
                    parts.push(Token::Class(Box::new(class)));
                    next
                }
                b'?' => {
                    parts.push(Token::Any);
                    at + 1
                }
                b'*' => {
                    parts.push_star();
                    at + 1
                }
                byte => {
                    parts.push_byte(byte);
                    at + 1
                }
            };
        }
        let folders_only = parts.ends_with_slash;
        let mut parts = parts.finish();
        // What matches at any depth has any number of folders before it.
        if !anchored && !matches!(parts.first(), Some(Part::Folders)) {
            parts.insert(0, Part::Folders);
        }
        if parts.len() > limits::PATTERN_PARTS_MAX {
            return Err(Fault::TooManyParts);
        }
        Ok(Self {
            parts,
            includes: start == 1,
            folders_only,
        })
    }

    /// Why it can match no entry of any tree, if so.
    pub(super) fn pointless(&self) -> Option<&'static str> {
        let is_dots = |part: &Part| match part {
            Part::Name(Glob::Literal(name)) => name == b"." || name == b"..",
            Part::Name(Glob::Tokens(_)) | Part::Folders => false,
        };
        if self.parts.is_empty() {
            Some("it names the root itself, which is always taken")
        } else if self.parts.iter().any(is_dots) {
            Some("no entry is called `.` or `..`")
        } else {
            None
        }
    }

    /// The state in the folder that the pattern belongs to.
    pub(super) fn start(&self) -> State {
        State(self.reach(0))
    }

    /// The state in a folder of this name.
    pub(super) fn enter(&self, state: State, name: &[u8]) -> State {
        let mut next = 0;
        for (number, part) in self.parts.iter().enumerate() {
            if !state.has(number) {
                continue;
            }
            match part {
                Part::Folders => next |= self.reach(number),
                Part::Name(glob) if glob.matches(name) => next |= self.reach(number + 1),
                Part::Name(_) => (),
            }
        }
        State(next)
    }

    /// Whether the pattern matches an entry of this name.
    pub(super) fn matches(&self, state: State, name: &[u8], is_directory: bool) -> bool {
        let Some(last) = self.parts.len().checked_sub(1) else {
            return false;
        };
        (is_directory || !self.folders_only)
            && state.has(last)
            && match &self.parts[last] {
                Part::Folders => true,
                Part::Name(glob) => glob.matches(name),
            }
    }

    /// This part, and the next one if this one can stand for no folder at all.
    fn reach(&self, number: usize) -> u64 {
        match self.parts.get(number) {
            None => 0,
            // Two of them in a row are one. The last one is for what is inside, so never for
            // nothing.
            Some(Part::Folders) if number + 1 < self.parts.len() => 0b11 << number,
            Some(_) => 1 << number,
        }
    }
}

/// The parts read so far.
#[derive(Default)]
struct Parts {
    whole: Vec<Part>,
    tokens: Vec<Token>,
    /// Stars of the part that is being read.
    stars: usize,
    ends_with_slash: bool,
}

impl Parts {
    fn push(&mut self, token: Token) {
        self.tokens.push(token);
        self.ends_with_slash = false;
    }

    fn push_byte(&mut self, byte: u8) {
        if byte == b'/' {
            self.end_part();
            self.ends_with_slash = true;
        } else {
            self.push(Token::Byte(byte));
        }
    }

    fn push_star(&mut self) {
        self.stars += 1;
        if self.tokens.last() != Some(&Token::Star) {
            self.push(Token::Star);
        }
    }

    /// Slashes in a row are one.
    fn end_part(&mut self) {
        let tokens = std::mem::take(&mut self.tokens);
        let stars = std::mem::take(&mut self.stars);
        if stars >= 2 && tokens == [Token::Star] {
            if !matches!(self.whole.last(), Some(Part::Folders)) {
                self.whole.push(Part::Folders);
            }
        } else if !tokens.is_empty() {
            self.whole.push(Part::Name(Glob::new(tokens)));
        }
    }

    fn finish(mut self) -> Vec<Part> {
        self.end_part();
        self.whole
    }
}
