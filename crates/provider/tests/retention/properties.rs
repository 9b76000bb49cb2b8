//! Properties of any policy over any archives.

use proptest::prelude::*;
use snapkeep_provider::retention::{Candidate, Policy, State};

use super::{archive, kept_of, now, rules};

/// Of what lies close together to what lies years apart, so that every period has several.
fn archives() -> impl Strategy<Value = Vec<Candidate>> {
    let gap = prop_oneof![0..7200i64, 0..200_000i64, 0..5_000_000i64, 0..60_000_000i64];
    let state = prop_oneof![
        8 => Just(State::Whole),
        1 => Just(State::Damaged),
        1 => Just(State::Partial),
        1 => Just(State::Protected),
        1 => Just(State::Unreadable),
    ];
    let start = -1_000_000..50_000_000i64;
    let one = (gap, 0..3u64, state);
    (start, prop::collection::vec(one, 0..40)).prop_map(|(start, steps)| {
        let mut time = now().0 - start;
        let mut archives = Vec::new();
        for (gap, random, state) in steps {
            time -= gap;
            archives.push(archive(time, random, state));
        }
        archives.sort_by(|a, b| a.name.cmp(&b.name));
        archives.dedup_by(|a, b| a.name == b.name);
        archives
    })
}

const COUNTS: [&str; 6] = ["last", "hourly", "daily", "weekly", "monthly", "yearly"];

fn counts() -> impl Strategy<Value = [u32; 6]> {
    prop::array::uniform6(prop_oneof![Just(0), 0..6u32])
}

const WITHIN: [&str; 5] = [
    "",
    "within 5h",
    "within 40d",
    "within-daily 3m",
    "within-monthly 2y",
];

fn within() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&WITHIN[..])
}

fn policy(counts: &[u32; 6], within: &str) -> Policy {
    let words = COUNTS
        .iter()
        .zip(counts)
        .map(|(name, n)| format!("{name} {n} "));
    rules(format!("{}{within}", words.collect::<String>()).trim())
}

fn whole(archives: &[Candidate]) -> Vec<Candidate> {
    let now = now().0;
    let past = |archive: &&Candidate| archive.time.is_some_and(|time| time.0 <= now);
    let whole = archives
        .iter()
        .filter(|archive| archive.state == State::Whole);
    whole.filter(past).cloned().collect()
}

proptest! {
    #[test]
    fn forgetting_twice_forgets_nothing_more(
        archives in archives(), counts in counts(), within in within()
    ) {
        let policy = policy(&counts, within);
        let kept = kept_of(&archives, &policy);
        prop_assert_eq!(&kept_of(&kept, &policy), &kept);
    }

    #[test]
    fn who_is_killed_on_the_way_forgets_the_rest_the_next_time(
        archives in archives(), counts in counts(), within in within(),
        gone in prop::collection::vec(any::<bool>(), 40)
    ) {
        let policy = policy(&counts, within);
        let kept = kept_of(&archives, &policy);
        let left = archives.iter().zip(gone).filter(|(archive, gone)| !gone || kept.contains(archive));
        let left: Vec<Candidate> = left.map(|(archive, _)| archive.clone()).collect();
        prop_assert_eq!(kept_of(&left, &policy), kept);
    }

    #[test]
    fn the_last_ones_are_always_kept(
        archives in archives(), counts in counts(), within in within()
    ) {
        let kept = kept_of(&archives, &policy(&counts, within));
        let last = whole(&archives).into_iter().rev().take(counts[0] as usize);
        for archive in last {
            prop_assert!(kept.contains(&archive), "{}", archive.name);
        }
    }

    #[test]
    fn some_whole_archive_is_kept_if_there_is_one(
        archives in archives(), counts in counts(), within in within()
    ) {
        prop_assume!(counts.iter().any(|count| *count > 0) || !within.is_empty());
        let whole = whole(&archives);
        let kept = kept_of(&archives, &policy(&counts, within));
        if let Some(newest) = whole.last() {
            prop_assert!(kept.contains(newest), "{}", newest.name);
        }
    }

    #[test]
    fn what_is_protected_unreadable_or_of_the_future_is_kept_and_changes_nothing(
        archives in archives(), counts in counts(), within in within()
    ) {
        let policy = policy(&counts, within);
        let latest = now().0 + 300;
        let exempt = |archive: &Candidate| {
            matches!(archive.state, State::Protected | State::Unreadable)
                || archive.time.is_some_and(|time| time.0 > latest)
        };
        let (exempt, others): (Vec<_>, Vec<_>) = archives.iter().cloned().partition(exempt);
        let mut expected = kept_of(&others, &policy);
        expected.extend(exempt);
        expected.sort_by(|a, b| a.name.cmp(&b.name));
        prop_assert_eq!(kept_of(&archives, &policy), expected);
    }

    #[test]
    fn damaged_and_partial_archives_change_nothing_for_others(
        archives in archives(), counts in counts(), within in within()
    ) {
        let policy = policy(&counts, within);
        let good = |kept: Vec<Candidate>| -> Vec<Candidate> {
            let bad = |archive: &Candidate| matches!(archive.state, State::Damaged | State::Partial);
            kept.into_iter().filter(|archive| !bad(archive)).collect()
        };
        let without = good(archives.clone());
        prop_assert_eq!(good(kept_of(&archives, &policy)), kept_of(&without, &policy));
    }

    #[test]
    fn who_keeps_more_of_the_last_rule_forgets_no_more(
        archives in archives(), counts in counts(), within in within(), more in 1..4u32
    ) {
        let few = kept_of(&archives, &policy(&counts, within));
        let at = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
        let mut larger = counts;
        larger[at] += more;
        let many = kept_of(&archives, &policy(&larger, within));
        for archive in few {
            prop_assert!(many.contains(&archive), "{}", archive.name);
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(
        archives in archives(), counts in counts(), within in within()
    ) {
        let policy = policy(&counts, within);
        let mut reversed = archives.clone();
        reversed.reverse();
        let mut kept = kept_of(&reversed, &policy);
        kept.reverse();
        prop_assert_eq!(kept, kept_of(&archives, &policy));
    }
}
