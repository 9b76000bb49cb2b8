//! Whether two files have the same content.

use snapkeep_api::tree::{TreeNode, TreePath, TreeReader};
use snapkeep_api::{Cancel, Result};

use crate::limits::PIECE_BYTES;
use crate::runs::{self, Run};
use crate::visit::at;

/// Whether two files of this size differ anywhere. What both have as a hole is not read.
pub(super) fn differs(
    (old, was): (&dyn TreeReader, &TreeNode),
    (new, is): (&dyn TreeReader, &TreeNode),
    size: u64,
    path: &TreePath,
    cancel: &Cancel,
) -> Result<bool> {
    let named = || path.clone();
    let mut offset = 0;
    let mut buffers = (Vec::new(), Vec::new());
    loop {
        cancel.check()?;
        let runs = (
            runs::next(old, was, &named, size, offset)?,
            runs::next(new, is, &named, size, offset)?,
        );
        // From where either has data, to where one of them begins to have it or ends.
        let (start, end) = match runs {
            (None, None) => return Ok(false),
            (Some(run), None) | (None, Some(run)) => (run.offset, run.end()),
            (Some(a), Some(b)) => until_either_changes(a, b),
        };
        let end = end.min(start + PIECE_BYTES as u64);
        let length = usize::try_from(end - start).unwrap_or(PIECE_BYTES);
        let read = |reader: &dyn TreeReader, node, run: Option<Run>, buffer: &mut Vec<u8>| {
            buffer.clear();
            buffer.resize(length, 0);
            match run {
                Some(run) if run.offset <= start => reader.read_at(node, start, buffer),
                _ => Ok(()),
            }
            .map_err(|e| at(path, "cannot be read", e))
        };
        read(old, was, runs.0, &mut buffers.0)?;
        read(new, is, runs.1, &mut buffers.1)?;
        if buffers.0 != buffers.1 {
            return Ok(true);
        }
        offset = end;
    }
}

fn until_either_changes(a: Run, b: Run) -> (u64, u64) {
    let (first, second) = if a.offset <= b.offset { (a, b) } else { (b, a) };
    if first.offset < second.offset {
        (first.offset, first.end().min(second.offset))
    } else {
        (first.offset, first.end().min(second.end()))
    }
}
