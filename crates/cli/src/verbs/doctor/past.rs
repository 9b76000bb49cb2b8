//! What this host remembers of a repository and is gone there. No key is needed: names lie in the
//! clear, and a name that somebody made up opens nothing.

use std::collections::BTreeSet;

use anyhow::Result;
use snapkeep_api::{Error, ErrorKind};
use snapkeep_host::doctor::{Finding, Owner};
use snapkeep_repo::{SnapshotName, Storage, unproven_config};

use super::repository::within_limit;
use crate::past::{Doubt, Past};
use crate::place::Place;
use crate::report::remark;
use crate::settings::Settings;

/// What this module finds.
const KIND: &str = "rollback";

/// What is gone in the repository in a place; with `accept`, what was, and is remembered no more.
pub(super) fn gone(settings: &Settings, place: &Place, accept: bool) -> Vec<Finding> {
    let past = Past::new(settings, place);
    match doubts(&past, place, accept) {
        Ok(doubts) if accept => {
            for doubt in doubts {
                remark(&format!("accepted: {}", doubt.what));
            }
            Vec::new()
        }
        Ok(doubts) => {
            let told = |doubt: Doubt| {
                let owner = Owner::ours("what this host wrote or listed");
                Finding::gone(KIND, doubt.what, place, owner)
                    .costs("archives that you count on; until it is accepted, disks are read whole")
                    .heals_by(
                        "find out who put the repository back or took the archive away; \
                         `snapkeep doctor --accept-rollback` takes it as it is",
                    )
            };
            doubts.into_iter().map(told).collect()
        }
        Err(e) => {
            let what = "what this host remembers of it cannot be compared";
            let error = Error::new(ErrorKind::Unavailable, format!("{what}: {e:#}"));
            vec![Finding::unseen(KIND, place, &error)]
        }
    }
}

fn doubts(past: &Past, place: &Place, accept: bool) -> Result<Vec<Doubt>> {
    if past.is_empty()? {
        return Ok(Vec::new());
    }
    let place = place.clone();
    let (id, names) = within_limit(move || -> Result<_> {
        let storage = place.open()?;
        let mut names = BTreeSet::new();
        storage.list(&"snapshots".parse()?, &mut |file, _| {
            let name = file.as_str().strip_prefix("snapshots/").unwrap_or_default();
            names.extend(name.parse::<SnapshotName>().map(|name| name.to_string()));
            Ok(())
        })?;
        Ok((unproven_config(&*storage)?.repository, names))
    })??;
    let doubts = past.doubts(&id, || Ok(names.clone()))?;
    if accept && !doubts.is_empty() {
        past.accept(&id, &names)?;
    }
    Ok(doubts)
}
