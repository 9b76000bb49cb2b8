//! Damaged golden repositories restore as they were, or an error names what is damaged.

#![allow(clippy::print_stdout, reason = "how much was tried is to be seen")]

#[path = "support/flips.rs"]
mod flips;
#[path = "support/golden.rs"]
mod golden;

use flips::{Counts, Target, summary};

/// Files up to this length are changed at every byte.
const SMALL: usize = 1100;

#[test]
fn flipped_bytes_are_refused_or_change_nothing() {
    for name in ["encrypted", "open"] {
        let target = Target::new(&golden::folder(), name).unwrap();
        let (mut counts, mut wrong) = (Counts::default(), Vec::new());
        for (file, bytes) in &target.files {
            let step = if bytes.len() <= SMALL { 1 } else { 499 };
            let ends = (0..144).chain(bytes.len().saturating_sub(200)..bytes.len());
            for at in (0..bytes.len())
                .step_by(step)
                .chain(ends.filter(|_| step > 1))
            {
                let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 0x20;
                if let Err(why) = target.damage(file, flip, &mut counts) {
                    wrong.push(format!("{file} at {at}: {why}"));
                }
            }
        }
        println!("{}", summary(name, "flipped", counts, wrong.len()));
        assert!(
            wrong.is_empty(),
            "{} wrong: {:#?}",
            wrong.len(),
            &wrong[..wrong.len().min(20)]
        );
        assert!(
            counts.refused > 500 && counts.without_effect > 100,
            "{counts:?}"
        );
    }
}

#[test]
fn files_that_are_cut_or_have_grown_are_refused_or_change_nothing() {
    for name in ["encrypted", "open"] {
        let target = Target::new(&golden::folder(), name).unwrap();
        let (mut counts, mut wrong) = (Counts::default(), Vec::new());
        for (file, bytes) in &target.files {
            for length in [
                0,
                1,
                15,
                16,
                47,
                48,
                127,
                128,
                144,
                bytes.len() / 2,
                bytes.len() - 1,
                bytes.len() + 1,
            ] {
                let cut = |bytes: &mut Vec<u8>| bytes.resize(length, 0);
                if let Err(why) = target.damage(file, cut, &mut counts) {
                    wrong.push(format!("{file} of {length} bytes: {why}"));
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{} wrong: {:#?}",
            wrong.len(),
            &wrong[..wrong.len().min(20)]
        );
        assert!(
            counts.refused > 20 && counts.without_effect > 5,
            "{counts:?}"
        );
    }
}
