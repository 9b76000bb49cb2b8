//! The mechanism `file-handle`: reads by position, discards by punching holes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};

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
    /// `size` is what the caller announced; a regular file of another length is refused.
    pub(super) fn new(file: File, device: &DeviceName, size: u64) -> Result<Self> {
        let found = file.metadata().map_err(|e| {
            Error::with_source(
                ErrorKind::Source,
                format!("cannot examine device {device}"),
                e,
            )
        })?;
        if found.is_file() && found.len() != size {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "device {device}: announced as {size} bytes, but it has {}",
                    found.len()
                ),
            ));
        }
        Ok(Self {
            file,
            device: device.clone(),
            size,
        })
    }

    fn failed(&self, offset: u64, length: usize, error: std::io::Error) -> Error {
        let what = format!(
            "cannot read {length} bytes at offset {offset} of device {}",
            self.device
        );
        Error::with_source(ErrorKind::Source, what, error)
    }

    /// Reads through an aligned buffer: what a file opened with `O_DIRECT` asks for.
    fn read_aligned(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let mut space = vec![0; buffer.len().next_multiple_of(DIRECT_ALIGNMENT) + DIRECT_ALIGNMENT];
        let start = space.as_ptr().align_offset(DIRECT_ALIGNMENT);
        let aligned = &mut space[start..];
        let mut done = 0;
        while done < buffer.len() {
            let wanted = (buffer.len() - done).next_multiple_of(DIRECT_ALIGNMENT);
            let end = wanted.min(aligned.len());
            let got = self
                .file
                .read_at(&mut aligned[..end], offset + done as u64)?;
            if got == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let take = got.min(buffer.len() - done);
            buffer[done..done + take].copy_from_slice(&aligned[..take]);
            done += take;
        }
        Ok(())
    }
}

impl BlockSource for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len();
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => self
                .read_aligned(offset, buffer)
                .map_err(|e| self.failed(offset, length, e)),
            Err(e) => Err(self.failed(offset, length, e)),
        }
    }

    fn discard(&self, region: Region) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, flags, region.offset(), region.length()).map_err(|e| {
            let what = format!(
                "cannot discard {} bytes at offset {} of device {}",
                region.length(),
                region.offset(),
                self.device
            );
            Error::with_source(ErrorKind::Source, what, std::io::Error::from(e))
        })
    }
}
