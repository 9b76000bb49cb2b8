//! The corpus and some thousand mutations of it; `cargo xtask fuzz` tries more.

use std::collections::BTreeSet;
use std::fs;

use snapkeep_fuzz::{Campaign, Finding, corpus};
use snapkeep_walk::fuzz::{TARGETS, corpus_folder};

/// Enough to meet what is near, and for some seconds.
const MUTATIONS: usize = 4000;

#[test]
fn no_input_of_the_corpus_makes_a_target_panic() {
    for (name, target) in TARGETS {
        for kept in corpus(&corpus_folder(name)).unwrap() {
            let found = Campaign::new(target, vec![kept.input], 1).is_err();
            assert!(!found, "{name} panics with {}", kept.path.display());
        }
    }
}

#[test]
fn no_mutation_of_the_corpus_makes_a_target_panic() {
    for (name, target) in TARGETS {
        let inputs = corpus(&corpus_folder(name))
            .unwrap()
            .into_iter()
            .map(|kept| kept.input);
        let mut campaign = Campaign::new(target, inputs.collect(), 1).unwrap();
        for _ in 0..MUTATIONS {
            if let Err(Finding { input }) = campaign.step() {
                panic!("{name} panics with {input:?}");
            }
        }
    }
}

#[test]
fn every_session_of_the_corpus_is_treated_in_a_way_of_its_own() {
    // A corpus that all ends in the same early error would lead the search nowhere. What was found
    // and mended may well be treated like something else.
    for (name, target) in TARGETS {
        let mut ways = BTreeSet::new();
        for kept in corpus(&corpus_folder(name)).unwrap() {
            let is_new = ways.insert(target(&kept.input));
            let was_found = kept.path.to_string_lossy().contains("/found-");
            assert!(is_new || was_found, "{} adds nothing", kept.path.display());
        }
    }
}

#[test]
fn every_folder_of_the_corpus_belongs_to_a_target() {
    let all = corpus_folder("").canonicalize().unwrap();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(all).unwrap() {
        found.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    let targets = TARGETS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(found, targets.collect());
}
