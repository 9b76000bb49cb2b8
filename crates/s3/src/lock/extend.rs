//! Renews the locks of what stays before they end.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Method;
use object_store::ObjectMeta;
use snapkeep_repo::{Error, ErrorKind, FileName, Result};

use super::{CONFIG, FOLDERS, ObjectLock, Retention};
use crate::clock;
use crate::fault::Deed;
use crate::limits;
use crate::side::side_by_side;
use crate::signed::Question;
use crate::storage::S3Storage;

/// What was done about locks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extended {
    /// Objects whose lock was looked at.
    pub looked: u64,
    /// Objects whose lock was renewed, or would be.
    pub extended: u64,
    /// Those among them that had no lock.
    pub unlocked: u64,
    /// Until when the first of them is locked now: seconds since 1970, by the storage's clock.
    pub until: Option<i64>,
}

impl Extended {
    fn add(&mut self, other: Self) {
        self.looked += other.looked;
        self.extended += other.extended;
        self.unlocked += other.unlocked;
        self.until = self.until.into_iter().chain(other.until).min();
    }
}

impl S3Storage {
    /// Has each object that stays locked for the whole time again, if less than half of it is left:
    /// at most two requests for each that is so old. `stays` says of a file whether it does. With
    /// `pretend` nothing is changed.
    pub fn extend_locks(
        &self,
        stays: &(dyn Fn(&FileName) -> bool + Sync),
        pretend: bool,
    ) -> Result<Extended> {
        let mut all = Extended::default();
        let Some(retention) = self.retention() else {
            return Ok(all);
        };
        all.add(self.extend_one(&CONFIG.parse()?, retention, pretend)?);
        for folder in FOLDERS {
            let below = format!("{folder}/");
            let mut token: Option<String> = None;
            let mut pages = 0;
            loop {
                let (objects, next) = self.page(&below, token.as_deref(), None)?;
                let mut names = self.old_enough(&objects, retention)?;
                names.retain(stays);
                for one in side_by_side(&names, |name| self.extend_one(name, retention, pretend))? {
                    all.add(one);
                }
                if next.is_none() {
                    break;
                }
                pages += 1;
                if next == token || pages > limits::PAGES_MAX {
                    let what = format!("the list of {below} has no end; not all locks are renewed");
                    return Err(Error::new(ErrorKind::Io, what));
                }
                token = next;
            }
        }
        Ok(all)
    }

    /// Files of a page that were put so long ago that their locks may have to be renewed.
    fn old_enough(&self, objects: &[ObjectMeta], retention: Retention) -> Result<Vec<FileName>> {
        let now = self.storage_now()?;
        let old = objects
            .iter()
            .filter(|object| now - object.last_modified.timestamp() > retention.seconds() / 2);
        Ok(old
            .filter_map(|object| self.location().name(object.location.as_ref()))
            .collect())
    }

    /// Has what somebody put locked, as what is put here is: its writer may have been told that its
    /// lock is missing, and have failed for that. `NotFound` if it is not there.
    pub(crate) fn settle_lock(&self, name: &FileName, retention: Retention) -> Result<()> {
        self.renew(name, retention, false).map(drop)
    }

    fn extend_one(&self, name: &FileName, retention: Retention, pretend: bool) -> Result<Extended> {
        match self.renew(name, retention, pretend) {
            // Somebody removed it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Extended::default()),
            one => one,
        }
    }

    fn renew(&self, name: &FileName, retention: Retention, pretend: bool) -> Result<Extended> {
        let lock = self.lock_of(name)?;
        let now = self.storage_now()?;
        let mut one = Extended {
            looked: 1,
            ..Extended::default()
        };
        if lock.is_some_and(|lock| lock.until - now > retention.seconds() / 2) {
            return Ok(one);
        }
        let longer = ObjectLock {
            mode: lock.map_or(retention.mode(), |lock| lock.mode),
            until: now + retention.seconds(),
        };
        if !pretend {
            self.put_lock(name, longer)?;
        }
        one.extended = 1;
        one.unlocked = u64::from(lock.is_none());
        one.until = Some(longer.until);
        Ok(one)
    }

    /// Locks what is there; of the first in a run it is seen whether that was done.
    fn put_lock(&self, name: &FileName, lock: ObjectLock) -> Result<()> {
        let path = self.path(name)?;
        let text = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{}</Mode>\
             <RetainUntilDate>{}</RetainUntilDate></Retention>",
            lock.mode.header(),
            clock::written(lock.until)
        );
        let question = Question::new(Method::PUT, Some(path.as_ref()))
            .about("retention")
            .body(Bytes::from(text));
        self.of_object(Deed::Lock, name, async |_, _| {
            self.ask_signed(question.clone()).await.map(drop)
        })?;
        if self.locking.saw_renewal.load(Ordering::Relaxed) {
            return Ok(());
        }
        let seen = self.lock_of(name)?;
        if seen.is_none_or(|seen| seen.until < lock.until) {
            let subject = self.subject(Deed::Lock, path.as_ref());
            let why = "the storage said that it is done, and its lock is as it was: see to the \
                       bucket's Object Lock";
            return Err(subject.error(ErrorKind::Denied, why));
        }
        self.locking.saw_renewal.store(true, Ordering::Relaxed);
        Ok(())
    }
}
