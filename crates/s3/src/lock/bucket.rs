//! What a bucket says of versions and locks, and whether its locks hold.

use bytes::Bytes;
use http::Method;
use snapkeep_repo::{Error, ErrorKind, Result, Storage};

use super::{FEATURE, LockMode, MODE, ObjectLock, Retention, UNTIL};
use crate::clock;
use crate::fault::{Deed, Trouble};
use crate::limits;
use crate::probe;
use crate::signed::Question;
use crate::storage::S3Storage;
use crate::xml;

/// What a bucket says of itself; `None` if it does not tell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct OfBucket {
    pub(crate) keeps_versions: Option<bool>,
    pub(crate) locks: Option<bool>,
}

impl S3Storage {
    /// Asks the bucket whether it keeps old versions and can lock objects.
    pub(crate) fn ask_bucket(&self) -> Result<OfBucket> {
        let keeps_versions = self.keeps_versions()?;
        let locks = self.of_bucket("object-lock", "ObjectLock", "ObjectLockEnabled")?;
        Ok(OfBucket {
            keeps_versions,
            locks,
        })
    }

    /// Whether the bucket keeps what is removed as old versions; `None` if it does not tell.
    pub fn keeps_versions(&self) -> Result<Option<bool>> {
        self.of_bucket("versioning", "Versioning", "Status")
    }

    /// Whether an element of a setting is `Enabled`. The root of the reply has these words in its name,
    /// which is not the same everywhere.
    fn of_bucket(&self, what: &'static str, words: &str, element: &str) -> Result<Option<bool>> {
        let subject = self.subject(Deed::AskBucket, what);
        let says = self.run(subject, async |_| {
            let question = Question::new(Method::GET, None).about(what);
            let text = self.ask_signed(question).await?.text();
            let root = xml::root(&text).unwrap_or_default();
            if root.contains(words) {
                let said = xml::element(&text, element).map(str::trim);
                return Ok(Some(said == Some("Enabled")));
            }
            // So answers who takes any question to a bucket for that for a list.
            if root == "ListBucketResult" {
                return Ok(None);
            }
            Err(Trouble::Wrong("does not say it".to_owned()))
        });
        match says {
            Ok(says) => Ok(says),
            // So it is told that there is no such thing.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(false)),
            // Who may not ask, or whose endpoint does not know the question, learns nothing.
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The longest lock that the repository said it has by a file that was removed since, and that the
    /// bucket still has as an old version. `None` also if that may not be looked at.
    pub fn hidden_retention(&self) -> Result<Option<Retention>> {
        let page = match self.versions(&self.location().key(FEATURE), None) {
            Ok(page) => page,
            Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let marks = (page.versions.iter()).filter(|version| version.is_marker && version.is_latest);
        let hidden = marks.filter_map(|mark| Retention::of_file(&self.location().name(&mark.key)?));
        Ok(hidden.max_by_key(Retention::days))
    }

    /// Has all that is put from here on locked, and says so in the repository that is being made.
    /// First it is tried whether a lock holds.
    pub fn lock_with(&self, retention: Retention) -> Result<()> {
        let bucket = self.location().bucket();
        if self.ask_bucket()?.locks == Some(false) {
            let what = format!(
                "the bucket {bucket} has no Object Lock, so nothing in it can be locked: make one that has \
                 (aws s3api create-bucket --bucket NAME --object-lock-enabled-for-bucket), for on most \
                 storages it cannot be added to a bucket later"
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        self.try_lock(retention.mode())?;
        self.set_retention(retention);
        self.put(&retention.file()?, &[])
    }

    /// Locks an object for a moment, and tries to remove that.
    fn try_lock(&self, mode: LockMode) -> Result<()> {
        let name = probe::new_name()?;
        let path = self.path(&name)?;
        // A short lock, since what is tried stays as long.
        let until = self.storage_now()? + limits::LOCK_TRIAL_SECONDS;
        let subject = self.subject(Deed::PutLocked, path.as_ref());
        let put = self.run(subject, async |_| {
            let question = Question::new(Method::PUT, Some(path.as_ref()))
                .header(MODE, mode.header())
                .header(UNTIL, clock::written(until))
                .body(Bytes::from_static(TRIAL));
            self.ask_signed(question).await
        })?;
        let version = put
            .header("x-amz-version-id")
            .unwrap_or_default()
            .to_owned();
        let refuse = |why: &str| {
            let what = format!(
                "objects of the bucket {} cannot be locked: {why}",
                self.location().bucket()
            );
            Err(Error::new(ErrorKind::Invalid, what))
        };
        if version.is_empty() {
            return refuse("it keeps no versions");
        }
        let wanted = ObjectLock { mode, until };
        match self.lock_of(&name)? {
            Some(lock) if lock == wanted => {}
            Some(_) => {
                return refuse("an object that was tried has another lock than it was given");
            }
            None => {
                return refuse(
                    "an object that was tried has no lock (or the credentials lack the permission s3:GetObjectRetention)",
                );
            }
        }
        match self.remove_version(&name, &version) {
            Err(error) if matches!(error.kind(), ErrorKind::Locked | ErrorKind::Denied) => {}
            Ok(()) => return refuse("an object that was tried was removed in spite of its lock"),
            Err(error) => return Err(error),
        }
        match self.remove(&name) {
            Err(error) if matches!(error.kind(), ErrorKind::Locked | ErrorKind::Denied) => Ok(()),
            removed => removed,
        }
    }
}

/// What is locked for a moment.
const TRIAL: &[u8] = b"This object was put by Snapkeep to see whether locks hold.\n";
