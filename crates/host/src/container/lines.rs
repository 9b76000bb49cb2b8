//! The lines of LXC's configuration files: `key = value`, as LXC itself reads them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use snapkeep_api::{Error, ErrorKind, Result};

/// One setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) key: &'a str,
    /// Without the spaces around it, and without one pair of quotes.
    pub(super) value: &'a [u8],
    /// From one on.
    pub(super) number: usize,
}

impl Line<'_> {
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(self.value))
    }

    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.value).ok()
    }
}

/// A text to show in one line: lossily, with control characters escaped.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .flat_map(|c| {
            let control = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            control.into_iter().flatten().chain(plain)
        })
        .collect()
}

pub(super) fn shown_path(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

/// The settings of a file, in order. Comments, empty lines and what does not begin with `lxc.` are
/// none: LXC, too, passes over them.
///
/// What is wrong comes with the number of its line.
pub(super) fn settings(text: &[u8]) -> impl Iterator<Item = Result<Line<'_>, (usize, String)>> {
    (1..)
        .zip(text.split(|byte| *byte == b'\n'))
        .filter_map(|(number, line)| setting(number, line).transpose())
}

/// The setting of a line, if it has one.
pub(super) fn setting(number: usize, line: &[u8]) -> Result<Option<Line<'_>>, (usize, String)> {
    let line = trimmed(line);
    if line.first() == Some(&b'#') || !line.starts_with(b"lxc.") {
        return Ok(None);
    }
    if line.contains(&0) {
        return Err((number, "it has a zero byte".to_owned()));
    }
    let Some(equals) = line.iter().position(|byte| *byte == b'=') else {
        return Err((number, "it has no \"=\"".to_owned()));
    };
    let key = trimmed(&line[..equals]);
    let Some(key) = std::str::from_utf8(key).ok().filter(|key| is_key(key)) else {
        return Err((number, format!("{:?} is no key", shown(key))));
    };
    let value = unquoted(trimmed(&line[equals + 1..]));
    Ok(Some(Line { key, value, number }))
}

fn is_key(key: &str) -> bool {
    key.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Without the white space that LXC takes away.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Without the one pair of quotes that LXC takes away.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        value => value,
    }
}

/// The fields of a line of a `fstab`, as glibc's getmntent splits them: at spaces and tabs alone,
/// with `\040`, `\011`, `\012`, `\134` and `\\` taken back.
pub(super) fn mount_fields(line: &[u8]) -> Vec<Vec<u8>> {
    line.split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|field| !field.is_empty())
        .take(7)
        .map(decoded)
        .collect()
}

fn decoded(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let (byte, used) = match rest {
            [b'\\', b'0', b'4', b'0', ..] => (b' ', 4),
            [b'\\', b'0', b'1', b'1', ..] => (b'\t', 4),
            [b'\\', b'0', b'1', b'2', ..] => (b'\n', 4),
            [b'\\', b'1', b'3', b'4', ..] => (b'\\', 4),
            [b'\\', b'\\', ..] => (b'\\', 2),
            _ => (*first, 1),
        };
        out.push(byte);
        rest = if used == 1 { after } else { &rest[used..] };
    }
    out
}

/// All bytes of a regular file that is not too long.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let failed = |kind, why: &dyn std::fmt::Display| {
        Error::new(kind, format!("cannot read {}: {why}", shown_path(path)))
    };
    let flags = rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK;
    let opened = rustix::fs::open(
        path,
        flags | rustix::fs::OFlags::RDONLY,
        rustix::fs::Mode::empty(),
    );
    let file = File::from(opened.map_err(|e| {
        let kind = if e == rustix::io::Errno::NOENT {
            ErrorKind::NotFound
        } else {
            ErrorKind::Source
        };
        failed(kind, &std::io::Error::from(e))
    })?);
    let about = file.metadata().map_err(|e| failed(ErrorKind::Source, &e))?;
    if !about.is_file() {
        return Err(failed(ErrorKind::Invalid, &"it is no regular file"));
    }
    let mut bytes = Vec::new();
    let read = (&file).take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|e| failed(ErrorKind::Source, &e))?;
    if bytes.len() as u64 > bytes_max {
        let why = format!("it has more than {bytes_max} bytes");
        return Err(failed(ErrorKind::Invalid, &why));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_lxc_reads_it() {
        for (line, key, value) in [
            ("lxc.uts.name = web", "lxc.uts.name", "web"),
            (" \tlxc.uts.name=web \t", "lxc.uts.name", "web"),
            ("lxc.a = \"b c\"", "lxc.a", "b c"),
            ("lxc.a = 'b=c'", "lxc.a", "b=c"),
            ("lxc.a = \"b'", "lxc.a", "\"b'"),
            ("lxc.a = \"\"b\"\"", "lxc.a", "\"b\""),
            ("lxc.a = \"", "lxc.a", "\""),
            ("lxc.a =", "lxc.a", ""),
            ("lxc.a = b # c", "lxc.a", "b # c"),
        ] {
            let found = setting(3, line.as_bytes()).unwrap().unwrap();
            assert_eq!((found.key, found.value), (key, value.as_bytes()), "{line}");
        }
        for none in ["", "  ", "# lxc.a = b", " #", "arch = x", "xlxc.a = b"] {
            assert_eq!(setting(1, none.as_bytes()), Ok(None), "{none}");
        }
        for bad in ["lxc.a", "lxc.a b = c", "lxc.a\x01 = b", "lxc.a = b\0c"] {
            assert_eq!(setting(7, bad.as_bytes()).unwrap_err().0, 7, "{bad}");
        }
    }

    #[test]
    fn fields_of_mounts_are_split_at_spaces_and_tabs_alone() {
        let fields = mount_fields(b"  /a\\040b\t\tmnt/c\\134\\011d none\x0bx bind");
        let expected: [&[u8]; 4] = [b"/a b", b"mnt/c\\\td", b"none\x0bx", b"bind"];
        assert_eq!(fields, expected);
    }

    #[test]
    fn what_is_shown_is_one_line() {
        assert_eq!(shown(b"a\nb\xff\x1b"), "a\\nb\u{fffd}\\u{1b}");
    }

    #[test]
    fn only_regular_files_that_are_not_too_long_are_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("f");
        std::fs::write(&file, "1234").unwrap();
        assert_eq!(read(&file, 4).unwrap(), b"1234");
        assert_eq!(read(&file, 3).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(
            read(folder.path(), 3).unwrap_err().kind(),
            ErrorKind::Invalid
        );
        let none = read(&folder.path().join("no"), 3).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::NotFound);
    }
}
