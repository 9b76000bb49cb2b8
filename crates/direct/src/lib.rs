//! Large writes past the page cache (`O_DIRECT`, open(2)). What a backup or a restore writes is not
//! read again soon, pushes out what the guests' host has in its cache, and copying it in there costs
//! more than compressing or encrypting it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What goes past the cache begins and ends at multiples of this: no page and no logical block is
/// larger, so that no page has bytes that went either way.
const ALIGN: usize = 64 << 10;
/// Alignment in memory.
const MEMORY_ALIGN: usize = 4096;
/// Bytes of one system call, if they are copied to where they are aligned first.
const PIECE: usize = 2 << 20;

/// A file, and the same file opened for writing past the cache, where that can be had.
#[derive(Debug)]
pub struct BulkFile {
    file: File,
    direct: Option<File>,
}

impl BulkFile {
    /// A file or block device that is open for writing.
    pub fn new(file: File) -> Self {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        // Not every file system can, and that is no fault.
        let direct = rustix::fs::open(path, flags, Mode::empty()).ok();
        Self {
            file,
            direct: direct.map(File::from),
        }
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes all bytes at this offset: past the cache from one multiple of 64 KiB to another, the
    /// rest through it. They are durable when the file is synced, not before.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (head, whole) = match &self.direct {
            None => (bytes.len(), 0),
            Some(_) => cut(bytes.len(), offset),
        };
        let (head, rest) = bytes.split_at(head);
        let (whole, tail) = rest.split_at(whole);
        self.file.write_all_at(head, offset)?;
        let offset = offset + head.len() as u64;
        if let Some(direct) = self.direct.as_ref().filter(|_| !whole.is_empty()) {
            match past_the_cache(direct, whole, offset) {
                // It wants more than we know of.
                Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => {
                    self.file.write_all_at(whole, offset)?;
                }
                done => done?,
            }
        }
        self.file.write_all_at(tail, offset + whole.len() as u64)
    }
}

/// How many of so many bytes at this offset lie before the first multiple of [`ALIGN`], and how many
/// from there to the last one.
fn cut(length: usize, offset: u64) -> (usize, usize) {
    let head = offset.next_multiple_of(ALIGN as u64) - offset;
    let head = usize::try_from(head).map_or(length, |head| head.min(length));
    (head, (length - head) / ALIGN * ALIGN)
}

fn past_the_cache(direct: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    if bytes.as_ptr().align_offset(MEMORY_ALIGN) == 0 {
        return direct.write_all_at(bytes, offset);
    }
    let mut space = vec![0; bytes.len().min(PIECE) + MEMORY_ALIGN];
    let start = space.as_ptr().align_offset(MEMORY_ALIGN);
    let mut at = offset;
    for piece in bytes.chunks(PIECE) {
        let aligned = &mut space[start..start + piece.len()];
        aligned.copy_from_slice(piece);
        direct.write_all_at(aligned, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file where the project is built: on a disk, where writing past the cache is possible.
    fn file() -> BulkFile {
        let folder = std::env::current_exe().unwrap();
        BulkFile::new(tempfile::tempfile_in(folder.parent().unwrap()).unwrap())
    }

    #[test]
    fn bytes_land_where_they_belong_whatever_their_alignment() {
        for direct in [true, false] {
            let mut bulk = file();
            if !direct {
                bulk.direct = None;
            }
            let size = PIECE + 5 * ALIGN + 1000;
            bulk.file().set_len(size as u64).unwrap();
            let mut model = vec![0; size];
            let places = [
                (0, PIECE + ALIGN),
                (2 * ALIGN, ALIGN + 4096),
                (3 * ALIGN + 4096, 1000),
                (ALIGN - 1, 2),
                (ALIGN + 512, 3 * ALIGN),
                (size - 1001, 1001),
                (7, 0),
            ];
            for (number, (offset, length)) in (1u8..).zip(places) {
                let bytes = vec![number; length];
                bulk.write_all_at(&bytes, offset as u64).unwrap();
                model[offset..offset + length].fill(number);
            }
            let mut found = vec![0; size];
            bulk.file().read_exact_at(&mut found, 0).unwrap();
            assert!(found == model, "past the cache: {direct}");
        }
    }

    #[test]
    fn a_write_is_cut_at_multiples_of_the_alignment() {
        assert_eq!(cut(3 * ALIGN, 0), (0, 3 * ALIGN));
        assert_eq!(cut(3 * ALIGN, 1), (ALIGN - 1, 2 * ALIGN));
        assert_eq!(cut(10, ALIGN as u64 - 5), (5, 0));
        assert_eq!(cut(10, 5), (10, 0));
        assert_eq!(cut(0, 5), (0, 0));
    }
}
