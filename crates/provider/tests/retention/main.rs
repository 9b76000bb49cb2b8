//! What a retention policy keeps and what not: by tables, and by properties over random archives.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod properties;
mod tables;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil::DateTime};
use snapkeep_api::UnixTime;
use snapkeep_provider::retention::{Candidate, Period, Policy, Rules, State, Verdict, decide};

/// The latest time of any test.
const NOW: &str = "2026-11-30T12:00:00Z";

fn seconds(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

fn now() -> UnixTime {
    UnixTime(seconds(NOW))
}

fn archive(time: i64, random: u64, state: State) -> Candidate {
    let text = Timestamp::from_second(time).unwrap();
    Candidate {
        name: format!("main/vm/web/{text}-{random:016x}").parse().unwrap(),
        time: Some(UnixTime(time)),
        state,
    }
}

/// Rules by the words of the command line: `daily 7 within 30d within-weekly 1y`.
fn rules(text: &str) -> Policy {
    let mut rules = Rules::default();
    let mut words = text.split(' ');
    while let (Some(word), Some(value)) = (words.next(), words.next()) {
        let (within, name) = match word.strip_prefix("within") {
            Some(rest) => (true, rest.trim_start_matches('-')),
            None => (false, word),
        };
        let period = match name {
            "" | "last" => Period::Archive,
            "hourly" => Period::Hour,
            "daily" => Period::Day,
            "weekly" => Period::Week,
            "monthly" => Period::Month,
            "yearly" => Period::Year,
            other => panic!("{other}"),
        };
        if within {
            rules.within.insert(period, value.parse().unwrap());
        } else {
            rules.counts.insert(period, value.parse().unwrap());
        }
    }
    Policy::Rules(rules)
}

fn kept(verdict: &Verdict) -> bool {
    *verdict != Verdict::Forgotten
}

/// What is kept of them, in UTC.
fn kept_of(archives: &[Candidate], policy: &Policy) -> Vec<Candidate> {
    let verdicts = decide(archives, policy, &TimeZone::UTC, now());
    (archives.iter().zip(&verdicts))
        .filter(|(_, verdict)| kept(verdict))
        .map(|(archive, _)| archive.clone())
        .collect()
}

/// A local time, such as `2026-10-25 02:30`, in UTC.
fn local(text: &str, zone: &TimeZone) -> i64 {
    let time: DateTime = text.parse().unwrap();
    let zoned = time.to_zoned_datetime(zone.clone()).unwrap();
    zoned.timestamp().as_second()
}
