//! Block status as clients get it: checked, without tiny holes, and cut to what was asked.

use super::{Export, ExportError};
use crate::error::Errno;
use crate::extent::{BASE_ALLOCATION, Extent};
use crate::limits;
use crate::wire::Descriptor;

/// Which answer a client wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Bytes of the export.
    pub(super) size: u64,
    pub(super) context: &'a str,
    pub(super) offset: u64,
    pub(super) length: u64,
    /// One extent is enough.
    pub(super) one: bool,
    /// Holes of `base:allocation` shorter than this are called data.
    pub(super) coalesce_bytes: u64,
}

/// The answer to a block-status request: from `offset` on, at least one descriptor, not past the
/// request. It may be shorter than the request.
pub(super) fn describe(
    export: &dyn Export,
    wanted: Wanted<'_>,
) -> Result<Vec<Descriptor>, ExportError> {
    let Wanted {
        size,
        context,
        offset,
        length,
        one,
        coalesce_bytes,
    } = wanted;
    let coalesce = if context == BASE_ALLOCATION {
        coalesce_bytes
    } else {
        0
    };
    let most = length.min(limits::MAX_STATUS_WINDOW_BYTES);
    // A client that wants one extent asks again and again; looking at the whole range each time
    // would be quadratic.
    let mut window = if one {
        most.min(limits::FIRST_STATUS_WINDOW_BYTES)
    } else {
        most
    };
    loop {
        // Looking further than the window shows how long a hole at its end really is.
        let seen = (offset + window).saturating_add(coalesce).min(size) - offset;
        let extents = export.extents(context, offset, seen)?;
        let mut runs = without_small_holes(&checked(&extents, offset, seen)?, coalesce);
        if one {
            let first = runs.first().map_or(0, |run| run.length);
            if first < window || window == most {
                runs.truncate(1);
                return Ok(cut(runs, window));
            }
            window = window.saturating_mul(2).min(most);
        } else {
            return Ok(cut(runs, window));
        }
    }
}

/// The export's extents as runs from `offset` on, cut to `length`, neighbours of the same flags
/// merged.
fn checked(extents: &[Extent], offset: u64, length: u64) -> Result<Vec<Descriptor>, ExportError> {
    let broken = |what: &str| {
        Err(ExportError::new(
            Errno::Io,
            format!("the export's extents {what}"),
        ))
    };
    let end = offset + length;
    let mut position = offset;
    let mut runs: Vec<Descriptor> = Vec::with_capacity(extents.len());
    for extent in extents {
        if position >= end {
            break;
        }
        if extent.offset != position || extent.length == 0 {
            return broken(&format!(
                "have an empty one, a gap or an overlap at {position}"
            ));
        }
        let run = Descriptor {
            length: extent.length.min(end - position),
            flags: extent.flags,
        };
        position += run.length;
        push(&mut runs, run);
    }
    if position < end {
        return broken(&format!("end at {position}, before {end}"));
    }
    Ok(runs)
}

/// Calls every stretch of holes and zeroes that is shorter than `least` data, which is always a
/// true answer (proto.md, `base:allocation`).
fn without_small_holes(runs: &[Descriptor], least: u64) -> Vec<Descriptor> {
    let mut out = Vec::with_capacity(runs.len());
    for stretch in runs.chunk_by(|one, other| (one.flags == 0) == (other.flags == 0)) {
        let length: u64 = stretch.iter().map(|run| run.length).sum();
        if length < least {
            push(&mut out, Descriptor { length, flags: 0 });
        } else {
            for run in stretch {
                push(&mut out, *run);
            }
        }
    }
    out
}

/// Drops what lies behind the first `length` bytes.
fn cut(mut runs: Vec<Descriptor>, length: u64) -> Vec<Descriptor> {
    let mut left = length;
    runs.retain_mut(|run| {
        run.length = run.length.min(left);
        left -= run.length;
        run.length > 0
    });
    runs.truncate(limits::MAX_STATUS_DESCRIPTORS_SENT);
    runs
}

fn push(runs: &mut Vec<Descriptor>, run: Descriptor) {
    match runs.last_mut() {
        Some(last) if last.flags == run.flags => last.length += run.length,
        _ => runs.push(run),
    }
}
