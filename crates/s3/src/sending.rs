//! A request on its way: its body goes out piece by piece, so that one that still moves is told from
//! one that nobody takes.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody};
use reqwest::{Body, Client};
use tokio::time::timeout;

use crate::limits;
use crate::pace::in_time;

/// How much of a body was given to the connection, in bytes.
type Moved = Arc<AtomicU64>;

/// What became of a request.
pub(crate) enum Outcome {
    Answered(HttpResponse),
    Broke(HttpError),
    /// There was no answer in time.
    Silent,
}

/// Sends a request, and waits for its reply for at most so long; not past the deadline if nothing
/// moves.
pub(crate) async fn send(client: &Client, request: HttpRequest, patience: Duration) -> Outcome {
    let begun = Instant::now();
    let moved = Moved::default();
    let mut reply = pin!(reply(client, request, &moved));
    let mut seen = 0;
    loop {
        let rest = patience.saturating_sub(begun.elapsed());
        match timeout(in_time(rest), &mut reply).await {
            Ok(Ok(reply)) => return Outcome::Answered(reply),
            Ok(Err(error)) => return Outcome::Broke(error),
            Err(_elapsed) => {}
        }
        let now = moved.load(Ordering::Relaxed);
        if now == seen || begun.elapsed() >= patience {
            return Outcome::Silent;
        }
        seen = now;
    }
}

async fn reply(
    client: &Client,
    request: HttpRequest,
    moved: &Moved,
) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = request.into_parts();
    let url = parts.uri.to_string().parse();
    let url = url.map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
    let bytes = (body.collect().await?).to_bytes();
    let body = if bytes.is_empty() {
        Body::from(bytes)
    } else {
        (parts.headers.entry(CONTENT_LENGTH)).or_insert(HeaderValue::from(bytes.len()));
        in_pieces(bytes, Arc::clone(moved))
    };
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    *request.body_mut() = Some(body);
    let reply = (client.execute(request).await).map_err(broke)?;
    let (parts, body) = http::Response::<Body>::from(reply).into_parts();
    let body = HttpResponseBody::new(body.map_err(broke));
    Ok(HttpResponse::from_parts(parts, body))
}

/// What the client says broke; the address is in it already.
fn broke(error: reqwest::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error.without_url())
}

fn in_pieces(bytes: Bytes, moved: Moved) -> Body {
    Body::wrap_stream(stream::unfold((bytes, moved), async |(mut rest, moved)| {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(rest.len().min(limits::PIECE));
        moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Some((Ok::<_, HttpError>(piece), (rest, moved)))
    }))
}
