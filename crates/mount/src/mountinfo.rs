//! What is mounted where, as the kernel lists it (`proc_pid_mountinfo(5)`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::limits::MOUNTS_MAX;

/// A mount.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Mount {
    /// The device number of its file system, `MAJOR:MINOR`.
    pub(crate) device: String,
    pub(crate) file_system: String,
}

/// What is mounted at this absolute path, the topmost if there are several.
pub(crate) fn mounted_at(path: &Path) -> io::Result<Option<Mount>> {
    let text = table()?;
    let path = path.as_os_str().as_bytes();
    Ok(text
        .rsplit(|b| *b == b'\n')
        .find_map(|line| mount(line, path)))
}

/// Where file systems of this kind are mounted, each path once: where they are the topmost.
pub(crate) fn all_of(file_system: &str) -> io::Result<Vec<PathBuf>> {
    let text = table()?;
    let mut topmost = BTreeMap::new();
    for line in text.split(|b| *b == b'\n') {
        if let Some((point, mount)) = parse(line) {
            topmost.insert(point, mount.file_system);
        }
    }
    let ours = topmost.into_iter().filter(|(_, kind)| kind == file_system);
    Ok(ours
        .map(|(point, _)| PathBuf::from(OsString::from_vec(point)))
        .collect())
}

fn table() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut file = File::open("/proc/self/mountinfo")?.take(MOUNTS_MAX);
    file.read_to_end(&mut text)?;
    if file.limit() == 0 {
        return Err(io::Error::other("the list of mounts is longer than 16 MiB"));
    }
    Ok(text)
}

/// The mount that a line is about, if that is at this path.
fn mount(line: &[u8], path: &[u8]) -> Option<Mount> {
    let (point, mount) = parse(line)?;
    (point == path).then_some(mount)
}

/// The mount that a line is about, and where it is.
fn parse(line: &[u8]) -> Option<(Vec<u8>, Mount)> {
    let mut fields = line.split(|b| *b == b' ');
    let device = fields.nth(2)?;
    let point = unescaped(fields.nth(1)?);
    let file_system = fields.skip_while(|field| *field != b"-").nth(1)?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let mount = Mount {
        device: text(device),
        file_system: text(file_system),
    };
    Some((point, mount))
}

/// Spaces, tabs, ends of lines and backslashes are written as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_any_name_in_it() {
        let line = b"36 35 0:41 / /mnt/a\\040b\\134c rw,nosuid master:1 shared:2 - fuse.snapkeep snapkeep ro";
        let found = mount(line, b"/mnt/a b\\c").unwrap();
        assert_eq!(found.device, "0:41");
        assert_eq!(found.file_system, "fuse.snapkeep");
        assert_eq!(mount(line, b"/mnt"), None);
        assert_eq!(mount(b"", b"/mnt"), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(mounted_at(Path::new("/")).unwrap().is_some());
        assert!(mounted_at(Path::new("/no/such/folder")).unwrap().is_none());
    }
}
