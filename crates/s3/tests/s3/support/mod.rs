//! What the tests share: a server, a proxy before it, and storages at both.

pub(crate) mod archive;
pub(crate) mod moto;
pub(crate) mod proxy;
pub(crate) mod sign;
pub(crate) mod tls;

use std::path::PathBuf;

use snapkeep_repo::FileName;
use snapkeep_s3::{Location, Options, S3Storage};
use tempfile::TempDir;

use moto::Moto;
use proxy::Proxy;

/// A bucket of the server, seen directly and through a proxy.
pub(crate) struct Bucket {
    pub(crate) moto: &'static Moto,
    pub(crate) proxy: Proxy,
    pub(crate) name: String,
    folder: TempDir,
}

impl Bucket {
    /// None if there is no server.
    pub(crate) fn new(test: &str) -> Option<Self> {
        Self::with(test, "")
    }

    /// One with Object Lock.
    pub(crate) fn with_locks(test: &str) -> Option<Self> {
        Self::with(test, "x-amz-bucket-object-lock-enabled: true\r\n")
    }

    /// The same of a server that takes what real ones refuse.
    pub(crate) fn lenient(test: &str) -> Option<Self> {
        Self::new(test).filter(|_| is_lenient(test))
    }

    /// The same, with Object Lock.
    pub(crate) fn lenient_with_locks(test: &str) -> Option<Self> {
        Self::with_locks(test).filter(|_| is_lenient(test))
    }

    fn with(test: &str, headers: &str) -> Option<Self> {
        let moto = moto::moto(test)?;
        Some(Self {
            moto,
            proxy: Proxy::start(&moto.address),
            name: moto.bucket_with(headers),
            folder: tempfile::tempdir().expect("a folder"),
        })
    }

    fn credentials(&self) -> PathBuf {
        let path = self.folder.path().join("credentials");
        let text = format!("{}\n{}\n", sign::ACCESS, sign::SECRET);
        std::fs::write(&path, text).expect("room");
        path
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            credentials_file: Some(self.credentials()),
            ..Options::default()
        }
    }

    fn location(&self, prefix: &str, address: &str) -> Location {
        let name = &self.name;
        (format!("s3://{name}/{prefix}?endpoint=http://{address}").parse()).expect("it is valid")
    }

    /// A storage that reaches the server in its own way.
    pub(crate) fn at(&self, prefix: &str, endpoint: &str, options: Options) -> S3Storage {
        let location = format!("s3://{}/{prefix}?endpoint={endpoint}", self.name);
        S3Storage::new(location.parse().expect("it is valid"), options).expect("it can be used")
    }

    /// What the server says to a request about an object, as text.
    pub(crate) fn ask(&self, method: &str, key: &str) -> String {
        let line = format!("{method} /{}/{key}", self.name);
        self.moto.ask(&line, "", b"")
    }

    /// A storage that reaches the server directly.
    pub(crate) fn direct(&self, prefix: &str) -> S3Storage {
        let location = self.location(prefix, &self.moto.address);
        S3Storage::new(location, self.options()).expect("it can be used")
    }

    /// One that goes through the proxy.
    pub(crate) fn storage(&self, prefix: &str) -> S3Storage {
        self.storage_with(prefix, self.options())
    }

    pub(crate) fn storage_with(&self, prefix: &str, options: Options) -> S3Storage {
        let location = self.location(prefix, &self.proxy.address);
        S3Storage::new(location, options).expect("it can be used")
    }
}

/// Whether the server takes what real ones refuse, such as a lock that has ended already: a test that
/// needs that is not for others.
fn is_lenient(test: &str) -> bool {
    let lenient = std::env::var_os("SNAPKEEP_S3_SERVER").is_none();
    if !lenient {
        eprintln!("SKIP: {test}: needs moto, which takes what the named server refuses");
    }
    lenient
}

pub(crate) fn name(text: &str) -> FileName {
    text.parse().expect("a name")
}
