//! The mechanism `file-handle`: reads by position, discards by punching holes.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::retry_on_intr;

use crate::{BlockSource, DeviceName, Error, ErrorKind, Region, Result};

/// Buffers handed to a file opened with `O_DIRECT` must be aligned; this is what every Linux
/// file system and block device accepts.
const DIRECT_ALIGNMENT: usize = 4096;

pub(super) struct FileSource {
    file: File,
    device: DeviceName,
    size: u64,
}

impl FileSource {
    /// `size` is what the caller announced; what has another length is refused, and so is what has
    /// none.
    pub(super) fn new(file: File, device: &DeviceName, size: u64) -> Result<Self> {
        let found = length(&file).map_err(|e| {
            let what = format!("cannot tell the length of device {device}");
            Error::with_source(ErrorKind::Source, what, e)
        })?;
        if found != Some(size) {
            let found = found.map_or("no length".to_owned(), |length| length.to_string());
            let what = format!("device {device}: announced as {size} bytes, but it has {found}");
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        Ok(Self {
            file,
            device: device.clone(),
            size,
        })
    }

    fn failed(&self, offset: u64, length: usize, error: io::Error) -> Error {
        let what = format!(
            "cannot read {length} bytes at offset {offset} of device {}",
            self.device
        );
        Error::with_source(ErrorKind::Source, what, error)
    }
}

/// Bytes of a file or block device; `None` for what is neither.
fn length(file: &File) -> io::Result<Option<u64>> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        return Ok(Some(metadata.len()));
    }
    if metadata.file_type().is_block_device() {
        return (&*file).seek(SeekFrom::End(0)).map(Some);
    }
    Ok(None)
}

/// Reads through an aligned buffer: what a file opened with `O_DIRECT` asks for.
fn read_aligned(
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    offset: u64,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut space = vec![0; buffer.len().next_multiple_of(DIRECT_ALIGNMENT) + DIRECT_ALIGNMENT];
    let start = space.as_ptr().align_offset(DIRECT_ALIGNMENT);
    let aligned = &mut space[start..];
    let mut done = 0;
    while done < buffer.len() {
        let wanted = (buffer.len() - done).next_multiple_of(DIRECT_ALIGNMENT);
        let end = wanted.min(aligned.len());
        let got = match read(&mut aligned[..end], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let take = got.min(buffer.len() - done);
        buffer[done..done + take].copy_from_slice(&aligned[..take]);
        done += take;
    }
    Ok(())
}

impl BlockSource for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len();
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                read_aligned(|part, at| self.file.read_at(part, at), offset, buffer)
                    .map_err(|e| self.failed(offset, length, e))
            }
            Err(e) => Err(self.failed(offset, length, e)),
        }
    }

    fn discard(&self, region: Region) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let punch = || fallocate(&self.file, flags, region.offset(), region.length());
        retry_on_intr(punch).map_err(|e| {
            let what = format!(
                "cannot discard {} bytes at offset {} of device {}",
                region.length(),
                region.offset(),
                self.device
            );
            Error::with_source(ErrorKind::Source, what, io::Error::from(e))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_length_is_no_disk() {
        // It would give as many zeroes as anybody wants.
        let endless = File::open("/dev/zero").expect("a device of every Linux");
        let device = "d".parse().expect("a device name");
        let error = FileSource::new(endless, &device, 1 << 20).err();
        assert_eq!(error.map(|e| e.kind()), Some(ErrorKind::Protocol));
    }

    #[test]
    fn an_aligned_read_goes_on_after_a_signal_and_after_a_part() {
        let disk: Vec<u8> = (0u8..=250).cycle().take(3 * 4096 + 100).collect();
        let mut calls = 0;
        let read = |part: &mut [u8], at: u64| {
            calls += 1;
            if calls % 2 == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let rest = usize::try_from(at).ok().and_then(|at| disk.get(at..));
            let rest = rest.unwrap_or_default();
            let count = part.len().min(rest.len()).min(4096);
            part[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        };
        let mut buffer = vec![0xee; disk.len()];
        read_aligned(read, 0, &mut buffer).expect("a read that is not cut short");
        assert!(buffer == disk);
        assert_eq!(calls, 8);
    }

    #[test]
    fn an_aligned_read_past_the_end_fails() {
        let error = read_aligned(|_, _| Ok(0), 0, &mut [0; 512]).err();
        assert_eq!(error.map(|e| e.kind()), Some(io::ErrorKind::UnexpectedEof));
    }
}
