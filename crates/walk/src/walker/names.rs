//! The names in one folder, compactly: a million of them are common, and a struct each would be too much.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::ffi::CStr;
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use super::out::Out;
use super::stop::Stop;
use crate::limits;

/// Names in ascending order of their bytes.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// For each name its kind, the name and a zero.
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<u32>,
}

/// Why a folder's names are not there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unlisted {
    Errno(Errno),
    TooMany,
}

impl Names {
    /// Lists what is in a folder that is open for reading, in at most so many bytes.
    pub(super) fn list(
        folder: BorrowedFd<'_>,
        most: usize,
        out: &mut Out,
    ) -> Result<Result<Self, Unlisted>, Stop> {
        let mut names = Self::default();
        let mut room = vec![MaybeUninit::uninit(); limits::LISTED_BYTES];
        let mut entries = RawDir::new(folder, &mut room);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(errno) => return Ok(Err(Unlisted::Errno(errno))),
            };
            if [c".", c".."].contains(&entry.file_name()) {
                continue;
            }
            if !names.add(entry.file_name().to_bytes(), entry.file_type(), most) {
                return Ok(Err(Unlisted::TooMany));
            }
            out.live()?;
        }
        names.sort();
        Ok(Ok(names))
    }

    /// A folder of which only these names count.
    pub(super) fn only<'a>(all: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut names = Self::default();
        for name in all {
            names.add(name, FileType::Unknown, limits::NAMES_BYTES_MAX);
        }
        names.sort();
        names
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Bytes of memory.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity() + 4 * self.starts.capacity()
    }

    pub(super) fn get(&self, index: usize) -> &CStr {
        name_at(&self.bytes, self.starts[index])
    }

    /// What it was when it was listed, if the file system says so.
    pub(super) fn kind(&self, index: usize) -> FileType {
        match self.bytes[place(self.starts[index])] {
            b'f' => FileType::RegularFile,
            b'd' => FileType::Directory,
            b'o' => FileType::Fifo,
            _ => FileType::Unknown,
        }
    }

    pub(super) fn contains(&self, name: &CStr) -> bool {
        let order = |start: &u32| name_at(&self.bytes, *start).cmp(name);
        self.starts.binary_search_by(order).is_ok()
    }

    fn add(&mut self, name: &[u8], kind: FileType, most: usize) -> bool {
        let start = u32::try_from(self.bytes.len());
        let (Ok(start), true) = (start, self.bytes.len() + name.len() + 6 <= most) else {
            return false;
        };
        self.starts.push(start);
        self.bytes.push(match kind {
            FileType::RegularFile => b'f',
            FileType::Directory => b'd',
            FileType::Unknown => b'?',
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice => b'o',
        });
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        true
    }

    /// Sorts them, each once: a folder that is changed while it is listed may name something twice,
    /// as XFS does with what is removed and made again.
    fn sort(&mut self) {
        let bytes = &mut self.bytes;
        self.starts
            .sort_unstable_by(|a, b| name_at(bytes, *a).cmp(name_at(bytes, *b)));
        self.starts.dedup_by(|again, first| {
            let twice = name_at(bytes, *again) == name_at(bytes, *first);
            if twice && bytes[place(*again)] != bytes[place(*first)] {
                bytes[place(*first)] = b'?';
            }
            twice
        });
        self.starts.shrink_to_fit();
    }
}

fn place(start: u32) -> usize {
    usize::try_from(start).unwrap_or(usize::MAX)
}

fn name_at(bytes: &[u8], start: u32) -> &CStr {
    CStr::from_bytes_until_nul(&bytes[place(start) + 1..]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;
    use crate::testing::sockets;

    #[test]
    fn a_name_that_is_listed_twice_is_there_once() {
        let mut names = Names::default();
        for (name, kind) in [
            ("b", FileType::RegularFile),
            ("a", FileType::RegularFile),
            ("c", FileType::Directory),
            ("b", FileType::Directory),
            ("a", FileType::RegularFile),
            ("b", FileType::RegularFile),
        ] {
            assert!(names.add(name.as_bytes(), kind, 1000));
        }
        names.sort();
        let all: Vec<_> = (0..names.len())
            .map(|index| (names.get(index), names.kind(index)))
            .collect();
        let right = [
            (c"a", FileType::RegularFile),
            // Which of them it is, is still to be seen.
            (c"b", FileType::Unknown),
            (c"c", FileType::Directory),
        ];
        assert_eq!(all, right);
    }

    #[test]
    fn a_folder_of_too_many_names_is_left_out_before_they_take_memory() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..100 {
            File::create(folder.path().join(format!("{number:095}"))).unwrap();
        }
        let open = File::open(folder.path()).unwrap();
        let list = |most| {
            let (_ours, theirs) = sockets();
            rustix::fs::seek(&open, rustix::fs::SeekFrom::Start(0)).unwrap();
            Names::list(open.as_fd(), most, &mut Out::new(theirs)).unwrap()
        };
        let names = list(100_000).unwrap();
        assert_eq!(names.len(), 100);
        assert!(names.contains(names.get(99)) && !names.contains(c"0"));
        assert_eq!(list(5000).unwrap_err(), Unlisted::TooMany);
    }
}
