//! A file's content.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, pread};

use super::out::Out;
use super::stat::Stat;
use super::stop::Stop;
use super::{Before, Moment};

/// A file whose content is told.
pub(super) struct Content<'a> {
    pub(super) file: BorrowedFd<'a>,
    /// As it was announced: no more is read, whatever is added meanwhile.
    pub(super) stat: &'a Stat,
    pub(super) path: &'a [u8],
}

/// How far data goes, or where it begins.
enum Run {
    Data {
        end: u64,
    },
    Hole {
        end: u64,
    },
    /// The file is shorter by now.
    Nothing,
}

impl Content<'_> {
    /// Tells all of it; whether that could be read.
    ///
    /// It is read and sent, not handed on inside the kernel (`sendfile`): pages of the file itself
    /// would lie in the socket then, and what is stored into them later would be sent too, after
    /// the file was seen to be unchanged.
    pub(super) fn send(self, out: &mut Out, before: &mut Before<'_>) -> Result<bool, Stop> {
        let size = self.stat.size;
        // Without less on the disk than it is long there is no hole worth two calls.
        let sparse = self.stat.stored < size;
        let mut position = 0;
        let mut data_end = if sparse { 0 } else { size };
        while position < size {
            out.live()?;
            if position == data_end {
                match self.run(position) {
                    Run::Data { end } => data_end = end,
                    Run::Hole { end } => {
                        out.hole(end - position)?;
                        (position, data_end) = (end, end);
                        continue;
                    }
                    Run::Nothing => break,
                }
            }
            let sent = out.data(data_end - position, |buffer| self.read(buffer, position))?;
            match sent {
                Ok(0) => break,
                Ok(taken) => position += u64::try_from(taken).unwrap_or(u64::MAX),
                Err(errno) => {
                    Stop::if_not_about_the_entry(errno)?;
                    out.lost(&format!("it cannot be read: {errno}"))?;
                    return Ok(false);
                }
            }
            before(Moment::Piece, self.path);
        }
        let changed = match Stat::of(self.file.as_fd()) {
            Ok(now) => self.stat.changed(&now),
            Err(_) => Some("whether it changed while it was read cannot be told"),
        };
        let shorter = (position < size).then_some("it became shorter while it was read");
        out.end(shorter.or(changed))?;
        Ok(true)
    }

    fn read(&self, buffer: &mut [u8], position: u64) -> Result<usize, Errno> {
        loop {
            match pread(self.file, &mut *buffer, position) {
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// What is at a position.
    fn run(&self, position: u64) -> Run {
        let size = self.stat.size;
        match seek(self.file, SeekFrom::Data(position)) {
            Ok(data) if data > position => Run::Hole {
                end: data.min(size),
            },
            Ok(_) => match seek(self.file, SeekFrom::Hole(position)) {
                Ok(end) if end > position => Run::Data { end: end.min(size) },
                // It is being changed; what there is can be read.
                Ok(_) | Err(_) => Run::Data { end: size },
            },
            // There is no data up to the file's end, which may have come nearer.
            Err(Errno::NXIO) => match Stat::of(self.file.as_fd()) {
                Ok(now) if now.size.min(size) > position => Run::Hole {
                    end: now.size.min(size),
                },
                Ok(_) => Run::Nothing,
                Err(_) => Run::Data { end: size },
            },
            // A file system that knows no holes.
            Err(_) => Run::Data { end: size },
        }
    }
}
