//! A pruning: mark, generation, grace, marker, second listing, copies, deletions. A process that is
//! killed takes no further step; the next one takes over what its generation condemns.

use super::rules::{Rule, Rules};
use super::world::{
    Chunks, FIRST_PACKS, FIRST_WRITTEN, FORGOTTEN, Generations, PACKS, Packs, Snapshots, View,
    WAIT, World, has, members,
};

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum At {
    #[default]
    ListPrune,
    /// And attributes.
    ListSnapshots,
    ListPacks,
    PutCopies,
    IndexCopies,
    PutGeneration,
    ListSurvivors,
    PutMarker,
    ListSnapshotsAgain,
    ListAttributesAgain,
    ListPruneAgain,
    ListPacksAgain,
    PutLateCopies,
    IndexLateCopies,
    RemoveSnapshots,
    RemoveAttributes,
    RemoveIndex,
    RemovePacks,
    RemoveMarkers,
    RemoveGenerations,
    Stopped,
    Done,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Pruner {
    pub(crate) at: At,
    /// What its listings showed, as long as that matters.
    generations: Generations,
    marks: Generations,
    packs: Packs,
    snapshots: Snapshots,
    forgotten: bool,
    /// Snapshots whose needs the mark gave homes.
    marked: Snapshots,
    /// What is to be done.
    names: Snapshots,
    condemned: Packs,
    copy: Chunks,
}

impl Pruner {
    pub(crate) fn lists(&self) -> bool {
        matches!(
            self.at,
            At::ListPrune
                | At::ListSnapshots
                | At::ListPacks
                | At::ListSurvivors
                | At::ListSnapshotsAgain
                | At::ListAttributesAgain
                | At::ListPruneAgain
                | At::ListPacksAgain
        )
    }

    fn ended(&self) -> bool {
        matches!(self.at, At::Stopped | At::Done)
    }

    pub(crate) fn done(&self) -> bool {
        self.at == At::Done
    }

    fn waits(&self, world: &World, me: usize, rules: Rules) -> bool {
        let generation = &world.generations[me];
        let second = rules.hold(Rule::SecondListingWaits) && generation.marker.age() < WAIT;
        self.at == At::ListSurvivors && rules.hold(Rule::Grace) && generation.file.age() < WAIT
            || self.at == At::ListSnapshotsAgain && generation.marker.exists() && second
    }

    /// One operation of the storage. False if it has ended, or must wait.
    pub(crate) fn step(
        &mut self,
        world: &mut World,
        me: usize,
        view: View,
        rules: Rules,
        timed: bool,
    ) -> bool {
        if self.ended() || timed && self.waits(world, me, rules) {
            return false;
        }
        let copies = FIRST_PACKS + FIRST_WRITTEN + 2 * me;
        self.at = match self.at {
            At::ListPrune => {
                (self.generations, self.marks) = world.list_prune(view);
                At::ListSnapshots
            }
            At::ListSnapshots => {
                self.snapshots = world.list_snapshots(view);
                self.forgotten = world.list_forgotten(view);
                At::ListPacks
            }
            // After the snapshots, so that it shows what they need.
            At::ListPacks => {
                self.packs = world.list_packs(view);
                self.mark(world, me, rules)
            }
            At::PutCopies => {
                world.put_pack(copies, self.copy);
                self.copy = 0;
                At::IndexCopies
            }
            At::IndexCopies => {
                world.put_index(copies);
                At::PutGeneration
            }
            At::PutGeneration => self.put_generation(world, me),
            At::ListSurvivors => self.survivors(world, me, view, rules),
            At::PutMarker => {
                world.generations[me].marker.put();
                if rules.hold(Rule::MarkerBeforeTheSecondListing) && rules.hold(Rule::SecondListing)
                {
                    At::ListSnapshotsAgain
                } else {
                    At::ListPruneAgain
                }
            }
            At::ListSnapshotsAgain => self.list_snapshots_again(world, view, rules),
            At::ListAttributesAgain => {
                self.forgotten = world.list_forgotten(view);
                if rules.hold(Rule::MarkerBeforeTheSecondListing) {
                    At::ListPruneAgain
                } else {
                    At::PutMarker
                }
            }
            At::ListPruneAgain => self.list_prune_again(world, me, view, rules),
            At::ListPacksAgain => {
                self.packs = world.list_packs(view);
                self.judge(world, me, rules)
            }
            At::PutLateCopies => {
                world.put_pack(copies + 1, self.copy);
                self.copy = 0;
                At::IndexLateCopies
            }
            At::IndexLateCopies => {
                world.put_index(copies + 1);
                if rules.hold(Rule::CopiesBeforeDeletions) {
                    At::RemoveSnapshots
                } else {
                    At::RemoveMarkers
                }
            }
            At::RemoveSnapshots => self.remove_snapshots(world, rules),
            At::RemoveAttributes => self.remove_attributes(world),
            At::RemoveIndex => remove_index(world, me),
            At::RemovePacks => self.remove_packs(world, me),
            At::RemoveMarkers => self.remove_markers(world, me, rules),
            At::RemoveGenerations => self.remove_generations(world, me, rules),
            At::Stopped | At::Done => return false,
        };
        if self.ended() {
            *self = Self {
                at: self.at,
                ..Self::default()
            };
        }
        true
    }

    /// Whether a snapshot that was there is not listed, and no sweep was to remove it.
    fn lacks(&self, world: &World, before: Snapshots, rules: Rules) -> bool {
        let (generations, _) = world.list_prune(View::NOW);
        let lacking = before & !self.snapshots & !world.named(generations);
        lacking != 0 && rules.hold(Rule::ListingsThatLackWhatWasThereStopThePruner)
    }

    fn remembered(&self) -> Snapshots {
        self.snapshots & !(Snapshots::from(self.forgotten) << FORGOTTEN)
    }

    /// The snapshots that count, and those that are late and not whole. None if one is damaged, or
    /// packs are not listed.
    fn judged(
        &self,
        world: &World,
        marks: Generations,
        rules: Rules,
    ) -> Option<(Snapshots, Snapshots)> {
        let mut broken = 0;
        for snapshot in members(self.remembered().into()) {
            if !world.whole(snapshot, self.packs) {
                if !rules.late(world, snapshot, marks) {
                    return None;
                }
                broken |= 1 << snapshot;
            }
        }
        Some((self.remembered() & !broken, broken))
    }

    fn mark(&mut self, world: &World, me: usize, rules: Rules) -> At {
        // What all markers name: one may name what another's sweep rightly removed.
        let survivors = members(self.marks.into()).map(|i| world.generations[i].survivors);
        let survivors = survivors.reduce(|all, more| all & more).unwrap_or(0);
        let Some((counting, broken)) = self.judged(world, self.marks, rules) else {
            return At::Stopped;
        };
        if self.lacks(world, survivors, rules) {
            return At::Stopped;
        }
        let needed = world.needs(counting);
        let (mut covered, mut kept) = (0, 0);
        let candidates = self.packs & !world.condemned(self.generations);
        for i in 0..PACKS {
            // Two prunings keep different copies.
            let i = if me.is_multiple_of(2) {
                i
            } else {
                PACKS - 1 - i
            };
            let chunks = world.packs[i].chunks;
            if has(candidates, i) && chunks & (!needed | covered) == 0 {
                covered |= chunks;
                kept |= 1 << i;
            }
        }
        self.copy = needed & !covered;
        self.condemned = self.packs & !kept;
        self.names = broken | self.snapshots & !self.remembered();
        self.marked = counting;
        // A marker whose generation is gone was put by one that slept.
        self.generations |= self.marks;
        (self.packs, self.forgotten) = (0, false);
        // What lies in packs that are gone after all cannot be copied.
        let there = world.list_packs(View::NOW);
        if self.copy & !world.chunks(there) != 0 {
            At::Stopped
        } else if self.copy != 0 {
            At::PutCopies
        } else {
            At::PutGeneration
        }
    }

    fn put_generation(&mut self, world: &mut World, me: usize) -> At {
        let numbers = members(self.generations.into()).map(|i| world.generations[i].number);
        let newest = numbers.max().unwrap_or(0);
        let generation = &mut world.generations[me];
        generation.number = newest + 1;
        generation.condemned = self.condemned;
        generation.names = self.names;
        generation.file.put();
        (self.condemned, self.names) = (0, 0);
        At::ListSurvivors
    }

    fn survivors(&mut self, world: &mut World, me: usize, view: View, rules: Rules) -> At {
        let before = self.snapshots;
        self.snapshots = world.list_snapshots(view);
        if self.lacks(world, before, rules) {
            return At::Stopped;
        }
        let mut survivors = self.snapshots & !world.generations[me].names;
        if rules.hold(Rule::LateSnapshotsAreNoSurvivors) {
            for snapshot in members((survivors & !self.marked).into()) {
                if rules.late(world, snapshot, self.marks) {
                    survivors &= !(1 << snapshot);
                }
            }
        }
        self.marked = 0;
        world.generations[me].survivors = survivors;
        if rules.hold(Rule::MarkerBeforeTheSecondListing) {
            At::PutMarker
        } else {
            At::ListSnapshotsAgain
        }
    }

    fn list_snapshots_again(&mut self, world: &World, view: View, rules: Rules) -> At {
        let before = self.snapshots;
        self.snapshots = world.list_snapshots(view);
        if self.lacks(world, before, rules) {
            At::Stopped
        } else {
            At::ListAttributesAgain
        }
    }

    fn list_prune_again(&mut self, world: &World, me: usize, view: View, rules: Rules) -> At {
        let (generations, marks) = world.list_prune(view);
        if !has(generations, me) {
            return At::Stopped;
        }
        // Of the old ones, those that the mark knew are removed at the end.
        if rules.hold(Rule::AllSnapshotsAreJudgedByAllGenerations) {
            self.condemned = world.condemned(generations);
        } else {
            self.condemned = world.condemned(self.generations | 1 << me);
        }
        if !rules.hold(Rule::SecondListing) {
            self.forgotten = world.list_forgotten(view);
        }
        // One that was swept meanwhile is for the next pruning, whose mark knows who is late.
        self.generations &= self.marks | !marks;
        self.marks |= marks;
        At::ListPacksAgain
    }

    /// What must be copied, and which snapshots go.
    fn judge(&mut self, world: &World, me: usize, rules: Rules) -> At {
        let named = world.generations[me].names;
        if rules.hold(Rule::WhatWasForgottenSinceTheMarkStaysWhole) {
            self.forgotten &= has(named, FORGOTTEN);
        }
        let Some((counting, broken)) = self.judged(world, self.marks, rules) else {
            return At::Stopped;
        };
        let homes = self.packs & !self.condemned;
        self.copy = world.needs(counting) & !world.chunks(homes);
        self.names = named & (broken | self.snapshots & !self.remembered());
        (self.packs, self.condemned, self.forgotten) = (0, 0, false);
        let there = world.list_packs(View::NOW);
        if self.copy & !world.chunks(there) != 0 {
            At::Stopped
        } else if self.copy != 0 && rules.hold(Rule::CopiesBeforeDeletions) {
            At::PutLateCopies
        } else {
            At::RemoveSnapshots
        }
    }

    /// Each of these removes one file, or goes on to the next kind.
    fn remove_snapshots(&mut self, world: &mut World, rules: Rules) -> At {
        let attributes_first = !rules.hold(Rule::SnapshotsAreRemovedBeforeTheirAttributes);
        if attributes_first && has(self.names, FORGOTTEN) && world.forgotten.exists() {
            world.forgotten.remove();
            world.taken_back.remove();
            return At::RemoveSnapshots;
        }
        let Some(gone) = members(self.names.into()).next() else {
            return At::RemoveAttributes;
        };
        world.snapshots[gone].file.remove();
        self.names &= !(1 << gone);
        self.snapshots &= !(1 << gone);
        At::RemoveSnapshots
    }

    fn remove_attributes(self, world: &mut World) -> At {
        if !has(self.snapshots, FORGOTTEN) {
            world.forgotten.remove();
            world.taken_back.remove();
        }
        At::RemoveIndex
    }

    fn remove_packs(self, world: &mut World, me: usize) -> At {
        let mut condemned = members(world.generations[me].condemned);
        if let Some(next) = condemned.find(|i| world.packs[*i].file.exists()) {
            world.packs[next].file.remove();
            At::RemovePacks
        } else if self.copy != 0 {
            At::PutLateCopies
        } else {
            At::RemoveMarkers
        }
    }

    fn remove_markers(self, world: &mut World, me: usize, rules: Rules) -> At {
        let old = self.old(world, me, rules);
        let next = members(old.into()).find(|i| world.generations[*i].marker.exists());
        let Some(next) = next else {
            return At::RemoveGenerations;
        };
        world.generations[next].marker.remove();
        At::RemoveMarkers
    }

    fn remove_generations(self, world: &mut World, me: usize, rules: Rules) -> At {
        let old = self.old(world, me, rules);
        let next = members(old.into()).find(|i| world.generations[*i].file.exists());
        let Some(next) = next else {
            return At::Done;
        };
        world.generations[next].file.remove();
        At::RemoveGenerations
    }

    /// The generations whose time is over.
    fn old(&self, world: &World, me: usize, rules: Rules) -> Generations {
        let mut old = self.generations & !(1 << me);
        if !rules.hold(Rule::TheNewestMarkerStays) {
            old |= 1 << me;
        }
        if rules.hold(Rule::GenerationsStayWithTheArchivesTheyName) {
            // What is missing of this one's survivors must be explained, too.
            let kept = self.snapshots | world.generations[me].survivors;
            for i in members(old.into()) {
                if world.generations[i].names & kept != 0 {
                    old &= !(1 << i);
                }
            }
        }
        old
    }
}

/// All at once: nothing depends on them. Also those of packs that an earlier sweep removed before
/// they were indexed.
fn remove_index(world: &mut World, me: usize) -> At {
    let condemned = world.generations[me].condemned;
    for (i, pack) in world.packs.iter_mut().enumerate() {
        if has(condemned, i) || !pack.file.exists() {
            pack.index.remove();
        }
    }
    At::RemovePacks
}
