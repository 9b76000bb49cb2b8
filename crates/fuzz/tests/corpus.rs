//! The corpora and some thousand mutations of them; `cargo xtask fuzz` tries more.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use snapkeep_fuzz::{Campaign, Finding, Target, corpus};

/// Enough to meet what is near, and for some seconds.
const MUTATIONS: usize = 4000;

/// The targets of a crate, and where their corpora are.
type Suite = (&'static [(&'static str, Target)], fn(&str) -> PathBuf);

const SUITES: [Suite; 2] = [
    (
        &snapkeep_nbd::fuzz::TARGETS,
        snapkeep_nbd::fuzz::corpus_folder,
    ),
    (
        &snapkeep_walk::fuzz::TARGETS,
        snapkeep_walk::fuzz::corpus_folder,
    ),
];

/// Every target, and its corpus.
fn targets() -> impl Iterator<Item = (&'static str, Target, PathBuf)> {
    SUITES.iter().flat_map(|(targets, folder)| {
        let all = targets.iter();
        all.map(|(name, target)| (*name, *target, folder(name)))
    })
}

#[test]
fn no_input_of_the_corpus_makes_a_target_panic() {
    for (name, target, folder) in targets() {
        for kept in corpus(&folder).unwrap() {
            let found = Campaign::new(target, vec![kept.input], 1).is_err();
            assert!(!found, "{name} panics with {}", kept.path.display());
        }
    }
}

#[test]
fn no_mutation_of_the_corpus_makes_a_target_panic() {
    for (name, target, folder) in targets() {
        let inputs = corpus(&folder).unwrap().into_iter().map(|kept| kept.input);
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
    for (_, target, folder) in targets() {
        let mut ways = BTreeSet::new();
        for kept in corpus(&folder).unwrap() {
            let is_new = ways.insert(target(&kept.input));
            let was_found = kept.path.to_string_lossy().contains("/found-");
            assert!(is_new || was_found, "{} adds nothing", kept.path.display());
        }
    }
}

#[test]
fn every_folder_of_the_corpus_belongs_to_a_target() {
    for (targets, folder) in SUITES {
        let all = folder("").canonicalize().unwrap();
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(all).unwrap() {
            found.insert(entry.unwrap().file_name().into_string().unwrap());
        }
        let targets = targets.iter().map(|(name, _)| (*name).to_owned());
        assert_eq!(found, targets.collect());
    }
}
