//! The protocol by which writers, prunings, who forgets and who reads share a repository without
//! locks (docs/FORMAT.md 8.3): every order of their operations on the storage, in small universes,
//! and a counterexample for each rule that is left out. docs/TESTING.md says what is modelled.

mod explore;
mod forgetter;
mod properties;
mod pruner;
mod reader;
mod rules;
mod universe;
mod world;
mod writer;

use explore::explore;
use rules::{Rule, Rules};
use universe::Universe;

const A: u8 = 1;
const B: u8 = 2;

/// A pack that is half needed, chunk A twice, B only for an archive that is forgotten.
const TWO_WRITERS: Universe = Universe {
    name: "two writers, a pruning, one who forgets",
    writers: 2,
    pruners: 1,
    forgetter: Some(1),
    reader: false,
    packs: [A | B, A, 0],
    needs: [B, A, B, A | B],
    forgotten: false,
    timed: false,
    behind: 0,
    empty: 0,
};

const TWO_PRUNINGS: Universe = Universe {
    name: "two prunings, one who forgets",
    writers: 0,
    pruners: 2,
    forgetter: Some(2),
    ..TWO_WRITERS
};

/// Nothing but writers and prunings: B is in a pack of its own.
const WRITER: Universe = Universe {
    name: "a writer, two prunings",
    writers: 1,
    pruners: 2,
    forgetter: None,
    forgotten: true,
    packs: [B, A, 0],
    ..TWO_WRITERS
};

const READER: Universe = Universe {
    name: "a writer, a pruning, one who forgets, a reader",
    writers: 1,
    reader: true,
    ..TWO_WRITERS
};

const BEHIND: Universe = Universe {
    name: "a writer, a pruning, two listings that are behind",
    pruners: 1,
    packs: TWO_WRITERS.packs,
    timed: true,
    behind: 2,
    ..WRITER
};

const TIMED: Universe = Universe {
    name: "a writer, a pruning, time",
    behind: 0,
    ..BEHIND
};

const EMPTY: Universe = Universe {
    name: "a writer, a pruning, an empty listing",
    timed: false,
    empty: 1,
    ..TIMED
};

const UNIVERSES: &[Universe] = &[
    TWO_WRITERS,
    TWO_PRUNINGS,
    WRITER,
    Universe {
        name: "two prunings, a reader",
        forgetter: None,
        forgotten: true,
        reader: true,
        ..TWO_PRUNINGS
    },
    READER,
    BEHIND,
    TIMED,
    EMPTY,
];

/// For who has minutes: `cargo xtask model`.
const LARGE: &[Universe] = &[
    Universe {
        name: "a writer, two prunings, one who forgets",
        forgetter: Some(0),
        forgotten: false,
        ..WRITER
    },
    Universe {
        name: "two writers, a pruning, one who forgets, a reader",
        reader: true,
        ..TWO_WRITERS
    },
    Universe {
        name: "a writer, two prunings, a chunk twice and a pack half needed",
        packs: TWO_WRITERS.packs,
        ..WRITER
    },
    Universe {
        name: "two prunings, one who forgets, a reader",
        reader: true,
        ..TWO_PRUNINGS
    },
    Universe {
        name: "two writers, a pruning, three listings that are behind",
        writers: 2,
        behind: 3,
        ..BEHIND
    },
    Universe {
        name: "two prunings, two listings that are behind",
        writers: 0,
        pruners: 2,
        ..BEHIND
    },
    Universe {
        name: "a writer, two prunings, two empty listings",
        pruners: 2,
        empty: 2,
        ..EMPTY
    },
];

/// The universe in which the want of a rule shows.
fn shown_in(rule: Rule) -> &'static Universe {
    match rule {
        Rule::WriterLooksAgain
        | Rule::WritersTreatCondemnedPacksAsAbsent
        | Rule::GenerationsAreComparedByName
        | Rule::SecondListing
        | Rule::MarkerBeforeTheSecondListing
        | Rule::AllSnapshotsAreJudgedByAllGenerations
        | Rule::LateSnapshotsAreNotListed
        | Rule::LateSnapshotsAreNoSurvivors
        | Rule::SnapshotsAreRemovedBeforeTheirAttributes
        | Rule::CopiesBeforeDeletions
        | Rule::TheNewestMarkerStays => &WRITER,
        Rule::WhatWasForgottenSinceTheMarkStaysWhole
        | Rule::GenerationsStayWithTheArchivesTheyName
        | Rule::TakingBackLooksAgain
        | Rule::TakingBackTwiceLooksAgain => &TWO_PRUNINGS,
        Rule::ReadersReadTheIndexAgain => &READER,
        Rule::ListingsThatLackWhatWasThereStopThePruner => &EMPTY,
        Rule::SecondListingWaits => &BEHIND,
        Rule::Grace => &TIMED,
    }
}

/// What `cargo xtask model` asks for.
fn asked(what: &str) -> bool {
    std::env::var("SNAPKEEP_MODEL").is_ok_and(|words| words.split(' ').any(|word| word == what))
}

#[test]
fn no_order_of_operations_loses_anything() {
    let large = asked("large").then_some(LARGE);
    let (mut states, mut transitions) = (0, 0);
    for universe in UNIVERSES.iter().chain(large.into_iter().flatten()) {
        let explored = explore(universe, Rules::default());
        if let Some(found) = &explored.found {
            panic!("{}: {}\n{}", universe.name, found.what, found.trace);
        }
        println!("{}: {} states", universe.name, explored.states);
        states += explored.states;
        transitions += explored.transitions;
    }
    println!(
        "protocol model: {states} states, {transitions} transitions, {} properties, 0 violations",
        properties::PROPERTIES
    );
}

#[test]
fn every_rule_is_needed() {
    for rule in Rule::ALL {
        let rules = Rules {
            dropped: Some(rule),
        };
        let universe = shown_in(rule);
        let Some(found) = explore(universe, rules).found else {
            panic!("{}: {rule:?} is not needed", universe.name);
        };
        let what = found.what;
        println!("without {rule:?}: {what}, after {} steps", found.steps);
        if asked("traces") {
            println!("{}", found.trace);
        }
    }
}
