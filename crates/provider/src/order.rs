//! The order of a guest's archives. Their names end with the second they were begun in, so a
//! backup's is a later second than that of each archive that it finds, forgotten or not; but one of
//! the future that was forgotten keeps nobody from backing up.

use std::time::Duration;

use jiff::Timestamp;
use snapkeep_api::{Error, ErrorKind, Level, Result, Throttle, UnixTime};

use crate::error;
use crate::limits::CLOCK_BEHIND_MAX;
use crate::names::archive_time;
use crate::provider::Shared;

/// The time of a new archive of this group: when its backup started or, where the newest archive
/// is not older, as soon as it is. Waits at most [`CLOCK_BEHIND_MAX`]; `Unavailable` if that is
/// not enough: until a clock is set right, or that archive forgotten.
pub(crate) fn time_after(shared: &Shared, group: &str, start: UnixTime) -> Result<UnixTime> {
    let names = shared
        .repository
        .all_snapshots_of(Some(group))
        .map_err(|e| {
            let what = format!("cannot list the archives of {group}");
            error::repository(what, e)
        })?;
    let times = names
        .iter()
        .filter_map(|name| Some((archive_time(name.as_str())?, name)));
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    // It may have waited since it started.
    let now = shared.clock.now().max(start);
    let latest = now.0.saturating_add_unsigned(CLOCK_BEHIND_MAX.as_secs());
    let forgotten = |name| {
        let known = shared.repository.attributes(name);
        known.is_ok_and(|known| known.forgotten)
    };
    while times
        .pop_if(|(time, name)| time.0 >= latest && forgotten(name))
        .is_some()
    {}
    let Some((newest, archive)) = times.pop() else {
        return Ok(start);
    };
    if start > newest {
        return Ok(start);
    }
    if now > newest {
        return Ok(now);
    }
    let next = UnixTime(newest.0.saturating_add(1));
    let wait = Duration::from_secs(next.0.abs_diff(now.0));
    let clocks = format!(
        "the newest archive {archive} is of {}, but the clock here shows {}",
        utc(newest),
        utc(now)
    );
    if wait > CLOCK_BEHIND_MAX {
        let what = format!(
            "{clocks}, so this backup would be taken for an older one: set the clock that is wrong; \
             if it was the archive's, `snapkeep forget {archive}` lets backups go on, and --undo \
             takes it back until it is pruned"
        );
        return Err(Error::new(ErrorKind::Unavailable, what));
    }
    if now < newest {
        let line = format!("{clocks}: waiting {} s", wait.as_secs());
        shared.log.log(Level::Warn, &line);
    }
    Throttle::wait(&*shared.clock, &shared.cancel, wait);
    shared.cancel.check()?;
    Ok(next)
}

fn utc(time: UnixTime) -> String {
    Timestamp::from_second(time.0).map_or_else(|_| time.0.to_string(), |time| time.to_string())
}
