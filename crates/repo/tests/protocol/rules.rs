//! The rules of the protocol (docs/FORMAT.md 8.3), each of which a test drops once.

use super::world::{Generations, World, has, members};

/// A rule; the words are those of the counterexample's heading.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    WriterLooksAgain,
    WritersTreatCondemnedPacksAsAbsent,
    GenerationsAreComparedByName,
    SecondListing,
    MarkerBeforeTheSecondListing,
    AllSnapshotsAreJudgedByAllGenerations,
    WhatWasForgottenSinceTheMarkStaysWhole,
    LateSnapshotsAreNotListed,
    LateSnapshotsAreNoSurvivors,
    SnapshotsAreRemovedBeforeTheirAttributes,
    CopiesBeforeDeletions,
    TheNewestMarkerStays,
    GenerationsStayWithTheArchivesTheyName,
    TakingBackLooksAgain,
    TakingBackTwiceLooksAgain,
    ReadersReadTheIndexAgain,
    ListingsThatLackWhatWasThereStopThePruner,
    SecondListingWaits,
    Grace,
}

impl Rule {
    pub(crate) const ALL: [Self; 19] = [
        Self::WriterLooksAgain,
        Self::WritersTreatCondemnedPacksAsAbsent,
        Self::GenerationsAreComparedByName,
        Self::SecondListing,
        Self::MarkerBeforeTheSecondListing,
        Self::AllSnapshotsAreJudgedByAllGenerations,
        Self::WhatWasForgottenSinceTheMarkStaysWhole,
        Self::LateSnapshotsAreNotListed,
        Self::LateSnapshotsAreNoSurvivors,
        Self::SnapshotsAreRemovedBeforeTheirAttributes,
        Self::CopiesBeforeDeletions,
        Self::TheNewestMarkerStays,
        Self::GenerationsStayWithTheArchivesTheyName,
        Self::TakingBackLooksAgain,
        Self::TakingBackTwiceLooksAgain,
        Self::ReadersReadTheIndexAgain,
        Self::ListingsThatLackWhatWasThereStopThePruner,
        Self::SecondListingWaits,
        Self::Grace,
    ];
}

/// All rules, or all but one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) dropped: Option<Rule>,
}

impl Rules {
    pub(crate) fn hold(self, rule: Rule) -> bool {
        self.dropped != Some(rule)
    }

    /// The markers among these whose generations somebody who saw those has not seen.
    pub(crate) fn unseen(
        self,
        world: &World,
        marks: Generations,
        seen: Generations,
    ) -> Generations {
        if self.hold(Rule::GenerationsAreComparedByName) {
            return marks & !seen;
        }
        let number = |i: usize| world.generations[i].number;
        let newest = members(seen.into()).map(number).max().unwrap_or(0);
        let newer = members(marks.into()).filter(|i| number(*i) > newest);
        newer.fold(0, |all, i| all | 1 << i)
    }

    /// Whether a sweep with one of these markers may have removed what a snapshot relies on.
    pub(crate) fn late(self, world: &World, snapshot: usize, marks: Generations) -> bool {
        let seen = world.snapshots[snapshot].seen;
        members(self.unseen(world, marks, seen).into())
            .any(|i| !has(world.generations[i].survivors, snapshot))
    }
}
