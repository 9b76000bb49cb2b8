//! Signs what the tests ask the server by themselves, and what a proxy changed, as S3 has it (version 4).

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};

/// What opens the server.
pub(crate) const ACCESS: &str = "key-id";
/// Its secret.
pub(crate) const SECRET: &str = "secret-key-of-the-test";
/// What it is renewed to.
pub(crate) const RENEWED: (&str, &str) = ("renewed", "x");

/// A request that is to be signed.
pub(crate) struct Unsigned<'a> {
    pub(crate) method: &'a str,
    /// Path and query, as they are sent.
    pub(crate) target: &'a str,
    /// Of all that are signed, the host's among them.
    pub(crate) headers: Vec<(String, String)>,
    /// What the header `x-amz-content-sha256` says.
    pub(crate) payload: &'a str,
    /// `x-amz-date`.
    pub(crate) date: &'a str,
    pub(crate) access: &'a str,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text grows");
        text
    })
}

/// The hash of a body.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

impl Unsigned<'_> {
    /// The value of the header `Authorization`.
    pub(crate) fn authorization(mut self) -> String {
        for (name, _) in &mut self.headers {
            name.make_ascii_lowercase();
        }
        self.headers.sort();
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        // The one byte of our names that servers write otherwise here.
        let path = path.replace(':', "%3A");
        let mut parameters: Vec<String> = (query.split('&').filter(|part| !part.is_empty()))
            .map(|part| format!("{part}{}", if part.contains('=') { "" } else { "=" }))
            .map(|part| part.replace('/', "%2F"))
            .collect();
        parameters.sort();
        let names: Vec<&str> = self.headers.iter().map(|(n, _)| n.as_str()).collect();
        let (names, query) = (names.join(";"), parameters.join("&"));
        let lines = self.headers.iter();
        let lines = lines.fold(String::new(), |mut lines, (name, value)| {
            writeln!(lines, "{name}:{}", value.trim()).expect("text grows");
            lines
        });
        let request = format!(
            "{}\n{path}\n{query}\n{lines}\n{names}\n{}",
            self.method, self.payload
        );
        let day = &self.date[..8];
        let scope = format!("{day}/us-east-1/s3/aws4_request");
        let text = format!(
            "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
            self.date,
            hash(request.as_bytes())
        );
        let secret = match self.access {
            name if name == RENEWED.0 => RENEWED.1,
            _ => SECRET,
        };
        let mut key = mac(format!("AWS4{secret}").as_bytes(), day);
        for part in ["us-east-1", "s3", "aws4_request"] {
            key = mac(&key, part);
        }
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
            self.access,
            hex(&mac(&key, &text))
        )
    }
}

/// The time as S3 writes it.
#[expect(
    clippy::disallowed_methods,
    reason = "a server compares it with its own"
)]
pub(crate) fn now() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970")
        .as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, in eras of 400.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let march = (5 * day + 2) / 153;
    let day = day - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}
