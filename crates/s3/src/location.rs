//! Where a repository is: `s3://BUCKET/PREFIX?endpoint=…&region=…&path-style=…`.

use std::fmt;
use std::str::FromStr;

use snapkeep_repo::{Error, ErrorKind, FileName, Result};
use url::{Host, Url};

use crate::environment;
use crate::limits;

/// How a location begins.
const SCHEME: &str = "s3://";

/// A bucket, a prefix in it, and how its endpoint is reached. It holds no secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Location {
    bucket: String,
    prefix: Option<FileName>,
    /// Without it, Amazon's own. Each is written in one way only.
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    /// Whether plain HTTP was asked for by name.
    insecure: bool,
}

/// How requests reach the bucket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    /// Of the bucket, or of the endpoint if the bucket stands in the path.
    pub(crate) url: String,
    /// The host of the endpoint, with its port; the bucket may stand before it.
    pub(crate) host: String,
    pub(crate) path_style: bool,
    /// Whether all is sent in the open.
    pub(crate) plain: bool,
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

    /// The same with an endpoint and a region, where the location names none itself: these, or those
    /// of the environment.
    pub fn resolved(self, endpoint: Option<&str>, region: Option<&str>) -> Result<Self> {
        self.resolved_by(endpoint, region, environment::first)
    }

    fn resolved_by(
        mut self,
        endpoint: Option<&str>,
        region: Option<&str>,
        environment: impl Fn(&[&str]) -> Option<String>,
    ) -> Result<Self> {
        let of = |named: Option<&str>, names: &[&str]| {
            (named.map(str::to_owned)).or_else(|| environment(names))
        };
        if self.endpoint.is_none() {
            self.endpoint = of(endpoint, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        }
        if self.region.is_none() {
            self.region = of(region, &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        }
        self.checked()
    }

    /// The same in the one way to write it, if it can be used.
    fn checked(mut self) -> Result<Self> {
        if let Some(endpoint) = &self.endpoint {
            self.endpoint = Some(self.endpoint_of(endpoint)?);
        }
        let fine = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let region = self.region();
        if !(1..=63).contains(&region.len()) || !region.chars().all(fine) {
            let what = format!("{} is no region", region.escape_debug());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        self.address()?;
        Ok(self)
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

    /// The same bucket at a longer prefix.
    pub(crate) fn below(&self, folder: &str) -> Result<Self> {
        let prefix = Some(self.key(folder).parse()?);
        Ok(Self {
            prefix,
            ..self.clone()
        })
    }

    /// The address of the endpoint, in the one way to write it; `None` stands for that of AWS.
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

    pub(crate) fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("us-east-1")
    }

    /// An endpoint in the one way to write it, if it may be used.
    fn endpoint_of(&self, text: &str) -> Result<String> {
        let invalid = |why: &str| {
            // What stands before an @ may be a secret.
            let shown = text.rsplit('@').next().unwrap_or_default();
            let what = format!("the endpoint {} {why}", shown.escape_debug());
            Error::new(ErrorKind::Invalid, what)
        };
        let no_host =
            |why: &str| invalid(&format!("is not a host, with a port if it needs one{why}"));
        let url = Url::parse(text).map_err(|e| {
            if e == url::ParseError::RelativeUrlWithoutBase {
                return invalid("does not begin with https:// (or http://)");
            }
            no_host(&format!(" ({e})"))
        })?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(invalid("does not begin with https:// (or http://)"));
        }
        let more = !["", "/"].contains(&url.path())
            || !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some();
        let host = url.host().filter(|_| !more).ok_or_else(|| no_host(""))?;
        if url.scheme() == "http" && !self.insecure && !is_loopback(&host) {
            return Err(invalid(
                "would send everything in the open: use https://, or add insecure-http=true to the location",
            ));
        }
        Ok(url.origin().ascii_serialization())
    }

    /// How the bucket is reached.
    pub(crate) fn address(&self) -> Result<Address> {
        let bucket = &self.bucket;
        // Names with dots have no certificate below the endpoint's own.
        let path_style =
            (self.path_style).unwrap_or(self.endpoint.is_some() || bucket.contains('.'));
        let amazon = || format!("https://s3.{}.amazonaws.com", self.region());
        let endpoint = self.endpoint.clone().unwrap_or_else(amazon);
        let (scheme, host) = endpoint.split_once("://").unwrap_or(("https", &endpoint));
        let url = if path_style {
            endpoint.clone()
        } else {
            format!("{scheme}://{bucket}.{host}")
        };
        if let Err(e) = Url::parse(&url) {
            let what = format!("{url} is no address of a bucket ({e}): use path-style=true");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Address {
            host: host.to_owned(),
            plain: scheme == "http",
            url,
            path_style,
        })
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    }
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
        location.checked()
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
            (
                "s3://bucket?endpoint=https://key:secret@host",
                "endpoint host is not a host",
            ),
            ("s3://bucket?endpoint=https://host/path", "not a host"),
            ("s3://bucket?endpoint=https://10.0.0.256:9000", "not a host"),
            ("s3://bucket?endpoint=https://host:99999", "not a host"),
            ("s3://bucket?endpoint=https://host:9a", "not a host"),
            ("s3://bucket?endpoint=https://", "not a host"),
            ("s3://bucket?endpoint=http://[::1]x", "not a host"),
            ("s3://bucket?endpoint=https://host?x=y", "not a host"),
            ("s3://bucket?endpoint=host:9000", "https://"),
            ("s3://bucket?endpoint=s3.example", "https://"),
            ("s3://bucket?region=eu west", "no region"),
            (
                "s3://bucket?endpoint=https://10.0.0.1&path-style=false",
                "path-style",
            ),
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

    #[test]
    fn an_endpoint_has_one_way_to_be_written_wherever_it_is_named() {
        let none = |_: &[&str]| None;
        let plain = || "s3://bucket/a".parse::<Location>().unwrap();
        let of_location: Location = "s3://bucket/a?endpoint=https://S3.example:443/"
            .parse()
            .unwrap();
        let of_settings = plain()
            .resolved_by(Some("https://s3.example/"), None, none)
            .unwrap();
        let environment = |names: &[&str]| {
            (names == ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
                .then(|| "https://s3.example".to_owned())
        };
        let of_environment = plain().resolved_by(None, None, environment).unwrap();
        assert_eq!(of_location.endpoint(), Some("https://s3.example"));
        assert_eq!(of_location, of_settings);
        assert_eq!(of_location, of_environment);
        let first = of_location
            .clone()
            .resolved_by(Some("https://other"), Some("eu-1"), environment)
            .unwrap();
        assert_eq!(first.endpoint(), Some("https://s3.example"));
        assert_eq!(first.region(), "eu-1");
        let wrong = plain().resolved_by(None, None, |_| Some("nonsense".to_owned()));
        assert!(wrong.is_err());
    }

    #[test]
    fn a_bucket_stands_in_the_path_or_before_the_host() {
        let url = |text: &str| text.parse::<Location>().unwrap().address().unwrap().url;
        assert_eq!(
            url("s3://bucket"),
            "https://bucket.s3.us-east-1.amazonaws.com"
        );
        assert_eq!(url("s3://my.bucket"), "https://s3.us-east-1.amazonaws.com");
        assert_eq!(url("s3://bucket?endpoint=https://x:1"), "https://x:1");
        let before = "s3://bucket?endpoint=https://x:1&path-style=false";
        assert_eq!(url(before), "https://bucket.x:1");
    }
}
