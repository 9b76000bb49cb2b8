//! The way that every request and reply passes: counted, bounded in size and time, and what is
//! wrong with a reply is noted.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::BodyExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::{Certificate, Client};
use tokio::time::timeout;

use crate::account::{Account, Request};
use crate::attempt::{Broken, Giver, Problem, Refusal, note};
use crate::client::client;
use crate::clock::StorageClock;
use crate::limits;
use crate::pace::Pace;
use crate::sending::{Outcome, send};
use crate::xml;

/// Makes clients that count.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) account: Arc<Account>,
    pub(crate) clock: Arc<StorageClock>,
    /// The host of the endpoint, with its port; the bucket may stand before it.
    pub(crate) host: String,
    /// Who is trusted besides those that the machine trusts.
    pub(crate) authorities: Vec<Certificate>,
    /// Who it is that fails to hand out credentials.
    pub(crate) giver: Giver,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // The library allows it for the endpoint as we say, and for machines and containers.
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp);
        let plain = plain.is_some_and(|plain| plain == "true");
        let client =
            client(&self.authorities, plain).map_err(|e| object_store::Error::Generic {
                store: "S3",
                source: Box::new(e),
            })?;
        Ok(HttpClient::new(Service {
            client,
            account: Arc::clone(&self.account),
            clock: Arc::clone(&self.clock),
            host: self.host.clone(),
            giver: self.giver,
        }))
    }
}

#[derive(Debug)]
struct Service {
    client: Client,
    account: Arc<Account>,
    clock: Arc<StorageClock>,
    host: String,
    giver: Giver,
}

/// How pages for people are called.
const PAGES: [&str; 2] = ["text/html", "application/xhtml"];

/// Marks a request whose reply is no object, and of bounded size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole;

/// Why a request ends here; what is to be told was noted.
#[derive(Debug)]
struct Noted;

impl std::fmt::Display for Noted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request failed")
    }
}

impl std::error::Error for Noted {}

fn noted(problem: Problem) -> HttpError {
    note(problem);
    HttpError::new(HttpErrorKind::Unknown, Noted)
}

impl Service {
    fn kind(&self, request: &HttpRequest) -> Request {
        let authority = request.uri().authority().map_or("", |a| a.as_str());
        let ours = (authority.strip_suffix(self.host.as_str()))
            .is_some_and(|before| before.is_empty() || before.ends_with('.'));
        if !ours {
            return Request::Credentials;
        }
        let query = request.uri().query().unwrap_or_default();
        match *request.method() {
            Method::PUT => Request::Put,
            Method::HEAD => Request::Head,
            Method::DELETE => Request::Delete,
            _ if query.contains("list-type=2") || query.starts_with("versions&") => Request::List,
            _ => Request::Get,
        }
    }

    /// A body that is no object, of bounded size.
    async fn whole(&self, body: HttpResponseBody, kind: Request) -> Result<Bytes, HttpError> {
        let mut body = body;
        let (mut bytes, mut pace) = (BytesMut::new(), Pace::new());
        while let Some(frame) = (timeout(pace.patience(), body.frame()).await)
            .map_err(|_elapsed| silent(kind, self.giver))?
        {
            let frame = frame.map_err(|e| failed(&e, kind, self.giver))?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > limits::REPLY_MAX {
                    let what = "is longer than any reply may be".to_owned();
                    return Err(noted(Problem::Wrong(what)));
                }
                pace.got(data.len());
                self.account.received(data.len());
                bytes.extend_from_slice(data);
            }
        }
        Ok(bytes.freeze())
    }
}

fn silent(kind: Request, giver: Giver) -> HttpError {
    let what = "it did not answer in time".to_owned();
    noted(if kind == Request::Credentials {
        Problem::Credentials(what, giver)
    } else {
        Problem::Transport(what, Broken::Connection)
    })
}

/// A failure of the connection, in one line.
fn failed(error: &HttpError, kind: Request, giver: Giver) -> HttpError {
    let mut words = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    words.dedup();
    let line = words.join(": ").replace(['\n', '\r'], " ");
    noted(if kind == Request::Credentials {
        Problem::Credentials(line, giver)
    } else {
        let broken = broken(&line);
        Problem::Transport(line, broken)
    })
}

/// What broke, which only words tell.
fn broken(line: &str) -> Broken {
    if line.contains("certificate") {
        Broken::Certificate
    } else if line.contains("dns error") {
        Broken::Name
    } else {
        Broken::Connection
    }
}

/// Why a reply of success is none of the storage's: something before it may say that all is well, such as
/// with a page for people, and the storage has seen nothing.
fn unlike(kind: Request, of_lock: bool, headers: &HeaderMap, body: &[u8]) -> Option<&'static str> {
    let has_etag = headers.contains_key(ETAG);
    let is_empty = body.trim_ascii().is_empty();
    match kind {
        Request::Put if of_lock => (!is_empty).then_some("has a body, and should have none"),
        Request::Put => (!has_etag).then_some("is not of an S3 server: it has no ETag"),
        Request::Delete => (!is_empty).then_some("has a body, and should have none"),
        Request::Head => no_object(headers),
        // A whole one is judged by what it holds.
        Request::Get | Request::List | Request::Credentials => None,
    }
}

/// Why a reply cannot be about an object of ours: none was put as a page.
fn no_object(headers: &HeaderMap) -> Option<&'static str> {
    if !headers.contains_key(ETAG) {
        return Some("is not of an S3 server: it has no ETag");
    }
    let is_page = (headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes))
        .is_some_and(|of| PAGES.iter().any(|page| starts_with(of, page)));
    is_page.then_some("is not of an S3 server: it is a page for people")
}

fn starts_with(text: &[u8], start: &str) -> bool {
    (text.get(..start.len())).is_some_and(|text| text.eq_ignore_ascii_case(start.as_bytes()))
}

fn refusal(status: u16, region: Option<String>, body: &Bytes) -> Refusal {
    let text = String::from_utf8_lossy(body);
    let words = |name: &str| {
        let found = xml::element(&text, name).unwrap_or_default();
        let short: String = found.chars().take(limits::WORDS_MAX).collect();
        short
            .escape_debug()
            .to_string()
            .replace("\\'", "'")
            .replace("\\\"", "\"")
    };
    Refusal {
        status,
        code: words("Code"),
        words: words("Message"),
        region: region.or_else(|| Some(words("Region")).filter(|region| !region.is_empty())),
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let kind = self.kind(&request);
        let of_lock = request.uri().query() == Some("retention");
        let is_whole = request.extensions().get::<Whole>().is_some();
        let length = request.body().content_length() as u64;
        (self.account.begin(kind, length)).map_err(|e| noted(Problem::Unsent(e)))?;
        let plain = request.uri().scheme_str() == Some("http");
        let patience = match (kind == Request::Credentials, plain) {
            (true, true) => limits::NEIGHBOUR_PATIENCE,
            (true, false) => limits::CONNECT_PATIENCE,
            (false, _) => limits::IDLE_PATIENCE + Duration::from_secs(length / limits::SLOWEST),
        };
        let reply = match send(&self.client, request, patience).await {
            Outcome::Answered(reply) => reply,
            Outcome::Broke(error) => return Err(failed(&error, kind, self.giver)),
            Outcome::Silent => return Err(silent(kind, self.giver)),
        };
        let (parts, body) = reply.into_parts();
        if kind != Request::Credentials {
            self.clock.note(&parts.headers);
        }
        if !parts.status.is_success() {
            let region = (parts.headers.get("x-amz-bucket-region"))
                .and_then(|region| region.to_str().ok().map(str::to_owned));
            let body = self.whole(body, kind).await?;
            let status = parts.status.as_u16();
            note(if kind == Request::Credentials {
                let refused = status != 429 && status < 500;
                let giver = if refused && self.giver == Giver::Failed {
                    Giver::Refused
                } else {
                    self.giver
                };
                Problem::Credentials(format!("the answer was the status {status}"), giver)
            } else {
                Problem::Refused(refusal(status, region, &body))
            });
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        if kind == Request::Get && !is_whole {
            if let Some(why) = no_object(&parts.headers) {
                return Err(noted(Problem::Wrong(why.to_owned())));
            }
            let account = Arc::clone(&self.account);
            let body = body.map_frame(move |frame| {
                let length = frame.data_ref().map_or(0, Bytes::len);
                account.received(length);
                frame
            });
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        let body = self.whole(body, kind).await?;
        if kind == Request::List
            && !is_whole
            && let Err(why) = xml::check_page(&String::from_utf8_lossy(&body))
        {
            return Err(noted(Problem::Wrong(why)));
        }
        // Some endpoints begin to answer before they know how it ends.
        if kind == Request::Put && body.windows(7).any(|part| part == b"<Error>") {
            note(Problem::Refused(refusal(503, None, &body)));
            return Err(HttpError::new(HttpErrorKind::Unknown, Noted));
        }
        if let Some(why) = unlike(kind, of_lock, &parts.headers, &body) {
            return Err(noted(Problem::Wrong(why.to_owned())));
        }
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}
