//! A tar archive as a stream.

use std::io::Write;

use snapkeep_api::tree::{EntryKind, TreeNode, TreePath, TreeReader};
use snapkeep_api::{Cancel, Error, ErrorKind, Result};

use super::TarReport;
use super::header::BLOCK;
use super::member::Member;
use crate::limits::{PIECE_BYTES, PROBLEMS_BYTES_MAX, PROBLEMS_MAX};
use crate::links::{Link, Links};
use crate::selection::Selection;
use crate::visit::{Step, Visit, at};

/// GNU tar writes and reads so many bytes at once, so an archive ends with a multiple of them.
const RECORD: u64 = 20 * BLOCK as u64;

/// Writes a part of a tree as a tar archive. Folders above what is selected are members, too.
pub fn write_tar(
    reader: &dyn TreeReader,
    selection: &Selection,
    out: &mut dyn Write,
    cancel: &Cancel,
) -> Result<TarReport> {
    let mut members = Members::new(selection.clone());
    let mut report = TarReport::default();
    let mut buffer = Vec::new();
    while let Some((node, member)) = members.next(reader, &mut report)? {
        cancel.check()?;
        write(out, &member.head)?;
        for run in &member.runs {
            let (mut offset, mut left) = (run.offset, run.length);
            while left > 0 {
                cancel.check()?;
                let length = usize::try_from(left).map_or(PIECE_BYTES, |l| l.min(PIECE_BYTES));
                buffer.resize(length, 0);
                let read = reader.read_at(&node, offset, &mut buffer);
                read.map_err(|e| at(members.visit.path(), "cannot be read", e))?;
                write(out, &buffer)?;
                offset += length as u64;
                left -= length as u64;
            }
        }
        zeroes(
            out,
            member.data.next_multiple_of(BLOCK as u64) - member.data,
        )?;
    }
    let end = end(report.bytes);
    zeroes(out, end)?;
    report.bytes += end;
    out.flush().map_err(|e| not_written(&e))?;
    Ok(report)
}

/// The zeroes at an archive's end: two blocks at least.
pub(super) fn end(bytes: u64) -> u64 {
    (bytes + 2 * BLOCK as u64).next_multiple_of(RECORD) - bytes
}

/// The members of an archive, in order.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) visit: Visit,
    selection: Selection,
    links: Links,
    /// Paths of sockets so far.
    told_bytes: usize,
}

impl Members {
    pub(super) fn new(selection: Selection) -> Self {
        let visit = Visit::new(selection.clone());
        Self {
            visit,
            selection,
            links: Links::default(),
            told_bytes: 0,
        }
    }

    /// Those of a whole tree after the entry at this path.
    pub(super) fn after(reader: &dyn TreeReader, path: &TreePath) -> Result<Self> {
        let selection = Selection::all();
        let visit = Visit::after(reader, path)?;
        Ok(Self {
            visit,
            selection,
            links: Links::default(),
            told_bytes: 0,
        })
    }

    /// The next member, with the node that its content is read of. What becomes part of the
    /// archive and what does not is added to the report.
    pub(super) fn next(
        &mut self,
        reader: &dyn TreeReader,
        report: &mut TarReport,
    ) -> Result<Option<(TreeNode, Member)>> {
        while let Some(step) = self.visit.next(reader)? {
            let mut node = match step {
                Step::Enter { node, .. } | Step::Entry(node) => node,
                Step::Unreadable(error) => return Err(error),
                Step::Leave => continue,
            };
            let path = self.visit.path();
            let mut link = None;
            if let EntryKind::HardLink { to } = &node.entry.kind {
                let (what, target) = self.links.resolve(reader, &self.selection, path, to)?;
                if let Link::To(made) = what {
                    link = Some(made);
                }
                node = target;
            }
            let Some(member) = Member::new(reader, path, &node, link.as_ref())? else {
                report.sockets += 1;
                let told = &mut report.socket_paths;
                self.told_bytes += path.as_bytes().len();
                if told.len() < PROBLEMS_MAX && self.told_bytes <= PROBLEMS_BYTES_MAX {
                    told.push(path.clone());
                }
                continue;
            };
            report.members += 1;
            report.flags_lost += u64::from(node.entry.attributes.flags != 0 && link.is_none());
            let bytes = report.bytes.checked_add(member.bytes());
            report.bytes = bytes
                .filter(|bytes| i64::try_from(*bytes).is_ok())
                .ok_or_else(|| {
                    let what = "the tree is too large for one tar archive";
                    Error::new(ErrorKind::Unsupported, what)
                })?;
            return Ok(Some((node, member)));
        }
        Ok(None)
    }
}

fn zeroes(out: &mut dyn Write, mut count: u64) -> Result<()> {
    let block = [0; BLOCK];
    while count > 0 {
        let length = usize::try_from(count).map_or(BLOCK, |count| count.min(BLOCK));
        write(out, &block[..length])?;
        count -= length as u64;
    }
    Ok(())
}

fn write(out: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(|e| not_written(&e))
}

fn not_written(error: &std::io::Error) -> Error {
    let what = format!("the tar archive cannot be written: {error}");
    Error::new(ErrorKind::Target, what)
}
