//! The content of a file; of a large one, by several threads.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::ftruncate;
use rustix::io::{Errno, pwrite};
use snapkeep_api::tree::{TreeNode, TreePath, TreeReader};
use snapkeep_api::{Cancel, Error};

use super::report::{Failure, ProblemKind, Progress};
use crate::limits::{CLAIM_BYTES, PIECE_BYTES, SPLIT_BYTES};
use crate::runs::{self, Run};
use crate::visit::{at, is_damage};

/// A file that gets its content.
pub(super) struct Content<'a> {
    pub(super) reader: &'a dyn TreeReader,
    pub(super) node: &'a TreeNode,
    pub(super) size: u64,
    pub(super) file: BorrowedFd<'a>,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a Cancel,
    pub(super) path: &'a (dyn Fn() -> TreePath + Sync),
}

/// Who has written what.
#[derive(Default)]
struct Shared {
    /// All data before this offset is written, or somebody is about to.
    claimed: u64,
    failed: Option<Failure>,
}

impl Content<'_> {
    /// Writes the data where it is; what is between stays a hole. A large file is written by this
    /// thread and so many more.
    pub(super) fn write(&self, buffer: &mut Vec<u8>, helpers: usize) -> Result<(), Failure> {
        let shared = Mutex::default();
        if helpers == 0 || self.size < SPLIT_BYTES {
            self.write_claims(&shared, buffer);
        } else {
            thread::scope(|scope| {
                for _ in 0..helpers {
                    scope.spawn(|| self.write_claims(&shared, &mut Vec::new()));
                }
                self.write_claims(&shared, buffer);
            });
        }
        let Shared { claimed, failed } =
            shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failure) = failed {
            return Err(failure);
        }
        if claimed < self.size {
            let longer = ftruncate(self.file.as_fd(), self.size);
            longer.map_err(|errno| Failure::of(errno, "making it as long", self.path))?;
        }
        Ok(())
    }

    /// Writes a piece of data after the other until there is no more, or somebody failed.
    fn write_claims(&self, shared: &Mutex<Shared>, buffer: &mut Vec<u8>) {
        loop {
            // As a condition of the loop, this would hold the lock until the run is written.
            let claimed = self.claim(&mut lock(shared));
            let Some(run) = claimed else {
                return;
            };
            if let Err(failure) = self.write_run(run, buffer) {
                lock(shared).failed.get_or_insert(failure);
            }
        }
    }

    fn claim(&self, shared: &mut Shared) -> Option<Run> {
        if shared.failed.is_some() {
            return None;
        }
        match runs::next(
            self.reader,
            self.node,
            &self.path,
            self.size,
            shared.claimed,
        ) {
            Ok(next) => {
                let mut run = next?;
                run.length = run.length.min(CLAIM_BYTES);
                shared.claimed = run.end();
                Some(run)
            }
            Err(error) => {
                shared.failed = Some(unreadable(error));
                None
            }
        }
    }

    fn write_run(&self, run: Run, buffer: &mut Vec<u8>) -> Result<(), Failure> {
        let mut offset = run.offset;
        while offset < run.end() {
            self.cancel.check()?;
            let left = run.end() - offset;
            let length = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            buffer.resize(length, 0);
            let read = self.reader.read_at(self.node, offset, buffer);
            read.map_err(|e| unreadable(at(&(self.path)(), "cannot be read", e)))?;
            let written = write_all(self.file, offset, buffer);
            written.map_err(|errno| Failure::of(errno, "writing it", self.path))?;
            offset += length as u64;
            self.progress.wrote(length as u64);
        }
        Ok(())
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_all(file: BorrowedFd<'_>, mut offset: u64, mut bytes: &[u8]) -> Result<(), Errno> {
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
