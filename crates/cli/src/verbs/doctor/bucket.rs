//! What a bucket's storage can do, as it is tried.

use std::time::Duration;

use snapkeep_api::{Clock, Error, ErrorKind};
use snapkeep_host::doctor::{Finding, Owner};
use snapkeep_repo::Storage;

use crate::place::Place;
use crate::verbs::init::Told;

/// What this module finds.
const KIND: &str = "storage";
/// How long a request is tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two objects are put, looked at and removed; no key is needed.
pub(super) fn told(place: &Place, clock: &dyn Clock) -> Finding {
    match look(place, clock) {
        Ok(what) => Finding::fine(KIND, what, place, Owner::other("the bucket's storage")),
        Err(e) => {
            let what = format!("it cannot be tried what the storage can do: {e:#}");
            let error = Error::new(ErrorKind::Unavailable, what);
            Finding::unseen(KIND, place, &error)
        }
    }
}

fn look(place: &Place, clock: &dyn Clock) -> anyhow::Result<String> {
    let storage = place.open_impatient(PATIENCE)?;
    let Some(bucket) = &storage.bucket else {
        return Ok(String::new());
    };
    let mut lines = Told::from(bucket.abilities(clock.now().0)?).lines();
    // How objects are locked is one of the repository's features.
    bucket.list(&"features".parse()?, &mut |_, _| Ok(()))?;
    lines.push(match bucket.retention() {
        Some(retention) => format!(
            "the repository locks what it puts for {} days, mode {}",
            retention.days(),
            retention.mode()
        ),
        None => "the repository locks nothing".to_owned(),
    });
    Ok(lines.join("; "))
}
