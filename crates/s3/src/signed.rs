//! Requests for which the client library has no words: they pass the same way as its own, signed by
//! it, and are tries like others.

use aws_lc_rs::digest::{Digest, SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use snapkeep_repo::{Error, ErrorKind};

use crate::attempt::{Problem, noted};
use crate::fault::Trouble;
use crate::service::Whole;
use crate::storage::S3Storage;

/// Who asks.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) client: HttpClient,
    /// The address of the bucket.
    pub(crate) bucket: String,
    pub(crate) region: String,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) method: Method,
    /// An object's key; without one the bucket is asked.
    pub(crate) key: Option<String>,
    /// Names and values.
    pub(crate) query: Vec<(&'static str, Option<String>)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// Of the body, if it has one.
    sum: Option<Digest>,
}

impl Question {
    pub(crate) fn new(method: Method, key: Option<&str>) -> Self {
        Self {
            method,
            key: key.map(str::to_owned),
            query: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            sum: None,
        }
    }

    /// About a part of what S3 knows.
    pub(crate) fn about(mut self, name: &'static str) -> Self {
        self.query.push((name, None));
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, Some(value.into())));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body and its checksum, so that what arrives changed is refused; buckets with locks take
    /// nothing without.
    pub(crate) fn body(self, body: Bytes) -> Self {
        let sum = digest(&SHA256, &body);
        // Nobody else says how long an empty body is, and endpoints want to know.
        let mut question = self
            .header("content-length", body.len().to_string())
            .header("x-amz-sdk-checksum-algorithm", "SHA256")
            .header("x-amz-checksum-sha256", STANDARD.encode(sum));
        question.body = body;
        question.sum = Some(sum);
        question
    }
}

/// What came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl S3Storage {
    /// Asks once; to be called in a try.
    pub(crate) async fn ask_signed(&self, what: Question) -> Result<Answer, Trouble> {
        self.asker().ask(self.store(), what).await
    }

    /// What an object is, or one of its versions, in the words of the reply's headers. Such a reply
    /// has no body, so that a refusal does not say what is wrong: then something is asked whose
    /// refusal does.
    pub(crate) async fn ask_headers(
        &self,
        path: &Path,
        version: Option<&str>,
    ) -> Result<Answer, Trouble> {
        let question = |method| {
            let question = Question::new(method, Some(path.as_ref()));
            match version {
                Some(version) => question.with("versionId", version),
                None => question,
            }
        };
        let trouble = match self.ask_signed(question(Method::HEAD)).await {
            Ok(answer) => return Ok(answer),
            Err(trouble) => trouble,
        };
        match (noted(), version) {
            (Some(Problem::Refused(refusal)), Some(_)) if refusal.status == 404 => {
                let question = question(Method::GET).header("range", "bytes=0-0");
                match self.ask_signed(question).await {
                    Ok(_) => Err(Trouble::Wrong(
                        "says that the version is not there, and it is".to_owned(),
                    )),
                    Err(other) => Err(other),
                }
            }
            _ => Err(self.explained(path, trouble).await),
        }
    }
}

impl Asker {
    async fn ask(&self, store: &AmazonS3, what: Question) -> Result<Answer, Trouble> {
        let credential = store.credentials().get_credential().await?;
        let sum = what.sum;
        let mut request = self.request(what)?;
        request.extensions_mut().insert(Whole);
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.region);
        let sum = sum.as_ref().map(Digest::as_ref);
        (authorizer.try_authorize(&mut request, sum)).map_err(|e| unusable(&e))?;
        let path = request.uri().path().to_owned();
        let reply = self.client.execute(request).await;
        let (parts, body) = reply.map_err(|e| library(e.into()))?.into_parts();
        if !parts.status.is_success() {
            // What was noted on the way says more.
            let source = format!("the status is {}", parts.status).into();
            return Err(Trouble::Library(match parts.status.as_u16() {
                404 => object_store::Error::NotFound { path, source },
                412 => object_store::Error::Precondition { path, source },
                _ => generic(source),
            }));
        }
        let body = body.collect().await.map_err(|e| library(e.into()))?;
        Ok(Answer {
            headers: parts.headers,
            body: body.to_bytes(),
        })
    }

    fn request(&self, what: Question) -> Result<HttpRequest, Trouble> {
        let mut url = self.bucket.clone();
        if let Some(key) = &what.key {
            url.push('/');
            url.push_str(&escaped(key, "/"));
        }
        let mut join = '?';
        for (name, value) in &what.query {
            url.push(join);
            join = '&';
            url.push_str(name);
            if let Some(value) = value {
                url.push('=');
                url.push_str(&escaped(value, ""));
            }
        }
        let mut request = http::Request::builder().method(what.method).uri(url);
        for (name, value) in &what.headers {
            let value = HeaderValue::from_str(value).map_err(|e| unusable(&e))?;
            request = request.header(HeaderName::from_static(name), value);
        }
        (request.body(HttpRequestBody::from(what.body))).map_err(|e| unusable(&e))
    }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> object_store::Error {
    object_store::Error::Generic {
        store: "S3",
        source,
    }
}

fn library(source: Box<dyn std::error::Error + Send + Sync>) -> Trouble {
    Trouble::Library(generic(source))
}

fn unusable(why: &dyn std::fmt::Display) -> Trouble {
    let what = format!("the request cannot be made: {why}");
    Trouble::Final(Error::new(ErrorKind::Invalid, what))
}

/// Text in which everything but what needs no `%XX` has one, and but these.
fn escaped(text: &str, but: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || but.contains(c) {
            escaped.push(c);
            continue;
        }
        escaped.push('%');
        for half in [byte >> 4, byte & 15] {
            escaped.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_empty_body_is_told() {
        let question = Question::new(Method::PUT, Some("a")).body(Bytes::new());
        let told = ("content-length", "0".to_owned());
        assert!(question.headers.contains(&told), "{:?}", question.headers);
    }

    #[test]
    fn keys_are_escaped_as_they_are_signed() {
        assert_eq!(escaped("a/b+c=d:e f", "/"), "a/b%2Bc%3Dd%3Ae%20f");
        assert_eq!(escaped("a/b", ""), "a%2Fb");
    }
}
