//! Puts objects, with locks where they are to be locked, and believes in locks once one was seen.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Method;
use snapkeep_repo::{Error, ErrorKind, FileName, Result, already_there};

use super::{MODE, ObjectLock, Retention, UNTIL, is_to_be_locked};
use crate::clock;
use crate::fault::{Deed, Trouble};

use crate::signed::Question;
use crate::storage::S3Storage;

impl S3Storage {
    /// How the repository's objects are locked, if they are; known once its features were listed,
    /// as whoever opens it does.
    pub fn retention(&self) -> Option<Retention> {
        let known = self.locking.retention.lock();
        *known.unwrap_or_else(PoisonError::into_inner)
    }

    /// Has all that is put from here on locked like this, whatever the repository says: somebody may
    /// have hidden what it said.
    pub fn lock_as(&self, retention: Retention) {
        self.set_retention(retention);
    }

    pub(super) fn set_retention(&self, retention: Retention) {
        let known = self.locking.retention.lock();
        *known.unwrap_or_else(PoisonError::into_inner) = Some(retention);
    }

    /// Takes a feature that was listed. Of several that say it, the longest lock counts.
    pub(crate) fn learn(&self, feature: &FileName) {
        if let Some(found) = Retention::of_file(feature) {
            let known = self.retention();
            if known.is_none_or(|known| known.days() < found.days()) {
                self.set_retention(found);
            }
        }
    }

    /// What time it is for the storage.
    pub(crate) fn storage_now(&self) -> Result<i64> {
        self.clock().now().ok_or_else(|| {
            let what = format!(
                "nothing can be locked in the bucket {}: the storage does not say what time it is",
                self.location().bucket()
            );
            Error::new(ErrorKind::Io, what)
        })
    }

    /// Puts an object, locked from the first moment on if its name is to be. Nothing is lost with a
    /// reply: the same bytes are put again. On the condition that it is `new`, `Exists` if it is not.
    pub(crate) fn put_object(&self, name: &FileName, bytes: Bytes, new: bool) -> Result<()> {
        let path = self.path(name)?;
        let mut question = Question::new(Method::PUT, Some(path.as_ref())).body(bytes);
        if new {
            question = question.header("if-none-match", "*");
        }
        let retention = self.retention().filter(|_| is_to_be_locked(name));
        let Some(retention) = retention else {
            return self.put_as(Deed::Put, name, &question);
        };
        let until = self.storage_now()? + retention.seconds();
        question = question
            .header(MODE, retention.mode().header())
            .header(UNTIL, clock::written(until));
        self.put_as(Deed::PutLocked, name, &question)?;
        if self.locking.saw_lock.load(Ordering::Relaxed) {
            return Ok(());
        }
        // There are endpoints that take the headers and do nothing.
        if self.lock_of(name)?.is_none_or(|lock| lock.until < until) {
            let subject = self.subject(Deed::PutLocked, path.as_ref());
            let why = "it was put, and is not locked, although the repository's objects are to be: \
                       see to the bucket's Object Lock, and to the permission s3:GetObjectRetention";
            return Err(subject.error(ErrorKind::Denied, why));
        }
        self.locking.saw_lock.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn put_as(&self, deed: Deed, name: &FileName, question: &Question) -> Result<()> {
        self.of_object(deed, name, async |_, _| {
            match self.ask_signed(question.clone()).await {
                Err(Trouble::Library(object_store::Error::Precondition { .. })) => {
                    Err(Trouble::Final(already_there(name)))
                }
                asked => asked.map(drop),
            }
        })
    }

    /// The lock of an object, if it has one that may be seen.
    pub(super) fn lock_of(&self, name: &FileName) -> Result<Option<ObjectLock>> {
        let answer = self.of_object(Deed::Length, name, async |path, _| {
            self.ask_headers(path, None).await
        })?;
        Ok(ObjectLock::of(&answer))
    }
}
