//! The content of a file.

use std::os::fd::AsFd;

use rustix::fs::ftruncate;
use rustix::io::{Errno, pwrite};
use snapkeep_api::tree::{TreeNode, TreePath, TreeReader};
use snapkeep_api::{Cancel, Error};

use super::report::{Failure, ProblemKind, Progress};
use crate::limits::PIECE_BYTES;
use crate::runs;
use crate::visit::{at, is_damage};

/// Writes a file's data where it is; what is between stays a hole.
pub(super) fn write(
    reader: &dyn TreeReader,
    node: &TreeNode,
    size: u64,
    file: impl AsFd,
    buffer: &mut Vec<u8>,
    (progress, cancel): (&Progress, &Cancel),
    path: impl Fn() -> TreePath,
) -> Result<(), Failure> {
    let mut offset = 0;
    while let Some(run) = runs::next(reader, node, &path, size, offset).map_err(unreadable)? {
        offset = run.offset;
        let end = run.offset + run.length;
        while offset < end {
            cancel.check()?;
            let length = usize::try_from(end - offset).map_or(PIECE_BYTES, |l| l.min(PIECE_BYTES));
            buffer.resize(length, 0);
            let read = reader.read_at(node, offset, buffer);
            read.map_err(|e| unreadable(at(&path(), "cannot be read", e)))?;
            write_all(&file, offset, buffer)
                .map_err(|errno| Failure::of(errno, "writing it", &path))?;
            offset += length as u64;
            progress.wrote(length as u64);
        }
    }
    if offset < size {
        ftruncate(&file, size).map_err(|errno| Failure::of(errno, "making it as long", &path))?;
    }
    Ok(())
}

fn write_all(file: &impl AsFd, mut offset: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                offset += written as u64;
                bytes = &bytes[written..];
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A file whose bytes in the archive are damaged or gone is missed alone; all else is restored.
fn unreadable(error: Error) -> Failure {
    if is_damage(&error) {
        return Failure::Problem(ProblemKind::NotMade, error.chain());
    }
    Failure::Fatal(error)
}
