//! Where a file's data is.

use snapkeep_api::tree::{TreeNode, TreePath, TreeReader};
use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits::RUNS_MAX;
use crate::visit::at;

/// Bytes of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Run {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Run {
    pub(crate) fn end(self) -> u64 {
        self.offset + self.length
    }
}

/// The runs of a file's data; between them are holes. A file of more runs than the limit has its
/// smallest holes counted as data, the same ones every time.
pub(crate) fn of(
    reader: &dyn TreeReader,
    node: &TreeNode,
    path: &TreePath,
    size: u64,
) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut hole_min = 1;
    let mut offset = 0;
    while let Some(run) = next(reader, node, &|| path.clone(), size, offset)? {
        offset = run.end();
        push(&mut runs, run, hole_min);
        while runs.len() > RUNS_MAX {
            hole_min *= 2;
            let all = std::mem::take(&mut runs);
            for run in all {
                push(&mut runs, run, hole_min);
            }
        }
    }
    Ok(runs)
}

/// The next run of a file's data at or after this offset.
pub(crate) fn next(
    reader: &dyn TreeReader,
    node: &TreeNode,
    path: &impl Fn() -> TreePath,
    size: u64,
    offset: u64,
) -> Result<Option<Run>> {
    if offset >= size {
        return Ok(None);
    }
    let told = reader.next_data(node, offset);
    let Some(region) = told.map_err(|e| at(&path(), "cannot be read", e))? else {
        return Ok(None);
    };
    if region.end() > size || region.end() <= offset {
        let path = path();
        let what = format!("the data of {path} in the archive is not where its size says");
        return Err(Error::new(ErrorKind::Corrupt, what));
    }
    let start = region.offset().max(offset);
    Ok(Some(Run {
        offset: start,
        length: region.end() - start,
    }))
}

fn push(runs: &mut Vec<Run>, run: Run, hole_min: u64) {
    match runs.last_mut() {
        Some(last) if run.offset - last.end() < hole_min => last.length = run.end() - last.offset,
        _ => runs.push(run),
    }
}
