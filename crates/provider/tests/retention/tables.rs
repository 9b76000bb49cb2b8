//! Tables: archives by their times, and why each is kept.

use jiff::tz::TimeZone;
use snapkeep_api::UnixTime;
use snapkeep_provider::retention::{Candidate, Policy, Reason, State, Verdict, decide};

use super::{archive, local, now, rules, seconds};

/// The rules of Europe/Berlin: not every machine has those of all names.
const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

/// `TIME [STATE] => REASONS`, a line each; what comes is written beside what was expected.
fn table(zone: &str, policy: &Policy, lines: &str) {
    let zone = TimeZone::posix(zone).unwrap();
    let lines: Vec<&str> = (lines.lines().map(str::trim))
        .filter(|line| !line.is_empty())
        .collect();
    let archives: Vec<Candidate> = (lines.iter().zip(0..))
        .map(|(line, random)| {
            let (facts, _) = line.split_once(" =>").unwrap();
            let (time, state) = match facts.split_once(" [") {
                None => (facts, State::Whole),
                Some((time, "damaged]")) => (time, State::Damaged),
                Some((time, "partial]")) => (time, State::Partial),
                Some((time, "protected]")) => (time, State::Protected),
                Some((time, "unreadable]")) => (time, State::Unreadable),
                Some((_, other)) => panic!("{other}"),
            };
            let time = if time.ends_with('Z') {
                seconds(time)
            } else {
                local(time, &zone)
            };
            archive(time, random, state)
        })
        .collect();
    let verdicts = decide(&archives, policy, &zone, now());
    let found: Vec<String> = (lines.iter().zip(&verdicts))
        .map(|(line, verdict)| {
            let (facts, _) = line.split_once(" =>").unwrap();
            format!("{facts} => {}", words(verdict)).trim().to_owned()
        })
        .collect();
    assert_eq!(found, lines);
}

fn words(verdict: &Verdict) -> String {
    let Verdict::Kept(reasons) = verdict else {
        return String::new();
    };
    let words: Vec<String> = (reasons.iter())
        .map(|reason| match reason {
            Reason::Rule(rule) => rule.to_string(),
            exempt @ (Reason::Protected
            | Reason::Unreadable
            | Reason::Undated
            | Reason::Future
            | Reason::All) => format!("{exempt:?}").to_lowercase(),
        })
        .collect();
    words.join(", ")
}

#[test]
fn each_rule_keeps_the_newest_of_periods_that_no_rule_before_it_covered() {
    let policy = rules("last 2 hourly 1 daily 2 weekly 1 monthly 1 yearly 1");
    let lines = "
        2026-11-29 23:50 => last
        2026-11-29 23:40 => last
        2026-11-29 23:10 =>
        2026-11-29 21:30 => hourly
        2026-11-29 21:10 =>
        2026-11-29 09:00 =>
        2026-11-28 20:00 => daily
        2026-11-28 08:00 =>
        2026-11-25 20:00 => daily
        2026-11-24 20:00 =>
        2026-11-20 20:00 => weekly
        2026-11-16 20:00 =>
        2026-11-13 20:00 =>
        2026-10-31 20:00 => monthly
        2026-10-02 20:00 =>
        2025-12-31 20:00 => yearly
        2024-06-30 20:00 =>
    ";
    table("UTC0", &policy, lines);
}

#[test]
fn periods_without_archives_do_not_count() {
    let lines = "
        2026-11-20 20:00 => daily
        2026-03-01 20:00 => daily
        2019-05-06 20:00 => daily
        2019-05-05 20:00 =>
    ";
    table("UTC0", &rules("daily 3"), lines);
}

#[test]
fn weeks_begin_on_monday_and_belong_to_the_year_of_their_thursday() {
    let lines = "
        2021-01-04 00:00 => weekly
        2021-01-03 23:59 => weekly
        2020-12-31 12:00 =>
        2020-12-28 00:00 =>
        2020-12-27 23:59 => weekly
        2020-12-20 12:00 =>
    ";
    table("UTC0", &rules("weekly 3"), lines);
}

#[test]
fn days_begin_where_the_time_zone_has_them() {
    // 23:30 in UTC is the next day in Berlin.
    let lines = "
        2026-06-02T23:30:00Z => daily
        2026-06-02T21:30:00Z => daily
        2026-06-01T22:30:00Z =>
        2026-06-01T21:30:00Z =>
    ";
    table(BERLIN, &rules("daily 2"), lines);
    let lines = "
        2026-06-02T23:30:00Z => daily
        2026-06-02T21:30:00Z =>
        2026-06-01T22:30:00Z => daily
        2026-06-01T21:30:00Z =>
    ";
    table("UTC0", &rules("daily 2"), lines);
}

#[test]
fn a_clock_that_is_set_forward_or_back_by_an_hour_makes_no_day_and_no_hour_of_its_own() {
    // 02:30 comes twice on this night, and is one hour.
    let lines = "
        2026-10-25T02:30:00Z => hourly
        2026-10-25T01:30:00Z => hourly
        2026-10-25T00:30:00Z =>
        2026-10-24T23:30:00Z => hourly
        2026-10-24T22:30:00Z =>
    ";
    table(BERLIN, &rules("hourly 3"), lines);
    // 02:30 does not come at all.
    let lines = "
        2026-03-29T01:30:00Z => hourly
        2026-03-29T00:30:00Z => hourly
        2026-03-28T23:30:00Z =>
    ";
    table(BERLIN, &rules("hourly 2"), lines);
    let lines = "
        2026-10-25T22:59:59Z => daily
        2026-10-24T22:00:00Z =>
        2026-10-24T21:59:59Z => daily
    ";
    table(BERLIN, &rules("daily 3"), lines);
}

#[test]
fn what_is_protected_or_unreadable_is_kept_and_uses_up_nothing() {
    let lines = "
        2026-11-29 20:00 [protected] => protected
        2026-11-29 10:00 => daily
        2026-11-28 20:00 [unreadable] => unreadable
        2026-11-27 20:00 [protected] => protected
        2026-11-27 10:00 => daily
        2026-11-26 20:00 =>
    ";
    table("UTC0", &rules("daily 2"), lines);
    let lines = "
        2026-11-29 20:00 [protected] => protected
        2026-11-28 20:00 [unreadable] => unreadable
        2026-11-27 20:00 [damaged] =>
        2026-11-26 20:00 =>
    ";
    table("UTC0", &Policy::Nothing, lines);
}

#[test]
fn a_damaged_archive_takes_no_good_ones_place() {
    let lines = "
        2026-11-29 20:00 [damaged] => last
        2026-11-28 20:00 => last
        2026-11-27 20:00 [damaged] => last
        2026-11-26 20:00 => last
        2026-11-25 20:00 [damaged] =>
        2026-11-24 20:00 =>
    ";
    table("UTC0", &rules("last 2"), lines);
    let lines = "
        2026-11-29 20:00 [damaged] => daily
        2026-11-29 10:00 => daily
        2026-11-29 05:00 [damaged] =>
        2026-11-28 20:00 =>
    ";
    table("UTC0", &rules("daily 1"), lines);
}

#[test]
fn a_partial_archive_takes_no_whole_ones_place_and_stays_while_no_whole_one_is_newer() {
    let lines = "
        2026-11-29 20:00 [partial] => last
        2026-11-28 20:00 [partial] => last
        2026-11-27 20:00 => last
        2026-11-26 20:00 [partial] =>
        2026-11-25 20:00 =>
    ";
    table("UTC0", &rules("last 1"), lines);
    let lines = "
        2026-11-29 20:00 [partial] => daily, within
        2026-11-29 10:00 => daily, within
        2026-11-29 05:00 [partial] => within
        2026-11-28 20:00 [partial] => daily
        2026-11-27 20:00 => daily
        2026-11-26 20:00 [partial] =>
    ";
    table("UTC0", &rules("daily 2 within 6h"), lines);
}

#[test]
fn if_all_are_partial_all_are_kept_unless_they_are_to_count() {
    let lines = "
        2026-11-29 20:00 [partial] => last
        2026-11-28 20:00 [partial] => last
        2020-11-28 20:00 [partial] => last
    ";
    table("UTC0", &rules("last 1"), lines);
    let Policy::Rules(mut counting) = rules("last 1") else {
        panic!("no rules")
    };
    counting.count_partial = true;
    let lines = "
        2026-11-29 21:00 [damaged] => last
        2026-11-29 20:00 [partial] => last
        2026-11-28 20:00 [partial] =>
        2020-11-28 20:00 =>
    ";
    table("UTC0", &Policy::Rules(counting), lines);
}

#[test]
fn if_all_are_damaged_all_are_kept() {
    let lines = "
        2026-11-29 20:00 [damaged] => last, within
        2026-11-28 20:00 [damaged] => last, within
        2020-11-28 20:00 [damaged] => last, within
    ";
    table("UTC0", &rules("last 1 within 1d"), lines);
}

#[test]
fn archives_of_the_future_are_kept_and_push_nothing_out() {
    let lines = "
        2036-11-30T12:00:00Z => future
        2026-11-30T13:00:00Z => future
        2026-11-30T12:05:01Z => future
        2026-11-30T12:05:00Z => last, within
        2026-11-30T11:00:00Z => last, within
        2026-11-29T11:00:00Z =>
    ";
    table("UTC0", &rules("last 2 within 12h"), lines);
}

#[test]
fn a_clock_that_is_ten_years_behind_forgets_nothing() {
    let archives: Vec<_> = (0..20)
        .map(|day| archive(now().0 - day * 86_400, 0, State::Whole))
        .collect();
    let behind = UnixTime(seconds("2016-11-30T12:00:00Z"));
    let verdicts = decide(&archives, &rules("last 1"), &TimeZone::UTC, behind);
    let future = Verdict::Kept([Reason::Future].into());
    assert!(verdicts.iter().all(|verdict| *verdict == future));
}

#[test]
fn a_clock_that_is_ten_years_ahead_forgets_no_more_than_a_right_one() {
    let archives: Vec<_> = (0..100)
        .map(|hours| archive(now().0 - hours * 50_000, 0, State::Whole))
        .collect();
    let policy = rules("last 2 daily 3 weekly 2 within 5d within-monthly 1y");
    let ahead = UnixTime(seconds("2036-11-30T12:00:00Z"));
    assert_eq!(
        decide(&archives, &policy, &TimeZone::UTC, ahead),
        decide(&archives, &policy, &TimeZone::UTC, now())
    );
}

#[test]
fn an_archive_whose_name_says_no_time_is_kept() {
    let odd = Candidate {
        name: "main/vm/web/x".parse().unwrap(),
        time: None,
        state: State::Whole,
    };
    let archives = [archive(now().0, 0, State::Whole), odd];
    let verdicts = decide(&archives, &rules("last 1"), &TimeZone::UTC, now());
    assert_eq!(verdicts[1], Verdict::Kept([Reason::Undated].into()));
    assert!(matches!(&verdicts[0], Verdict::Kept(reasons) if !reasons.contains(&Reason::Undated)));
}

#[test]
fn of_archives_of_one_second_each_counts_by_itself() {
    let second = now().0 - 60;
    let archives = [2, 9, 4].map(|random| archive(second, random, State::Whole));
    let kept = super::kept_of(&archives, &rules("last 2"));
    assert_eq!(kept, [archives[1].clone(), archives[2].clone()]);
    let kept = super::kept_of(&archives, &rules("hourly 2"));
    assert_eq!(kept, [archives[1].clone()]);
}

#[test]
fn what_is_young_is_kept_besides_and_counts_for_nothing_less() {
    let lines = "
        2026-11-29 20:00 => daily, within
        2026-11-29 10:00 => within
        2026-11-28 20:00 => daily, within
        2026-11-28 10:00 =>
        2026-11-27 20:00 =>
    ";
    table("UTC0", &rules("daily 2 within 1d"), lines);
    let lines = "
        2026-11-29 20:00 => within-daily, within-monthly
        2026-11-29 10:00 =>
        2026-11-28 20:00 => within-daily
        2026-11-01 20:00 =>
        2026-10-31 20:00 => within-monthly
        2026-09-29 20:00 => within-monthly
        2026-08-29 20:00 =>
    ";
    table("UTC0", &rules("within-daily 7d within-monthly 2m"), lines);
}

#[test]
fn age_is_measured_from_the_newest_whole_archive_and_not_from_today() {
    let lines = "
        2020-01-20 20:00 [damaged] => within
        2020-01-10 20:00 => within
        2020-01-04 20:00 => within
        2020-01-03 19:59 =>
    ";
    table("UTC0", &rules("within 7d"), lines);
}

#[test]
fn a_policy_of_everything_keeps_everything() {
    let lines = "
        2026-11-29 20:00 => all
        2036-11-29 20:00 => all
        2001-11-29 20:00 [damaged] => all
    ";
    table("UTC0", &Policy::All, lines);
}
