//! What a bucket's storage can do, as it is tried.

use std::time::Duration;

use anyhow::Result;
use snapkeep_api::{Clock, Error, ErrorKind};
use snapkeep_host::doctor::{Finding, Owner};
use snapkeep_repo::{Storage, unproven_config};
use snapkeep_s3::{Retention, S3Storage};

use crate::past::{Past, Remembered, is_less};
use crate::place::Place;
use crate::report::remark;
use crate::settings::Settings;
use crate::units::counted;
use crate::verbs::init::Told;
use crate::watched::Watched;

/// What this module finds.
const KIND: &str = "storage";
/// A repository that locks less than it did.
const LOCKS: &str = "locks";
/// How long a request is tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two objects are put, looked at and removed; no key is needed. With `accept`, how the repository
/// locks its objects is taken as it is.
pub(super) fn told(
    settings: &Settings,
    place: &Place,
    clock: &dyn Clock,
    accept: bool,
) -> Vec<Finding> {
    let found = place
        .open_impatient(PATIENCE)
        .and_then(|storage| look(settings, place, &storage, clock, accept));
    found.unwrap_or_else(|e| {
        let what = format!("it cannot be tried what the storage can do: {e:#}");
        let error = Error::new(ErrorKind::Unavailable, what);
        vec![Finding::unseen(KIND, place, &error)]
    })
}

fn look(
    settings: &Settings,
    place: &Place,
    storage: &Watched,
    clock: &dyn Clock,
    accept: bool,
) -> Result<Vec<Finding>> {
    let Some(bucket) = &storage.bucket else {
        return Ok(Vec::new());
    };
    let abilities = bucket.abilities(clock.now().0)?;
    let may_lock = abilities.locks != Some(false);
    let mut lines = Told::from(abilities).lines();
    // How objects are locked is one of the repository's features.
    bucket.list(&"features".parse()?, &mut |_, _| Ok(()))?;
    lines.push(match bucket.retention() {
        Some(retention) => format!(
            "the repository locks what it puts for {}, mode {}",
            counted(retention.days().into(), "day"),
            retention.mode()
        ),
        None => "the repository locks nothing".to_owned(),
    });
    let owner = Owner::other("the bucket's storage");
    let mut findings = vec![Finding::fine(KIND, lines.join("; "), place, owner)];
    if let Some((was, what)) = less_locked(settings, place, bucket, may_lock, accept)? {
        let owner = Owner::ours("the repository's feature of locks");
        let heals = format!(
            "find out who removed it; put an empty object named \
             features/compatible-object-lock-1-{}-{} below {place} to bring it back (what was put \
             meanwhile without a lock gets one by `snapkeep prune` once half of the days have passed); `snapkeep doctor --accept-rollback` takes it as it is",
            was.mode(),
            was.days()
        );
        let costs = "what is put is not locked, and locks that are there end";
        let finding = Finding::gone(LOCKS, what, place, owner);
        findings.push(finding.costs(costs).heals_by(heals));
    }
    Ok(findings)
}

/// How the repository locked its objects, and what tells that it locks less now.
fn less_locked(
    settings: &Settings,
    place: &Place,
    bucket: &S3Storage,
    may_lock: bool,
    accept: bool,
) -> Result<Option<(Retention, String)>> {
    let id = match unproven_config(bucket) {
        Ok(config) => config.repository,
        // Where there is no repository, none locks less.
        Err(e) if e.kind() == snapkeep_repo::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let past = Past::new(settings, place);
    let now = bucket.retention();
    let less = if let Some(less) = past.less_locked(&id, now)? {
        Some((less.remembered, less.what))
    } else if past.locks(&id)? == Remembered::No && may_lock {
        let hidden = bucket.hidden_retention()?;
        hidden.filter(|hidden| is_less(now, *hidden)).map(|hidden| {
            let what = format!(
                "the repository said that it locks what is put there for {hidden}, and the object \
                 that said so was removed: the bucket has it as an old version"
            );
            (hidden, what)
        })
    } else {
        None
    };
    match less {
        Some((_, what)) if accept => {
            past.accept_locks(&id, now)?;
            remark(&format!("accepted: {what}"));
            Ok(None)
        }
        less => Ok(less),
    }
}
