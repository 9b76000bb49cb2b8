//! Which archives of a guest a policy keeps: a function of their names, their times, what is known
//! of them, and the time. It forgets nothing itself.
//!
//! The rules that count (`last`, `hourly` … `yearly`) take effect in this order, as in Proxmox VE:
//! each goes from the newest archive to the oldest, keeps the newest of each period until it has
//! as many periods as it may, and passes over periods of which a rule before it kept an archive.
//! The rules `within` keep what is no older than so much before the newest archive. They do so in
//! addition: nothing counts less because of them.
//!
//! What is protected, cannot be read, says no time, or is of the future is kept and counts for
//! nothing. What is known to be damaged, or to lack some of its guest's files, counts for nothing
//! either, and is kept wherever a whole archive in its place would be: so all that are newer than
//! the newest whole one stay, and a guest that has no whole one keeps all of them.
//!
//! Whatever is forgotten of what this says, in whatever order, the rest of it is what this says
//! next time.

mod policy;

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use snapkeep_api::{ArchiveName, UnixTime};
use snapkeep_repo::VerificationState;

use crate::catalogue::Listed;
use crate::limits::CLOCK_AHEAD_MAX;
use crate::names::archive_time;

pub use policy::{Age, Period, Policy, Rule, Rules};

/// An archive that may be forgotten.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: ArchiveName,
    /// When its backup began, as its name has it; none if it does not say.
    pub time: Option<UnixTime>,
    /// What is known of it.
    pub state: State,
}

/// What is known of an archive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Nothing that speaks against it. Also if its caller took its backup for failed: it was
    /// committed whole before that.
    Whole,
    /// Its last verification found damage.
    Damaged,
    /// Some files of its guest are missing in it, or not whole.
    Partial,
    /// It may not be forgotten.
    Protected,
    /// Its record or its attributes cannot be read: it may be protected.
    Unreadable,
}

/// What becomes of an archive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is kept, for these reasons.
    Kept(BTreeSet<Reason>),
    /// No rule keeps it.
    Forgotten,
}

/// Why an archive is kept.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// It is protected.
    Protected,
    /// It cannot be read.
    Unreadable,
    /// Its name says no time.
    Undated,
    /// It is of a time that has not come.
    Future,
    /// The policy keeps everything.
    All,
    /// A rule keeps it.
    Rule(Rule),
}

/// Archives by their group: a namespace, kind and guest.
pub type Groups = BTreeMap<String, Vec<Candidate>>;

/// All archives of a list, by group.
pub fn candidates(listed: &Listed) -> Groups {
    let mut groups = Groups::new();
    let whole = listed.archives.iter().map(|entry| {
        let damaged = (entry.verification.as_ref())
            .is_some_and(|found| found.state == VerificationState::Damaged);
        let state = match (&entry.problem, entry.protected, damaged) {
            (Some(_), _, _) => State::Unreadable,
            (None, true, _) => State::Protected,
            (None, false, true) => State::Damaged,
            (None, false, false) if entry.left_out > 0 => State::Partial,
            (None, false, false) => State::Whole,
        };
        (&entry.name, state)
    });
    let damaged = (listed.damaged.iter()).map(|damaged| (&damaged.name, State::Unreadable));
    for (name, state) in whole.chain(damaged) {
        let group = name
            .as_str()
            .rsplit_once('/')
            .map_or("", |(group, _)| group);
        groups.entry(group.to_owned()).or_default().push(Candidate {
            name: name.clone(),
            time: archive_time(name.as_str()),
            state,
        });
    }
    groups
}

/// What becomes of each of a group's archives, in their order. `now` is the clock's time; a day
/// begins when it begins in `zone`.
pub fn decide(
    archives: &[Candidate],
    policy: &Policy,
    zone: &TimeZone,
    now: UnixTime,
) -> Vec<Verdict> {
    let mut reasons: Vec<BTreeSet<Reason>> = vec![BTreeSet::new(); archives.len()];
    let mut ranked = Vec::new();
    let count_partial = matches!(policy, Policy::Rules(rules) if rules.count_partial);
    let latest = now.0.saturating_add_unsigned(CLOCK_AHEAD_MAX.as_secs());
    for (index, archive) in archives.iter().enumerate() {
        let zoned = (archive.time)
            .and_then(|time| Timestamp::from_second(time.0).ok())
            .map(|time| time.to_zoned_datetime(zone.clone()));
        let exempt = match (archive.state, policy, &zoned) {
            (State::Protected, _, _) => Some(Reason::Protected),
            (State::Unreadable, _, _) => Some(Reason::Unreadable),
            (_, Policy::All, _) => Some(Reason::All),
            (_, Policy::Nothing, _) => None,
            (_, Policy::Rules(_), None) => Some(Reason::Undated),
            (_, Policy::Rules(_), Some(time)) => {
                (time.timestamp().as_second() > latest).then_some(Reason::Future)
            }
        };
        match (exempt, zoned) {
            (Some(reason), _) => drop(reasons[index].insert(reason)),
            (None, Some(time)) => ranked.push(Ranked {
                index,
                time,
                name: &archive.name,
                whole: archive.state == State::Whole
                    || (archive.state == State::Partial && count_partial),
            }),
            (None, None) => {}
        }
    }
    ranked.sort_by_key(|ranked| std::cmp::Reverse((ranked.time.timestamp(), ranked.name)));
    if let Policy::Rules(rules) = policy {
        count(&ranked, rules, &mut reasons);
        within(&ranked, rules, &mut reasons);
    }
    let verdict = |reasons: BTreeSet<Reason>| {
        if reasons.is_empty() {
            Verdict::Forgotten
        } else {
            Verdict::Kept(reasons)
        }
    };
    reasons.into_iter().map(verdict).collect()
}

/// An archive that a rule decides on.
struct Ranked<'a> {
    index: usize,
    time: ZonedDateTime,
    name: &'a ArchiveName,
    /// Whether it counts.
    whole: bool,
}

/// The rules that count, over archives from the newest to the oldest.
fn count(ranked: &[Ranked<'_>], rules: &Rules, reasons: &mut [BTreeSet<Reason>]) {
    // What a rule kept, or passed over for a newer one of the same period: no rule after it looks.
    let mut settled = BTreeSet::new();
    let mut kept: Vec<&Ranked<'_>> = Vec::new();
    for (period, count) in &rules.counts {
        let mark = |(at, archive): (usize, &Ranked<'_>)| period.mark(&archive.time, at);
        // Where each archive is a period by itself, none is covered.
        let covered: BTreeSet<_> = (kept.iter().filter(|_| *period != Period::Archive))
            .map(|archive| mark((0, archive)))
            .collect();
        let mut taken = BTreeSet::new();
        for (at, archive) in ranked.iter().enumerate() {
            let mark = mark((at, archive));
            if settled.contains(&at) || covered.contains(&mark) {
                continue;
            }
            if !taken.contains(&mark) {
                if taken.len() >= *count as usize {
                    break;
                }
                if archive.whole {
                    taken.insert(mark);
                    kept.push(archive);
                }
                reasons[archive.index].insert(Reason::Rule(Rule::Count(*period)));
            }
            settled.insert(at);
        }
    }
}

/// The rules that keep what is young. The newest whole archive says what that is: if backups
/// stopped, nothing is forgotten because time goes by.
fn within(ranked: &[Ranked<'_>], rules: &Rules, reasons: &mut [BTreeSet<Reason>]) {
    let newest = ranked.iter().find(|archive| archive.whole);
    for (period, age) in &rules.within {
        let oldest = newest.and_then(|newest| age.before(&newest.time));
        let mut taken = BTreeSet::new();
        for (at, archive) in ranked.iter().enumerate() {
            if oldest.as_ref().is_some_and(|oldest| archive.time < *oldest) {
                break;
            }
            let mark = period.mark(&archive.time, at);
            if taken.contains(&mark) {
                continue;
            }
            if archive.whole {
                taken.insert(mark);
            }
            reasons[archive.index].insert(Reason::Rule(Rule::Within(*period)));
        }
    }
}
