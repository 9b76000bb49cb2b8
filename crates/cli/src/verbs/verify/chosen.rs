//! The archives that a verification is to judge.

use std::collections::BTreeSet;

use anyhow::Result;
use snapkeep_repo::{Depth, SnapshotName, is_verified_since};

use crate::args::verify::Verify;
use crate::failure::{Code, fault};
use crate::session::{self, ANY, Session};
use crate::settings::Settings;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Those that are named, of the named guests, or that were not verified for so long; none named
/// means all, with all that lies in the repository. One that was forgotten must be named itself. An archive whose record is damaged can be named
/// too.
pub(super) fn archives(
    session: &Session,
    settings: &Settings,
    wanted: &Verify,
    depth: Depth,
) -> Result<Option<Vec<SnapshotName>>> {
    let named = !wanted.archives.is_empty() || !wanted.guests.is_empty();
    if !named && wanted.older_than.is_none() {
        return Ok(None);
    }
    let repository = &session.repository;
    let all: BTreeSet<SnapshotName> = repository.all_snapshots_of(None)?.into_iter().collect();
    let attributes = repository.attributes_of(None)?;
    let forgotten = |name: &&SnapshotName| {
        let known = attributes.get(*name);
        known.is_some_and(|known| known.as_ref().is_ok_and(|known| known.forgotten))
    };
    let mut chosen = BTreeSet::new();
    for text in &wanted.archives {
        let name = session.name(settings, text)?;
        if !all.contains(&name) {
            let what = format!("there is no archive {text}: `snapkeep list` shows what there is");
            return Err(fault(Code::NotFound, what));
        }
        chosen.insert(name);
    }
    for guest in &wanted.guests {
        let mut found = Vec::new();
        for group in session::groups(settings, guest, ANY)? {
            let of_group = all.iter().filter(|name| name.group() == group);
            found.extend(of_group.filter(|name| !forgotten(name)).cloned());
        }
        if found.is_empty() {
            let namespace = &settings.namespace;
            let what = format!("there is no archive of guest {guest} in the namespace {namespace}");
            return Err(fault(Code::NotFound, what));
        }
        chosen.extend(found);
    }
    let mut chosen = if named {
        chosen
    } else {
        let listed = all.iter().filter(|name| !forgotten(name));
        listed.cloned().collect()
    };
    if let Some(days) = wanted.older_than {
        let since = session.clock.now().0 - i64::from(days) * DAY;
        chosen.retain(|name| match attributes.get(name) {
            Some(Ok(found)) => !is_verified_since(found.verification.as_ref(), depth, since),
            // What is not known is looked for.
            Some(Err(_)) | None => true,
        });
    }
    Ok(Some(chosen.into_iter().collect()))
}
