//! A restored disk, read as qemu-img reads it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom as From};
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use snapkeep_api::{Error, ErrorKind, Region, Result, VolumeReader};

use super::broken;

/// A file or a block device.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    size: u64,
}

impl Reader {
    pub(crate) fn new(mut file: File) -> io::Result<Self> {
        // A block device's metadata have no size.
        let size = file.seek(From::End(0))?;
        Ok(Self { file, size })
    }
}

impl VolumeReader for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(broken("a read past the end of a disk"));
        }
        self.file.read_exact_at(buffer, offset).map_err(|e| {
            let what = format!("a restored disk cannot be read at offset {offset}");
            Error::with_source(ErrorKind::Source, what, e)
        })
    }

    fn next_data(&self, offset: u64) -> Result<Option<Region>> {
        if offset >= self.size {
            return Ok(None);
        }
        let failed = |e: Errno| {
            let what = format!("a restored disk's holes cannot be found at offset {offset}");
            Error::with_source(ErrorKind::Source, what, io::Error::from(e))
        };
        match seek(&self.file, SeekFrom::Data(offset)) {
            Err(Errno::NXIO) => Ok(None),
            // Who does not tell of holes has none.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                Ok(Some(Region::new(offset, self.size - offset)?))
            }
            Err(error) => Err(failed(error)),
            Ok(start) => {
                let end = seek(&self.file, SeekFrom::Hole(start)).map_err(failed)?;
                Ok(Some(Region::new(start, end.saturating_sub(start))?))
            }
        }
    }
}
