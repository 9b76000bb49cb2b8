//! Reads ranges of objects, and believes no reply that is not exactly the one asked for.

use std::ops::Range;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::time::timeout;

use crate::fault::Trouble;
use crate::pace::Pace;

/// What an object's range turned out to be.
#[derive(Debug)]
pub(crate) enum Found {
    Bytes(Vec<u8>),
    /// The reply says that the object has no more bytes than this.
    Shorter(u64),
}

/// The range, by asking for it.
pub(crate) async fn range(
    store: &AmazonS3,
    path: &Path,
    wanted: Range<u64>,
) -> Result<Found, Trouble> {
    let options = GetOptions {
        range: Some(GetRange::Bounded(wanted.clone())),
        ..GetOptions::default()
    };
    // The library compares the range of the reply with what was asked for, up to the object's end.
    let reply = store.get_opts(path, options).await?;
    if reply.range != wanted {
        return Ok(Found::Shorter(reply.meta.size));
    }
    take(reply.into_stream(), wanted).await.map(Found::Bytes)
}

/// The range, by reading the object from its beginning: for endpoints that get ranges wrong.
pub(crate) async fn out_of_whole(
    store: &AmazonS3,
    path: &Path,
    wanted: Range<u64>,
) -> Result<Found, Trouble> {
    let reply = store.get_opts(path, GetOptions::default()).await?;
    if reply.meta.size < wanted.end {
        return Ok(Found::Shorter(reply.meta.size));
    }
    let size = reply.meta.size;
    let mut stream = reply.into_stream();
    let (mut seen, mut bytes, mut pace) = (0, Vec::new(), Pace::new());
    while let Some(part) = next(&mut stream, &mut pace).await? {
        let end = seen + part.len() as u64;
        let from = wanted.start.clamp(seen, end) - seen;
        let to = wanted.end.clamp(seen, end) - seen;
        let within = usize::try_from(from).unwrap_or(usize::MAX)..usize::try_from(to).unwrap_or(0);
        bytes.extend_from_slice(part.get(within).unwrap_or_default());
        seen = end;
    }
    if seen != size {
        return Err(Trouble::Wrong(format!(
            "ended after {seen} of {size} bytes"
        )));
    }
    Ok(Found::Bytes(bytes))
}

/// All of an object of at most so many bytes; how long it is, if that is more. It is asked for as a
/// range, whose reply says how long the object is, so that a body that was cut is seen.
pub(crate) async fn whole(
    store: &AmazonS3,
    path: &Path,
    max: u64,
    plainly: bool,
) -> Result<Result<Vec<u8>, u64>, Trouble> {
    let range = (!plainly).then_some(GetRange::Bounded(0..max.max(1)));
    let options = GetOptions {
        range,
        ..GetOptions::default()
    };
    let reply = store.get_opts(path, options).await?;
    let size = reply.meta.size;
    if size > max {
        return Ok(Err(size));
    }
    take(reply.into_stream(), 0..size).await.map(Ok)
}

/// Collects exactly the range's length.
async fn take(
    mut stream: BoxStream<'static, object_store::Result<Bytes>>,
    wanted: Range<u64>,
) -> Result<Vec<u8>, Trouble> {
    let length = usize::try_from(wanted.end - wanted.start).unwrap_or(usize::MAX);
    let (mut bytes, mut pace) = (Vec::with_capacity(length), Pace::new());
    while let Some(part) = next(&mut stream, &mut pace).await? {
        if part.len() > length - bytes.len() {
            return Err(Trouble::Wrong(format!(
                "has more than the {length} bytes asked for"
            )));
        }
        bytes.extend_from_slice(&part);
    }
    if bytes.len() < length {
        let what = format!("ended after {} of {length} bytes", bytes.len());
        return Err(Trouble::Wrong(what));
    }
    Ok(bytes)
}

async fn next(
    stream: &mut BoxStream<'static, object_store::Result<Bytes>>,
    pace: &mut Pace,
) -> Result<Option<Bytes>, Trouble> {
    let part = timeout(pace.patience(), stream.next()).await;
    let slow = "nothing came any more, or hardly anything";
    let part = part.map_err(|_elapsed| Trouble::Cut(slow.to_owned()))?;
    let part = (part.transpose()).map_err(|e| Trouble::Cut(e.to_string().replace('\n', " ")))?;
    pace.got(part.as_ref().map_or(0, Bytes::len));
    Ok(part)
}
