//! Names and paths in a file tree: bytes, as Linux has them.

use std::fmt;

use super::limits::{DEPTH_MAX, NAME_MAX};
use crate::{Error, ErrorKind, Result};

/// The name of an entry in its folder: 1 to 255 bytes, no `/`, no zero, neither `.` nor `..`.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Takes the bytes if they are a name; `Invalid` if not.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self> {
        let name = Self(bytes.into());
        match Self::wrong(&name.0) {
            None => Ok(name),
            Some(why) => {
                let what = format!("the name {name} cannot be used: {why}");
                Err(Error::new(ErrorKind::Invalid, what))
            }
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn wrong(bytes: &[u8]) -> Option<&'static str> {
        match bytes {
            [] => Some("it is empty"),
            b"." | b".." => Some("it leads elsewhere"),
            _ if bytes.len() > NAME_MAX => Some("it is longer than 255 bytes"),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Some("it has a slash or a zero"),
            _ => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Where an entry is: names from the tree's root, with `/` between them. The root's is empty.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root's.
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes names with `/` between them; `Invalid` if one is no name, or they are too many.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let path = Self(bytes.into());
        let wrong = (path.names().enumerate()).find_map(|(depth, name)| {
            if depth >= DEPTH_MAX {
                return Some("it is deeper than 8192 folders");
            }
            Name::wrong(name)
        });
        match wrong {
            None => Ok(path),
            Some(why) => {
                let what = format!("the path {path} cannot be used: {why}");
                Err(Error::new(ErrorKind::Invalid, what))
            }
        }
    }

    /// What a person typed: slashes at its ends, double ones and `.` between slashes mean nothing.
    /// `Invalid` if a part is `..` or no name.
    pub fn typed(bytes: &[u8]) -> Result<Self> {
        let parts = bytes.split(|b| *b == b'/');
        let parts: Vec<_> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
        Self::new(parts.join(&b'/'))
    }

    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root's.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, from the root.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        // Splitting nothing would give one empty name.
        let parts = (!self.0.is_empty()).then(|| self.0.split(|b| *b == b'/'));
        parts.into_iter().flatten()
    }

    /// The path of an entry of this folder.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let mut path = self.clone();
        path.push(name);
        path
    }

    /// Makes it the path of an entry of the folder that it was.
    pub fn push(&mut self, name: &Name) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name.as_bytes());
    }

    /// Makes it the path of the folder that its entry is in; the root stays the root.
    pub fn pop(&mut self) {
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.0.truncate(end);
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/")?;
        shown(&self.0, f)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Bytes for people: UTF-8 as it is, but control characters and all else escaped, so that no name
/// can break a line of a log or move a terminal's cursor.
fn shown(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for part in bytes.utf8_chunks() {
        for char in part.valid().chars() {
            if char.is_control() || char == '\\' {
                write!(f, "{}", char.escape_default())?;
            } else {
                write!(f, "{char}")?;
            }
        }
        for byte in part.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = [b'x'; 256];
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &long] {
            let error = Name::new(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
        }
        for good in [&b"..."[..], b"\xff\n", b" ", &long[..255]] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for bad in [&b"/a"[..], b"a/", b"a//b", b"../a", b"a/./b", b"a/\0"] {
            assert!(TreePath::new(bad).is_err(), "{bad:?}");
        }
        assert!(TreePath::typed(b"a/../b").is_err());
        let deep = vec!["d"; DEPTH_MAX];
        assert!(TreePath::new(deep.join("/")).is_ok());
        assert!(TreePath::new(format!("{}/d", deep.join("/"))).is_err());
    }

    #[test]
    fn a_path_is_its_names() {
        let mut path = TreePath::typed(b"/./a//bc/").unwrap();
        assert_eq!(path.names().collect::<Vec<_>>(), [&b"a"[..], b"bc"]);
        path.pop();
        assert_eq!(path, TreePath::root().join(&Name::new(*b"a").unwrap()));
        path.pop();
        path.pop();
        assert!(path.is_root() && path.names().next().is_none());
    }

    #[test]
    fn what_is_shown_is_one_line() {
        let name = Name::new(&b"a\n\x1b[2J\xff\\"[..]).unwrap();
        assert_eq!(name.to_string(), "a\\n\\u{1b}[2J\\xff\\\\");
    }
}
