//! Why a disk cannot be backed up, or not now.

use serde::Deserialize;
use serde_json::json;
use snapkeep_api::{Error, ErrorKind, Result};

use crate::edges::Edges;
use crate::graph::parse;
use crate::qemu::Qemu;

#[derive(Deserialize)]
struct Job {
    /// The job's ID.
    device: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The disk can never be backed up so.
pub(crate) fn lasting(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, why)
}

/// A block job that has the node on top of a disk, or one under it. At its end it may put another
/// node in that place: what a filter is put on must not be moved away.
pub(crate) fn job(qemu: &mut Qemu, edges: &Edges, top: &str) -> Result<Option<Error>> {
    let ids = edges.jobs(top);
    let Some(id) = ids.first() else {
        return Ok(None);
    };
    let jobs = qemu.execute("query-block-jobs", json!({}))?;
    let jobs: Vec<Job> = parse(jobs, "query-block-jobs")?;
    let kind = jobs.iter().find(|job| job.device == *id);
    let kind = kind.map_or("it has ended by now", |job| &job.kind);
    let why = format!("a block job {id} ({kind}) runs on it: wait until it ends, or cancel it");
    Ok(Some(Error::new(ErrorKind::Unavailable, why)))
}
