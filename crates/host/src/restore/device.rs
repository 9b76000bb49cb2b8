//! A block device that is overwritten where it is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use rustix::io::Errno;
use snapkeep_api::{Error, ErrorKind, Result};
use snapkeep_direct::BulkFile;

use super::limits;
use super::lock::refuse_in_use;
use super::target::failed;

/// An open block device that nobody else on this machine uses.
pub(super) struct Device {
    path: PathBuf,
    file: BulkFile,
    size: u64,
}

impl Device {
    pub(super) fn open(path: &Path) -> Result<Self> {
        // For a block device, EXCL asks that it is neither mounted nor part of something.
        let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::BUSY) => {
                let what = format!(
                    "cannot restore to {}: it is in use (mounted, or part of another device)",
                    path.display()
                );
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            Err(e) => return Err(failed("cannot open", path, e.into())),
        };
        refuse_in_use(&file, path)?;
        let size = (file.seek(SeekFrom::End(0)))
            .map_err(|e| failed("cannot learn the size of", path, e))?;
        Ok(Self {
            path: path.to_owned(),
            file: BulkFile::new(file),
            size,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Refuses a disk that is larger than the device.
    pub(super) fn check_room(&self, disk: u64) -> Result<()> {
        if disk > self.size {
            let what = format!(
                "cannot restore to {}: it has {} bytes, the disk has {disk}",
                self.path.display(),
                self.size
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(())
    }

    /// Its first part.
    pub(super) fn head(&self) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        let mut file = self.file.file();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.take(limits::HEAD).read_to_end(&mut head))
            .map_err(|e| failed("cannot read", &self.path, e))?;
        Ok(head)
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        (self.file.write_all_at(bytes, offset)).map_err(|e| failed("cannot write", &self.path, e))
    }

    /// Makes a range read as zeroes: by the device where it can, by writing them where it cannot.
    pub(super) fn zero(&self, from: u64, to: u64) -> Result<()> {
        zero(self.file.file(), from, to).map_err(|e| failed("cannot zero a part of", &self.path, e))
    }

    pub(super) fn sync(&self) -> Result<()> {
        (self.file.file().sync_all()).map_err(|e| failed("cannot sync", &self.path, e))
    }
}

fn zero(file: &File, from: u64, to: u64) -> io::Result<()> {
    let start = from.next_multiple_of(limits::ZERO_ALIGN).min(to);
    let end = (to / limits::ZERO_ALIGN * limits::ZERO_ALIGN).max(start);
    write_zeroes(file, from, start)?;
    if start < end && !zeroed_by_the_device(file, start, end - start)? {
        write_zeroes(file, start, end)?;
    }
    write_zeroes(file, end, to)
}

/// False if the device can do neither. Both calls promise that the range reads as zeroes.
fn zeroed_by_the_device(file: &File, offset: u64, length: u64) -> io::Result<bool> {
    let ways = [
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
    ];
    for way in ways {
        match fallocate(file, way, offset, length) {
            Ok(()) => return Ok(true),
            Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

fn write_zeroes(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeroes = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let part = usize::try_from(to - at).map_or(zeroes.len(), |left| left.min(zeroes.len()));
        file.write_all_at(&zeroes[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroing_reaches_exactly_from_one_byte_to_another() {
        let file = tempfile::tempfile().unwrap();
        let size = 1 << 20;
        for (from, to) in [
            (0, size),
            (1, 2),
            (70_000, 70_000),
            (65_535, 196_609),
            (100, size - 1),
        ] {
            file.write_all_at(&vec![7; 1 << 20], 0).unwrap();
            zero(&file, from, to).unwrap();
            let mut bytes = vec![1; 1 << 20];
            file.read_exact_at(&mut bytes, 0).unwrap();
            for (at, byte) in (0..).zip(&bytes) {
                assert_eq!(
                    *byte,
                    if (from..to).contains(&at) { 0 } else { 7 },
                    "{from} {to} {at}"
                );
            }
        }
    }
}
