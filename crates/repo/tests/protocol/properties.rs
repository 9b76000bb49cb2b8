//! What must hold in every state.

use super::forgetter;
use super::pruner;
use super::reader::{self, listed};
use super::rules::Rules;
use super::universe::{LAST_GENERATION, State, Universe};
use super::world::{FORGOTTEN, GENERATIONS, SNAPSHOTS, Snapshots, View, World};
use super::writer;

pub(crate) const PROPERTIES: usize = 8;

/// The first property that does not hold in a state.
pub(crate) fn violation(universe: &Universe, state: &State, rules: Rules) -> Option<&'static str> {
    let world = &state.world;
    let there = world.list_packs(View::NOW);
    for snapshot in 0..SNAPSHOTS {
        let whole = world.snapshots[snapshot].file.exists() && world.whole(snapshot, there);
        if state.wanted(snapshot) && !whole {
            return Some(if snapshot == FORGOTTEN && state.forgetter.taken_back() {
                "P3 an archive that was taken back is not there"
            } else {
                "P1 an acknowledged archive lacks a chunk"
            });
        }
        if state.wanted(snapshot) && !listed(world, snapshot, rules) {
            return Some("P3 an archive that somebody relies on is not listed");
        }
        if listed(world, snapshot, rules) && !whole {
            return Some("P2 a snapshot is listed and not whole");
        }
    }
    if state.reader.at == reader::At::Damage {
        return Some("P6 a reader takes what was moved for damage");
    }
    let told = state.forgetter.at == forgetter::At::TakeBack && !state.forgetter.tried();
    if told && listed(world, FORGOTTEN, rules) {
        return Some("P7 a forgotten archive comes back by itself");
    }
    let quick = |w: &writer::Writer| w.at == writer::At::Failed && w.age < 2;
    if universe.timed && universe.behind == 0 && state.writers.iter().any(quick) {
        return Some("P8 a backup within the grace period failed");
    }
    None
}

/// The property of a step: prune removes no chunk's last home that a listed snapshot needs. Only
/// late ones, of which nobody was told, lose theirs.
pub(crate) fn robbed(before: &State, after: &State, rules: Rules) -> Option<&'static str> {
    let removes = |i: usize| before.pruners[i].at == pruner::At::RemovePacks;
    if !(0..before.pruners.len()).any(removes) {
        return None;
    }
    let (_, marks) = before.world.list_prune(View::NOW);
    let there = |state: &State| state.world.list_packs(View::NOW);
    let loses = |snapshot: usize| {
        listed(&before.world, snapshot, rules)
            && (before.wanted(snapshot) || !rules.late(&before.world, snapshot, marks))
            && before.world.whole(snapshot, there(before))
            && !after.world.whole(snapshot, there(after))
    };
    (0..SNAPSHOTS)
        .any(loses)
        .then_some("P4 prune removed the last home of a chunk that is needed")
}

/// What is wrong with what a quiet pruning left.
pub(crate) fn garbage(left: Option<World>, rules: Rules) -> Option<&'static str> {
    let Some(world) = left else {
        return Some("P5 a quiet prune stops");
    };
    let mut counting: Snapshots = 0;
    for snapshot in 0..SNAPSHOTS {
        if listed(&world, snapshot, rules) {
            counting |= 1 << snapshot;
        } else if world.snapshots[snapshot].file.exists() {
            return Some("P5 a quiet prune leaves a snapshot that nobody sees");
        }
    }
    let mut covered = 0;
    for pack in &world.packs {
        // A pack without an index object is fine: the next backup names it in one of its own.
        if pack.index.exists() && !pack.file.exists() {
            return Some("P5 a quiet prune leaves index objects of nothing");
        }
        if pack.file.exists() {
            if pack.chunks & (covered | !world.needs(counting)) != 0 {
                return Some("P5 a quiet prune leaves chunks that nobody needs");
            }
            covered |= pack.chunks;
        }
    }
    if covered != world.needs(counting) {
        return Some("P5 a quiet prune leaves less than is needed");
    }
    let attributes = world.forgotten.exists() || world.taken_back.exists();
    if attributes && !world.snapshots[FORGOTTEN].file.exists() {
        return Some("P5 a quiet prune leaves attributes of nothing");
    }
    for (i, generation) in world.generations[..GENERATIONS].iter().enumerate() {
        let there = generation.file.exists() || generation.marker.exists();
        let explains = generation.names & world.generations[LAST_GENERATION].survivors;
        if i != LAST_GENERATION && there && generation.names & counting | explains == 0 {
            return Some("P5 a quiet prune leaves old generations");
        }
    }
    None
}
