//! A tar archive as a file that can be read anywhere, though it is nowhere: what stands at an
//! offset is made when it is read.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snapkeep_api::tree::{TreeNode, TreePath, TreeReader};
use snapkeep_api::{Cancel, Result};

use super::TarReport;
use super::member::Member;
use super::stream::{Members, end};
use crate::limits::{CHECKPOINT_ENTRIES, CHECKPOINTS_BYTES_MAX, CURSORS_MAX};
use crate::selection::Selection;
use crate::visit::at;

/// A whole tree as the same archive that [`write_tar`](super::write_tar) writes. It may be read
/// from several threads at once; who reads on where somebody stopped reads no part of the tree again.
pub struct TarFile {
    reader: Arc<dyn TreeReader>,
    report: TarReport,
    checkpoints: Checkpoints,
    /// Where readings stopped, the last one last.
    cursors: Mutex<Vec<Cursor>>,
}

impl TarFile {
    /// Finds out how long the archive is, by all of the tree's metadata, but no content.
    pub fn open(reader: Arc<dyn TreeReader>, cancel: &Cancel) -> Result<Self> {
        let mut members = Members::new(Selection::all());
        let mut report = TarReport::default();
        let mut checkpoints = Checkpoints::default();
        while members.next(&*reader, &mut report)?.is_some() {
            cancel.check()?;
            checkpoints.passed(members.visit.path(), report.bytes, report.members);
        }
        report.bytes += end(report.bytes);
        let cursors = Mutex::default();
        Ok(Self {
            reader,
            report,
            checkpoints,
            cursors,
        })
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.report.bytes
    }

    /// What it holds, and what it cannot.
    pub fn report(&self) -> &TarReport {
        &self.report
    }

    /// Fills the buffer from this offset on, and tells how much: less than the buffer only at the
    /// archive's end.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let left = self.size().saturating_sub(offset);
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let buffer = &mut buffer[..length];
        if length == 0 {
            return Ok(0);
        }
        let mut cursor = self.cursor(offset)?;
        // A cursor that met an error is not used again.
        cursor.read_at(&*self.reader, offset, buffer)?;
        let mut cursors = self.cursors();
        if cursors.len() == CURSORS_MAX {
            cursors.remove(0);
        }
        cursors.push(cursor);
        Ok(length)
    }

    /// A cursor at or before an offset, as near as there is one.
    fn cursor(&self, offset: u64) -> Result<Cursor> {
        let checkpoint = self.checkpoints.before(offset);
        let start = checkpoint.map_or(0, |checkpoint| checkpoint.offset);
        let mut cursors = self.cursors();
        let usable = cursors.iter().enumerate();
        let usable = usable.filter(|(_, cursor)| (start..=offset).contains(&cursor.start));
        if let Some((nearest, _)) = usable.max_by_key(|(_, cursor)| cursor.start) {
            return Ok(cursors.remove(nearest));
        }
        drop(cursors);
        let members = match checkpoint {
            Some(checkpoint) => Members::after(&*self.reader, &checkpoint.after)?,
            None => Members::new(Selection::all()),
        };
        Ok(Cursor {
            members,
            start,
            member: None,
        })
    }

    fn cursors(&self) -> MutexGuard<'_, Vec<Cursor>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TarFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TarFile")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// Places where reading can begin.
#[derive(Debug, Default)]
struct Checkpoints {
    kept: Vec<Checkpoint>,
    bytes: usize,
    /// How many times every second one was given up.
    halved: u32,
}

/// The member that begins at this offset comes after the entry at this path.
#[derive(Debug)]
struct Checkpoint {
    offset: u64,
    after: TreePath,
}

impl Checkpoints {
    /// So many members, the last one at this path, end at this offset.
    fn passed(&mut self, path: &TreePath, offset: u64, members: u64) {
        if !members.is_multiple_of(CHECKPOINT_ENTRIES << self.halved.min(32)) {
            return;
        }
        self.bytes += weight(path);
        self.kept.push(Checkpoint {
            offset,
            after: path.clone(),
        });
        while self.bytes > CHECKPOINTS_BYTES_MAX && self.kept.len() > 1 {
            self.halved += 1;
            let mut every_second = [false, true].into_iter().cycle();
            self.kept.retain(|_| every_second.next() == Some(true));
            self.bytes = self.kept.iter().map(|kept| weight(&kept.after)).sum();
        }
    }

    fn before(&self, offset: u64) -> Option<&Checkpoint> {
        let after = self.kept.partition_point(|kept| kept.offset <= offset);
        after.checked_sub(1).map(|at| &self.kept[at])
    }
}

fn weight(path: &TreePath) -> usize {
    size_of::<Checkpoint>() + path.as_bytes().len()
}

/// Where a reading is.
#[derive(Debug)]
struct Cursor {
    members: Members,
    /// Where the member begins.
    start: u64,
    /// None before the first is visited, and after the last.
    member: Option<(TreeNode, Member)>,
}

impl Cursor {
    /// Fills the buffer from this offset on, which is not before the member.
    fn read_at(
        &mut self,
        reader: &dyn TreeReader,
        mut offset: u64,
        mut buffer: &mut [u8],
    ) -> Result<()> {
        loop {
            let bytes = self.member.as_ref().map_or(0, |(_, member)| member.bytes());
            if let Some((node, member)) = &self.member {
                let within = offset - self.start;
                let here = usize::try_from(bytes.saturating_sub(within));
                let here = here.map_or(buffer.len(), |here| here.min(buffer.len()));
                let (now, rest) = buffer.split_at_mut(here);
                let read = member.read_at(reader, node, within, now);
                read.map_err(|e| at(self.members.visit.path(), "cannot be read", e))?;
                offset += here as u64;
                buffer = rest;
            }
            if buffer.is_empty() {
                return Ok(());
            }
            self.start += bytes;
            self.member = self.members.next(reader, &mut TarReport::default())?;
            if self.member.is_none() {
                // The end, which is all zeroes.
                buffer.fill(0);
                return Ok(());
            }
        }
    }
}

impl Member {
    /// Fills the buffer with its bytes from this offset on.
    fn read_at(
        &self,
        reader: &dyn TreeReader,
        node: &TreeNode,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        // Parts of the member that end at or before the offset, or begin after the buffer, are cut
        // down to nothing.
        let cut = |start: u64, length: u64| {
            let end = offset + buffer.len() as u64;
            let (from, to) = (start.max(offset), (start + length).min(end));
            (from < to).then(|| (from, index(from - offset)..index(to - offset)))
        };
        let head = cut(0, self.head.len() as u64);
        let mut runs = Vec::new();
        let mut start = self.head.len() as u64;
        for run in &self.runs {
            if let Some((from, range)) = cut(start, run.length) {
                runs.push((run.offset + (from - start), range));
            }
            start += run.length;
        }
        let padding = cut(start, self.bytes() - start);
        if let Some((from, range)) = head {
            let from = index(from);
            let length = range.len();
            buffer[range].copy_from_slice(&self.head[from..from + length]);
        }
        for (from, range) in runs {
            reader.read_at(node, from, &mut buffer[range])?;
        }
        if let Some((_, range)) = padding {
            buffer[range].fill(0);
        }
        Ok(())
    }
}

/// What is known to be within a buffer.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
