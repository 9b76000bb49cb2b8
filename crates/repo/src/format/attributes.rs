//! Attributes, `attributes/NAMESPACE/KIND/GUEST/TIME-RANDOM/SEQUENCE-WRITER`: facts about an archive
//! that come after its commit. `SEQUENCE` is 16 hexadecimal digits and `WRITER` 32; the body is JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bytes::{hex, unhex};
use super::id::ChunkId;
use super::snapshot::SnapshotName;
use crate::storage::FileName;
use crate::{Error, ErrorKind, Result, limits};

/// The highest counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Rank {
    pub(crate) sequence: u64,
    pub(crate) writer: [u8; 16],
}

impl Rank {
    pub(crate) fn file(self, archive: &SnapshotName) -> FileName {
        let writer = hex(&self.writer);
        format!("attributes/{archive}/{:016x}-{writer}", self.sequence)
            .parse()
            .expect("hexadecimal digits keep a name valid")
    }

    fn parse(text: &str) -> Option<Self> {
        let (sequence, writer) = text.split_once('-')?;
        Some(Self {
            sequence: u64::from_be_bytes(unhex(sequence)?),
            writer: unhex(writer)?,
        })
    }
}

/// The archive that a file below `attributes` is about, and its rank, if it has the name of an
/// attribute. `None` if it is about none.
pub(crate) fn parse(file: &FileName) -> Option<(SnapshotName, Option<Rank>)> {
    let (archive, last) = file
        .as_str()
        .strip_prefix("attributes/")?
        .rsplit_once('/')?;
    Some((archive.parse().ok()?, Rank::parse(last)))
}

/// What is to become of an archive's attributes: each field that is there replaces what was.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AttributeChange {
    /// Text for people, at most [`NOTES_MAX`](limits::NOTES_MAX) bytes; empty for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Whether it may be neither forgotten nor pruned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<bool>,
    /// What a verification found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Why its caller took its backup for failed, at most
    /// [`CALLER_ERROR_MAX`](limits::CALLER_ERROR_MAX) bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_error: Option<String>,
    /// The log of its backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_log: Option<TaskLogRecord>,
    /// Whether it is no longer listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<bool>,
}

/// What a verification found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Verification {
    /// In one word.
    pub state: VerificationState,
    /// When it ended, in seconds since the epoch.
    pub time: i64,
    /// The program that verified, and its version.
    pub program: String,
    /// The first damage that was found, at most [`CALLER_ERROR_MAX`](limits::CALLER_ERROR_MAX)
    /// bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How closely it looked.
    #[serde(default, skip_serializing_if = "VerificationMode::is_everything")]
    pub mode: VerificationMode,
    /// When all of it was last found good before this, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub everything: Option<i64>,
}

impl Verification {
    /// When all of the archive was last read and found good, in seconds since the epoch.
    pub fn good_by_everything(&self) -> Option<i64> {
        match (self.state, self.mode) {
            (VerificationState::Good, VerificationMode::Everything) => Some(self.time),
            _ => self.everything,
        }
    }
}

/// How closely a verification looked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VerificationMode {
    /// All of the data was read.
    #[default]
    Everything,
    /// A random share of it.
    Sample,
    /// None of it: what names it was, and it is there.
    Metadata,
}

impl VerificationMode {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
    fn is_everything(&self) -> bool {
        *self == Self::Everything
    }
}

/// Whether an archive was found to be whole.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VerificationState {
    /// All that was looked at was proven.
    Good,
    /// Some of it is absent or not what was written.
    Damaged,
}

/// Where a task log lies.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TaskLogRecord {
    /// Its chunks in order: data, each but the last of [`CHUNK_MAX`](limits::CHUNK_MAX) bytes.
    pub chunks: Vec<ChunkId>,
    /// Its bytes, at most [`TASK_LOG_MAX`](limits::TASK_LOG_MAX).
    pub length: u32,
}

impl AttributeChange {
    /// Says what is larger than a reader takes.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let longer = |text: &Option<String>, max| text.as_ref().is_some_and(|t| t.len() > max);
        if longer(&self.notes, limits::NOTES_MAX) {
            return Err("has longer notes than are allowed");
        }
        let problem = self.verification.as_ref().and_then(|v| v.problem.clone());
        if longer(&self.caller_error, limits::CALLER_ERROR_MAX)
            || longer(&problem, limits::CALLER_ERROR_MAX)
        {
            return Err("has a longer error than is allowed");
        }
        if let Some(log) = &self.task_log {
            let length = log.length as usize;
            if length > limits::TASK_LOG_MAX
                || log.chunks.len() != length.div_ceil(limits::CHUNK_MAX)
            {
                return Err("has a longer task log than is allowed, or one in odd chunks");
            }
        }
        Ok(())
    }
}

/// Stands for the id of a snapshot whose record cannot be read.
pub(crate) const OF_DAMAGED: &str = "00000000000000000000000000000000";

/// An attribute's body.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Body {
    /// The snapshot's id.
    pub(crate) snapshot: String,
    #[serde(flatten)]
    pub(crate) change: AttributeChange,
    /// What a newer program wrote: whether it counts is not known.
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, Value>,
}

impl Body {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|e| Error::with_source(ErrorKind::Invalid, "cannot encode attributes", e))
    }

    pub(crate) fn decode(file: &FileName, body: &[u8]) -> Result<Self> {
        let body: Self = serde_json::from_slice(body).map_err(|e| {
            Error::with_source(ErrorKind::Corrupt, format!("{file} is not readable"), e)
        })?;
        (body.change.check()).map_err(|why| Error::corrupt(format!("{file} {why}")))?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_numbers_below_an_archive_name_an_attribute() {
        let archive: SnapshotName = "main/vm/100/1970-0".parse().expect("a name");
        let rank = Rank {
            sequence: 7,
            writer: [9; 16],
        };
        let file = rank.file(&archive);
        assert_eq!(parse(&file), Some((archive.clone(), Some(rank))));
        let odd = format!("attributes/{archive}/7-9").parse().expect("a name");
        assert_eq!(parse(&odd), Some((archive, None)));
        let short = "attributes/main/vm/100/7".parse().expect("a name");
        assert_eq!(parse(&short), None);
    }

    #[test]
    fn what_a_newer_program_wrote_is_kept_apart() {
        let file = "attributes/x".parse().expect("a name");
        let body = Body::decode(&file, br#"{"snapshot":"1","notes":"a","colour":"red"}"#);
        let body = body.expect("a body");
        assert_eq!(body.change.notes.as_deref(), Some("a"));
        assert_eq!(body.other.len(), 1);
    }
}
