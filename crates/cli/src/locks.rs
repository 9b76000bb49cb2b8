//! What `prune` does about the locks of a bucket's objects.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use snapkeep_repo::{Error, ErrorKind, leaving};
use snapkeep_s3::{Extended, Purged};

use crate::report::remark;
use crate::session::Session;
use crate::units::{counted, human};

/// What became of locks, and of what they keep.
#[derive(Serialize)]
pub(crate) struct Locks {
    looked: u64,
    renewed: u64,
    /// Until when the first of these is locked now: seconds since the epoch, by the storage's clock.
    renewed_until: Option<i64>,
    /// The same in RFC 3339, UTC.
    renewed_until_utc: Option<String>,
    removed_versions: u64,
    removed_bytes: u64,
    locked_versions: u64,
    locked_bytes: u64,
    /// When the first of these locks ends: seconds since the epoch, by the storage's clock.
    locked_until: Option<i64>,
    /// The same in RFC 3339, UTC.
    locked_until_utc: Option<String>,
    /// Objects that were put over by something else, if they are not too many.
    overwritten: Vec<String>,
    /// Why not all that could be freed was.
    not_freed: Option<String>,
    #[serde(skip)]
    failed: bool,
}

impl Locks {
    fn new(extended: Extended, purged: Purged, not_freed: Option<Error>) -> Self {
        // Who may not do it has a lifecycle rule for that, or is told each time.
        let failed = (not_freed.as_ref()).is_some_and(|error| error.kind() != ErrorKind::Denied);
        let overwritten = purged.overwritten.into_iter();
        let overwritten: Vec<_> = overwritten.map(|name| name.to_string()).collect();
        Self {
            failed: failed || !overwritten.is_empty(),
            overwritten,
            not_freed: not_freed.map(|error| error.chain()),
            renewed_until: extended.until,
            renewed_until_utc: extended.until.map(time),
            looked: extended.looked,
            renewed: extended.extended,
            removed_versions: purged.removed,
            removed_bytes: purged.removed_bytes,
            locked_versions: purged.locked,
            locked_bytes: purged.locked_bytes,
            locked_until: purged.until,
            locked_until_utc: purged.until.map(time),
        }
    }

    pub(crate) fn lines(&self, dry_run: bool) -> Vec<String> {
        let (renew, free) = if dry_run {
            ("would renew", "would free")
        } else {
            ("renewed", "freed")
        };
        let until = self.renewed_until_utc.as_ref();
        let until = until.map_or(String::new(), |until| format!(", until {until}"));
        let mut lines = vec![format!(
            "{renew} the locks of {}{until}",
            counted(self.renewed, "object")
        )];
        if self.removed_versions > 0 {
            lines.push(format!(
                "{free} {} of {} whose locks have ended",
                human(self.removed_bytes),
                counted(self.removed_versions, "removed object")
            ));
        }
        if self.locked_versions > 0 {
            let until = self.locked_until_utc.as_ref();
            let until = until.map_or(String::new(), |until| format!(", the first until {until}"));
            lines.push(format!(
                "locks keep {} of {} in the bucket{until}; a later run frees that",
                human(self.locked_bytes),
                counted(self.locked_versions, "removed object")
            ));
        }
        if let Some(first) = self.overwritten.first() {
            lines.push(format!(
                "somebody has overwritten {}, which no program of ours does: {first}{}. The oldest version of each is \
                 the right one, and its lock ends: bring it back before that (see the guide, docs/guides/s3.md), \
                 and take the credentials away that did it",
                counted(self.overwritten.len() as u64, "locked object"),
                if self.overwritten.len() > 1 { " and others" } else { "" },
            ));
        }
        if let Some(why) = &self.not_freed {
            lines.push(format!(
                "what was removed is not freed: {why}; a lifecycle rule of the bucket for noncurrent versions does the same"
            ));
        }
        lines
    }

    /// Whether something was not done that could have been.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }
}

fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// Renews the locks of what stays, before anything is pruned; `None` if there are none.
pub(crate) fn renew(session: &Session, dry_run: bool) -> Result<Option<Extended>> {
    let Some(bucket) = &session.storage.bucket else {
        return Ok(None);
    };
    if bucket.retention().is_none() {
        return Ok(None);
    }
    let leaving = leaving(&session.repository)?;
    let extended = bucket
        .extend_locks(&|name| !leaving.contains(name), dry_run)
        .context("not all locks are renewed, and nothing is pruned")?;
    if extended.unlocked > 0 {
        remark(&format!(
            "warning: {} had no lock: something puts objects that does not know of it, or the credentials lack \
             the permission s3:GetObjectRetention",
            counted(extended.unlocked, "object")
        ));
    }
    Ok(Some(extended))
}

/// Frees what was removed and is not locked any more; only after a run that found all that the archives need
/// (`marked`), so that nothing is freed that somebody else removed and they miss. What was done before is told
/// whatever comes of this.
pub(crate) fn free(
    session: &Session,
    extended: Option<Extended>,
    marked: bool,
    dry_run: bool,
) -> Option<Locks> {
    let (bucket, extended) = (session.storage.bucket.as_ref()?, extended?);
    if !marked {
        return Some(Locks::new(extended, Purged::default(), None));
    }
    Some(match bucket.purge(dry_run) {
        Ok(purged) => Locks::new(extended, purged, None),
        Err(error) => Locks::new(extended, Purged::default(), Some(error)),
    })
}

/// Whether a bucket keeps what is removed as old versions; `None` if it does not tell, or there is no bucket.
pub(crate) fn keeps_versions(session: &Session) -> Option<bool> {
    match session.storage.bucket.as_ref()?.keeps_versions() {
        Ok(keeps) => keeps,
        Err(error) => {
            remark(&format!(
                "warning: it is not known whether the bucket keeps what was deleted: {error}"
            ));
            None
        }
    }
}
