//! What the privileged process says.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use snapkeep_api::tree::{Judgement, TreePath};
use snapkeep_api::{Error, ErrorKind, Result};

use super::encode::message;
use super::fields::{Fault, Reader, put_long};
use super::kind::Kind;
use crate::exclude::Patterns;
use crate::limits;

/// What is to be walked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The tree's root. The walker opens it as the container's root user, so it must be allowed to
    /// go there; a relative one begins where the walker was started.
    pub directory: PathBuf,
    /// What to read of it, as Proxmox VE names it (`./`, `./mnt/point`): each is walked without
    /// going into other file systems.
    pub sources: Vec<Vec<u8>>,
    /// The administrator's exclude patterns, see docs/EXCLUDE.md.
    pub exclude: Vec<Vec<u8>>,
    /// Whether to ask what is known of an earlier archive. Without one it would only cost time.
    pub ask: bool,
}

/// A request as it arrives.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) directory: Vec<u8>,
    pub(crate) sources: Vec<TreePath>,
    pub(crate) exclude: Vec<Vec<u8>>,
    pub(crate) ask: bool,
}

/// Fails, as `Invalid`, if the walker would refuse it.
pub(crate) fn encode_request(request: &Request) -> Result<Vec<u8>> {
    let invalid = |what: String| Error::new(ErrorKind::Invalid, what);
    let directory = request.directory.as_os_str().as_bytes();
    if directory.is_empty() || directory.contains(&0) || directory.len() > limits::SOURCE_BYTES_MAX
    {
        return Err(invalid(
            "the directory to walk has an impossible path".into(),
        ));
    }
    if request.sources.is_empty() || request.sources.len() > limits::SOURCES_MAX {
        let most = limits::SOURCES_MAX;
        return Err(invalid(format!("it takes 1 to {most} sources to walk")));
    }
    let mut sources = Vec::new();
    for source in &request.sources {
        if source.len() > limits::SOURCE_BYTES_MAX {
            return Err(invalid("a source has an impossible path".into()));
        }
        sources.push(TreePath::typed(source)?);
    }
    // The patterns' own message names the one that cannot be used.
    Patterns::new(&request.exclude)?;
    let mut out = Vec::new();
    message(&mut out, Kind::Request, |out| {
        out.push(u8::from(request.ask));
        put_long(out, directory);
        put_count(out, sources.len());
        for source in &sources {
            put_long(out, source.as_bytes());
        }
        put_count(out, request.exclude.len());
        for pattern in &request.exclude {
            put_long(out, pattern);
        }
    });
    Ok(out)
}

pub(crate) fn decode_request(payload: &[u8]) -> Result<Wish, Fault> {
    let mut reader = Reader::new(payload);
    let ask = reader.u8()? != 0;
    let directory = reader.long()?.to_vec();
    let mut sources = Vec::new();
    for _ in 0..count(&mut reader, limits::SOURCES_MAX)? {
        let path = TreePath::new(reader.long()?);
        sources.push(path.map_err(|_| Fault("a source has an impossible path"))?);
    }
    let mut exclude = Vec::new();
    for _ in 0..count(&mut reader, limits::PATTERNS_MAX)? {
        exclude.push(reader.long()?.to_vec());
    }
    reader.end()?;
    Ok(Wish {
        directory,
        sources,
        exclude,
        ask,
    })
}

/// The answers to a batch.
pub(crate) fn answers(out: &mut Vec<u8>, all: impl Iterator<Item = Judgement>) {
    message(out, Kind::Answers, |out| {
        out.extend(all.map(|judgement| match judgement {
            Judgement::Read => 0,
            Judgement::Known => 1,
            Judgement::Audit => 2,
        }));
    });
}

pub(crate) fn decode_answers(payload: &[u8]) -> Result<Vec<Judgement>, Fault> {
    let one = |byte: &u8| match byte {
        0 => Ok(Judgement::Read),
        1 => Ok(Judgement::Known),
        2 => Ok(Judgement::Audit),
        _ => Err(Fault("an answer is none of those known")),
    };
    payload.iter().map(one).collect()
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn count(reader: &mut Reader<'_>, most: usize) -> Result<usize, Fault> {
    match usize::try_from(reader.u32()?) {
        Ok(count) if count <= most => Ok(count),
        _ => Err(Fault("a list is too long")),
    }
}
