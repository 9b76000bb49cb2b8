//! What this host remembers of a repository and is gone there. No key is needed: names lie in the
//! clear, and a name that somebody made up opens nothing.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use snapkeep_api::{Error, ErrorKind};
use snapkeep_host::doctor::{Finding, Owner};
use snapkeep_repo::{LocalStorage, SnapshotName, Storage, unproven_config};

use super::repository::within_limit;
use crate::past::{Doubt, Past};
use crate::report::remark;
use crate::settings::Settings;

/// What this module finds.
const KIND: &str = "rollback";

/// What is gone in the repository in a folder; with `accept`, what was, and is remembered no more.
pub(super) fn gone(settings: &Settings, folder: &Path, accept: bool) -> Vec<Finding> {
    let past = Past::new(settings, folder);
    match doubts(&past, folder, accept) {
        Ok(doubts) if accept => {
            for doubt in doubts {
                remark(&format!("accepted: {}", doubt.what));
            }
            Vec::new()
        }
        Ok(doubts) => {
            let told = |doubt: Doubt| {
                let owner = Owner::ours("what this host wrote or listed");
                Finding::gone(KIND, doubt.what, folder.display(), owner)
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
            vec![Finding::unseen(KIND, folder.display(), &error)]
        }
    }
}

fn doubts(past: &Past, folder: &Path, accept: bool) -> Result<Vec<Doubt>> {
    if past.is_empty()? {
        return Ok(Vec::new());
    }
    let folder = folder.to_owned();
    let (id, names) = within_limit(move || {
        let storage = LocalStorage::open(&folder)?;
        let mut names = BTreeSet::new();
        storage.list(&"snapshots".parse()?, &mut |file, _| {
            let name = file.as_str().strip_prefix("snapshots/").unwrap_or_default();
            names.extend(name.parse::<SnapshotName>().map(|name| name.to_string()));
            Ok(())
        })?;
        Ok((unproven_config(&storage)?.repository, names))
    })?;
    let doubts = past.doubts(&id, || Ok(names.clone()))?;
    if accept && !doubts.is_empty() {
        past.accept(&id, &names)?;
    }
    Ok(doubts)
}
