//! What an endpoint can do, found out by trying when a repository is made and when somebody asks.
//! Nothing depends on it but what people are told.

use bytes::Bytes;
use http::Method;
use snapkeep_repo::{ErrorKind, FileName, Random, Result, Storage, SystemRandom};

use crate::fault::{Deed, Trouble};
use crate::signed::Question;
use crate::storage::S3Storage;

/// What was found; what is `None` was not to be learned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Abilities {
    /// Whether an object can be put on the condition that there is none.
    pub conditional_put: bool,
    /// Whether an object is listed as soon as it is put.
    pub lists_at_once: bool,
    /// Whether names are listed in order.
    pub lists_in_order: bool,
    /// By how many seconds the storage's clock is ahead of the time that was given.
    pub clock_ahead: i64,
    /// Whether the bucket keeps old versions, by its own settings.
    pub keeps_versions: Option<bool>,
    /// Whether the bucket can lock objects, by its own settings.
    pub locks: Option<bool>,
}

/// What the objects hold.
const BYTES: &[u8] = b"This object was put by Snapkeep to see what the storage can do.\n";

/// A name of an object to try things with.
pub(crate) fn new_name() -> Result<FileName> {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes)?;
    format!("probes/{:016x}", u64::from_le_bytes(bytes)).parse()
}

impl S3Storage {
    /// Puts two objects, tries what there is to try, and removes them. The time is in seconds since 1970.
    pub fn abilities(&self, now: i64) -> Result<Abilities> {
        let name = new_name()?;
        let second: FileName = format!("{name}-2").parse()?;
        // The later name first.
        self.put(&second, BYTES)?;
        let found = self.put(&name, BYTES).and_then(|()| {
            let clock_ahead = self.modified(&name)? - now;
            let (objects, _) = self.page("probes/", None, None)?;
            let listed: Vec<_> = (objects.iter())
                .filter_map(|object| self.location().name(object.location.as_ref()))
                .collect();
            let bucket = self.ask_bucket()?;
            Ok(Abilities {
                conditional_put: self.refuses_second(&name)?,
                lists_at_once: listed.contains(&name) && listed.contains(&second),
                lists_in_order: listed.is_sorted(),
                clock_ahead,
                keeps_versions: bucket.keeps_versions,
                locks: bucket.locks,
            })
        });
        for name in [&name, &second] {
            match self.remove(name) {
                // Whoever may only put and read makes a repository all the same; the object stays.
                Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Locked) => {}
                removed => removed?,
            }
        }
        found
    }

    /// Whether the object cannot be put again on the condition that there is none. Endpoints that do
    /// not know the condition ignore or refuse it.
    fn refuses_second(&self, name: &FileName) -> Result<bool> {
        let path = self.path(name)?;
        let subject = self.subject(Deed::Put, path.as_ref());
        let put = self.run(subject, async |_| {
            let question = Question::new(Method::PUT, Some(path.as_ref()))
                .header("if-none-match", "*")
                .body(Bytes::from_static(BYTES));
            match self.ask_signed(question).await {
                Ok(_) => Ok(false),
                Err(Trouble::Library(object_store::Error::Precondition { .. })) => Ok(true),
                Err(trouble) => Err(trouble),
            }
        });
        match put {
            Err(error) if error.kind() == ErrorKind::Io => Ok(false),
            put => put,
        }
    }
}
