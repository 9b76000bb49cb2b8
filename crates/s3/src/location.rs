//! Where a repository is: `s3://BUCKET/PREFIX?endpoint=…&region=…&path-style=…`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use snapkeep_repo::{Error, ErrorKind, FileName, Result};

use crate::limits;

/// How a location begins.
const SCHEME: &str = "s3://";

/// A bucket, a prefix in it, and how its endpoint is reached. It holds no secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    bucket: String,
    prefix: Option<FileName>,
    /// Without it, Amazon's own.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) path_style: Option<bool>,
    /// Whether plain HTTP was asked for by name.
    pub(crate) insecure: bool,
}

impl Location {
    /// Whether this text means a bucket, and no folder.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The same with an endpoint and a region, where the location names none itself.
    #[must_use]
    pub fn or(mut self, endpoint: Option<&str>, region: Option<&str>) -> Self {
        self.endpoint = self.endpoint.or_else(|| endpoint.map(str::to_owned));
        self.region = self.region.or_else(|| region.map(str::to_owned));
        self
    }

    /// The same bucket at each shorter prefix, and at none.
    pub fn around(&self) -> Vec<Self> {
        let prefix = self.prefix.as_ref().map_or("", FileName::as_str);
        let ends = prefix.match_indices('/').map(|(at, _)| prefix.get(..at));
        let shorter = ends.map(|shorter| shorter?.parse().ok()).rev();
        let none = self.prefix.is_some().then_some(None);
        (shorter.chain(none))
            .map(|prefix| Self {
                prefix,
                ..self.clone()
            })
            .collect()
    }

    /// The address of the endpoint, as it was given; `None` stands for that of AWS.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The key of a file's object.
    pub(crate) fn key(&self, name: &str) -> String {
        match &self.prefix {
            None => name.to_owned(),
            Some(prefix) => format!("{prefix}/{name}"),
        }
    }

    /// The file whose object has this key.
    pub(crate) fn name(&self, key: &str) -> Option<FileName> {
        let rest = match &self.prefix {
            None => key,
            Some(prefix) => key.strip_prefix(prefix.as_str())?.strip_prefix('/')?,
        };
        rest.parse().ok()
    }

    /// The address of the endpoint, after this checked that it may be used.
    pub(crate) fn checked_endpoint(&self) -> Result<Option<String>> {
        let Some(endpoint) = &self.endpoint else {
            return Ok(None);
        };
        let invalid = |why: &str| {
            let what = format!("the endpoint {} {why}", endpoint.escape_debug());
            Error::new(ErrorKind::Invalid, what)
        };
        let (host, plain) = if let Some(rest) = endpoint.strip_prefix("https://") {
            (rest, false)
        } else if let Some(rest) = endpoint.strip_prefix("http://") {
            (rest, true)
        } else {
            return Err(invalid("does not begin with https:// (or http://)"));
        };
        let host = host.trim_end_matches('/');
        let fine = |c: char| c.is_ascii_alphanumeric() || ".-:[]_".contains(c);
        if host.is_empty() || !host.chars().all(fine) {
            return Err(invalid("is not a host, with a port if it needs one"));
        }
        if plain && !self.insecure && !is_loopback(host) {
            return Err(invalid(
                "would send everything in the open: use https://, or add insecure-http=true to the location",
            ));
        }
        Ok(Some(endpoint.trim_end_matches('/').to_owned()))
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // Whoever takes it for a URL may have put a secret before an @.
        let start = text.rfind('@').map_or(0, |at| at + 1);
        let shown: String = text[start..].chars().take(200).collect();
        let invalid = |why: String| {
            let what = format!(
                "{} is no location of a repository in S3: {why}",
                shown.escape_debug()
            );
            Error::new(ErrorKind::Invalid, what)
        };
        let rest = (text.strip_prefix(SCHEME)).filter(|_| text.len() <= limits::LOCATION_MAX);
        let rest = rest.ok_or_else(|| invalid("it must be s3://BUCKET/PREFIX".to_owned()))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let fine = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(fine) {
            let why = "a bucket's name has 3 to 63 letters, digits, dots and hyphens";
            return Err(invalid(why.to_owned()));
        }
        let prefix = prefix.trim_end_matches('/');
        if prefix.len() > limits::PREFIX_MAX {
            return Err(invalid("the prefix is too long".to_owned()));
        }
        let prefix = (!prefix.is_empty())
            .then(|| prefix.parse())
            .transpose()
            .map_err(|e: Error| invalid(e.to_string()))?;
        let mut location = Self {
            bucket: bucket.to_owned(),
            prefix,
            endpoint: None,
            region: None,
            path_style: None,
            insecure: false,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = unescaped(value).ok_or_else(|| invalid(format!("{key} is malformed")))?;
            let flag = || match value.as_str() {
                "true" | "1" | "yes" => Ok(true),
                "false" | "0" | "no" => Ok(false),
                _ => Err(invalid(format!("{key} must be true or false"))),
            };
            match key {
                "endpoint" => location.endpoint = Some(value),
                "region" => location.region = Some(value),
                "path-style" => location.path_style = Some(flag()?),
                "insecure-http" => location.insecure = flag()?,
                _ => {
                    let why = format!(
                        "it has {}, and only endpoint, region, path-style and insecure-http are known (credentials never belong here)",
                        key.escape_debug()
                    );
                    return Err(invalid(why));
                }
            }
        }
        location.checked_endpoint()?;
        Ok(location)
    }
}

/// Text in which `%XX` stands for a byte.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        (self.prefix.iter()).try_for_each(|prefix| write!(f, "/{prefix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_says_bucket_prefix_and_how_to_get_there() {
        let text = "s3://backups/site/a?endpoint=http://127.0.0.1:9000&region=eu-1&path-style=true";
        let location: Location = text.parse().unwrap();
        assert_eq!(location.bucket(), "backups");
        assert_eq!(location.key("packs/ab"), "site/a/packs/ab");
        let around = location.around().into_iter();
        let around: Vec<_> = around.map(|around| around.key("config")).collect();
        assert_eq!(around, ["site/config", "config"]);
        assert_eq!(location.region.as_deref(), Some("eu-1"));
        assert_eq!(location.path_style, Some(true));
        assert_eq!(location.to_string(), "s3://backups/site/a");
        let escaped: Location = "s3://backups?endpoint=https%3A%2F%2Fs3.example"
            .parse()
            .unwrap();
        assert_eq!(escaped.endpoint.as_deref(), Some("https://s3.example"));
        assert_eq!(escaped.key("config"), "config");
    }

    #[test]
    fn a_key_of_another_prefix_is_no_file() {
        let location: Location = "s3://bucket/a".parse().unwrap();
        assert!(location.name("a/config").is_some());
        for foreign in ["ab/config", "config", "a", "a/", "a//config", "a/../config"] {
            assert!(location.name(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, word) in [
            ("s3://", "3 to 63"),
            ("s3://key:secret@bucket/x", "bucket/x is no location"),
            ("s3://b/x", "3 to 63"),
            ("s3://bucket/../x", ".."),
            ("s3://bucket/a//b", "a//b"),
            ("s3://bucket?secret=x", "secret"),
            ("s3://bucket?path-style=maybe", "true or false"),
            ("s3://bucket?endpoint=ftp://x", "https://"),
            ("s3://bucket?endpoint=https://key:secret@host", "not a host"),
            ("s3://bucket?endpoint=https://host/path", "not a host"),
            ("s3://bucket?endpoint=%G0", "malformed"),
        ] {
            let error = text.parse::<Location>().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_or_asked_for_by_name() {
        let of = |query: &str| format!("s3://bucket?endpoint={query}").parse::<Location>();
        for fine in [
            "http://localhost:1",
            "http://[::1]:9000",
            "http://127.0.0.2",
        ] {
            assert!(of(fine).is_ok(), "{fine}");
        }
        let refused = of("http://10.0.0.1:9000").unwrap_err().to_string();
        assert!(refused.contains("in the open"), "{refused}");
        assert!(of("http://localhost.example").is_err());
        assert!(of("http://10.0.0.1&insecure-http=true").is_ok());
    }
}
