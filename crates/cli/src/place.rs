//! Where a repository is: in a folder, or in a bucket of S3.

use std::fmt;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer};
use snapkeep_repo::{Cached, FileName, LocalStorage, Storage};
use snapkeep_s3::{Account, Budget, Location, Options, S3Storage};

use crate::failure::{Code, fault, usage};
use crate::units::{size, size_or_zero};
use crate::watched::Watched;

/// What the configuration may say below `[s3]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct S3Settings {
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) credentials_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    /// In seconds.
    pub(crate) retry_deadline: Option<u32>,
    pub(crate) budget_requests: Option<NonZeroU64>,
    #[serde(default, deserialize_with = "size")]
    pub(crate) budget_bytes: Option<NonZeroU64>,
    pub(crate) cache: Option<PathBuf>,
    #[serde(default, deserialize_with = "cache_size")]
    pub(crate) cache_size: CacheSize,
    /// Of the command line.
    #[serde(skip)]
    pub(crate) no_cache: bool,
}

/// The most that the cache holds, in bytes; 0 is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CacheSize(u64);

impl Default for CacheSize {
    fn default() -> Self {
        Self(1 << 30)
    }
}

/// Where the cache is if no place is named.
const CACHE: &str = "/var/cache/snapkeep";

fn cache_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CacheSize, D::Error> {
    size_or_zero(deserializer).map(CacheSize)
}

/// Whether this names a bucket.
pub(crate) fn is_bucket(text: &Path) -> bool {
    text.to_str().is_some_and(Location::is_meant)
}

/// Where a repository is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Folder(PathBuf),
    Bucket(Location, Box<S3Settings>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket(location, _) => location.fmt(f),
        }
    }
}

impl Place {
    /// What a user named.
    pub(crate) fn new(named: &Path, s3: &S3Settings) -> Result<Self> {
        let Some(text) = named.to_str().filter(|_| is_bucket(named)) else {
            return Ok(Self::Folder(named.to_owned()));
        };
        let location: Location =
            (text.parse()).map_err(|e: snapkeep_repo::Error| usage(e.chain()))?;
        let location = (location.resolved(s3.endpoint.as_deref(), s3.region.as_deref()))
            .map_err(|e| usage(e.chain()))?;
        Ok(Self::Bucket(location, Box::new(s3.clone())))
    }

    /// The places in which this one lies.
    pub(crate) fn around(&self) -> Vec<Self> {
        match self {
            Self::Folder(folder) => {
                let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
                let around = whole.ancestors().skip(1);
                around
                    .map(|folder| Self::Folder(folder.to_owned()))
                    .collect()
            }
            Self::Bucket(location, s3) => {
                let around = location.around().into_iter();
                around
                    .map(|location| Self::Bucket(location, s3.clone()))
                    .collect()
            }
        }
    }

    /// The places in this one that a look at a bucket shows, and that may be repositories. A folder
    /// with anything in it is none for a new one.
    pub(crate) fn below(&self) -> Result<Vec<Self>> {
        let Self::Bucket(_, s3) = self else {
            return Ok(Vec::new());
        };
        let storage = self.open()?;
        let Some(bucket) = &storage.bucket else {
            return Ok(Vec::new());
        };
        let below = bucket.configs_below();
        let below = below.with_context(|| format!("cannot look into {self}"))?;
        Ok((below.into_iter())
            .map(|location| Self::Bucket(location, s3.clone()))
            .collect())
    }

    /// The storage there. A folder must be there; a bucket is not asked yet.
    pub(crate) fn open(&self) -> Result<Arc<Watched>> {
        match self {
            Self::Folder(folder) => {
                let storage = LocalStorage::open(folder).map_err(|e| {
                    if e.kind() == snapkeep_repo::ErrorKind::NotFound {
                        let what = "there is no such folder (is its storage mounted? `snapkeep init` makes a new repository)";
                        return fault(Code::NotFound, what);
                    }
                    e.into()
                })?;
                Ok(Arc::new(Watched::new(|_| Ok(Arc::new(storage)))?))
            }
            Self::Bucket(location, s3) => bucket(location, s3, None),
        }
    }

    /// The same for who does not wait: a request is tried for so long.
    pub(crate) fn open_impatient(&self, patience: Duration) -> Result<Arc<Watched>> {
        match self {
            Self::Folder(_) => self.open(),
            Self::Bucket(location, s3) => bucket(location, s3, Some(patience)),
        }
    }

    /// A storage for a new repository; a folder is made.
    pub(crate) fn create(&self) -> Result<Arc<Watched>> {
        match self {
            Self::Folder(folder) => {
                let storage = LocalStorage::create(folder)?;
                Ok(Arc::new(Watched::new(|_| Ok(Arc::new(storage)))?))
            }
            Self::Bucket(..) => self.open(),
        }
    }
}

fn bucket(
    location: &Location,
    s3: &S3Settings,
    patience: Option<Duration>,
) -> Result<Arc<Watched>> {
    let deadline = s3
        .retry_deadline
        .map(|seconds| Duration::from_secs(seconds.into()));
    let deadline = patience.or(deadline);
    let account = ACCOUNT.get_or_init(|| {
        Arc::new(Account::new(Budget {
            requests: s3.budget_requests.map(NonZeroU64::get),
            bytes: s3.budget_bytes.map(NonZeroU64::get),
        }))
    });
    let mut bucket = None;
    let mut watched = Watched::new(|cancelled| {
        let options = Options {
            credentials_file: s3.credentials_file.clone(),
            ca_file: s3.ca_file.clone(),
            retry_deadline: deadline.unwrap_or(snapkeep_s3::limits::RETRY_DEADLINE),
            account: Arc::clone(account),
            cancelled: Arc::new(move || {
                cancelled
                    .get()
                    .is_some_and(snapkeep_api::Cancel::is_cancelled)
            }),
        };
        let storage = S3Storage::new(location.clone(), options)?;
        let storage = Arc::new(storage);
        bucket = Some(Arc::clone(&storage));
        let CacheSize(room) = s3.cache_size;
        if s3.no_cache || room == 0 {
            return Ok(storage);
        }
        let folder = s3.cache.as_deref().unwrap_or(Path::new(CACHE));
        Ok(Arc::new(Cached::new(storage, folder, room)))
    })?;
    watched.bucket = bucket;
    Ok(Arc::new(watched))
}

/// What this run asks of buckets, all together.
static ACCOUNT: OnceLock<Arc<Account>> = OnceLock::new();

/// What this run has asked of a bucket, if there is one.
pub(crate) fn usage_so_far() -> Option<snapkeep_s3::Usage> {
    ACCOUNT.get().map(|account| account.usage())
}

/// The first file that keeps a place from being one for a new repository.
pub(crate) fn first_file(storage: &dyn Storage) -> Result<Option<FileName>> {
    for folder in [
        "packs",
        "index",
        "snapshots",
        "heads",
        "attributes",
        "features",
        "keys",
    ] {
        let mut found = None;
        let stop = snapkeep_repo::Error::new(snapkeep_repo::ErrorKind::Exists, "one is enough");
        let listed = storage.list(&folder.parse()?, &mut |name, _| {
            found = Some(name.clone());
            Err(stop.clone())
        });
        match (listed, found) {
            (_, Some(file)) => return Ok(Some(file)),
            (listed, None) => listed?,
        }
    }
    Ok(None)
}
