//! Small universes: who takes part, what lies there at the beginning, and what may go wrong.

use super::forgetter::{self, Forgetter};
use super::pruner::Pruner;
use super::reader::Reader;
use super::rules::Rules;
use super::world::{
    Chunks, FIRST_PACKS, FIRST_WRITTEN, FORGOTTEN, File, GENERATIONS, SNAPSHOTS, View, World,
};
use super::writer::Writer;

pub(crate) const WRITERS: usize = 2;
pub(crate) const PRUNERS: usize = 3;
/// The number of a pruner that runs alone, from a state to its end.
const QUIET: usize = GENERATIONS - 1;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Universe {
    pub(crate) name: &'static str,
    pub(crate) writers: usize,
    pub(crate) pruners: usize,
    /// Whether somebody forgets an archive, and how often it tries to take it back.
    pub(crate) forgetter: Option<u8>,
    pub(crate) reader: bool,
    /// The packs that are there, and what the four snapshots need: one that is or gets forgotten, one
    /// that stays, those of the writers.
    pub(crate) packs: [Chunks; FIRST_PACKS],
    pub(crate) needs: [Chunks; SNAPSHOTS],
    /// Whether the first is forgotten already.
    pub(crate) forgotten: bool,
    /// Whether time passes, prunings wait, and how many listings may be behind.
    pub(crate) timed: bool,
    pub(crate) behind: u8,
    /// How many listings of a pruner may be empty by an error that nobody tells.
    pub(crate) empty: u8,
}

/// Everything there is.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) writers: [Writer; WRITERS],
    pub(crate) pruners: [Pruner; PRUNERS],
    pub(crate) forgetter: Forgetter,
    pub(crate) reader: Reader,
    behind: u8,
    empty: u8,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Actor {
    Writer(usize),
    Pruner(usize),
    Forgetter,
    /// It opens this snapshot if it opens one.
    Reader(usize),
    Time,
}

/// What happens between two states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) actor: Actor,
    pub(crate) view: View,
}

impl Universe {
    pub(crate) fn start(&self) -> State {
        let mut state = State {
            behind: self.behind,
            empty: self.empty,
            ..State::default()
        };
        let world = &mut state.world;
        for (pack, chunks) in world.packs.iter_mut().zip(self.packs) {
            if chunks != 0 {
                pack.chunks = chunks;
                (pack.file, pack.index) = (File::OLD, File::OLD);
            }
        }
        for (snapshot, needs) in world.snapshots.iter_mut().zip(self.needs) {
            snapshot.needs = needs;
        }
        for snapshot in &mut world.snapshots[..FIRST_WRITTEN] {
            snapshot.file = File::OLD;
        }
        if self.forgotten {
            world.forgotten = File::OLD;
            state.forgetter.at = forgetter::At::TakeBack;
        }
        state
    }

    /// All that may happen next.
    pub(crate) fn steps(&self, state: &State, rules: Rules, each: &mut dyn FnMut(Step, State)) {
        for i in 0..self.writers {
            Self::views(
                state,
                state.writers[i].lists(),
                false,
                &mut |view, mut next| {
                    if next.writers[i].step(&mut next.world, i, view, rules) {
                        self.give(Actor::Writer(i), view, next, each);
                    }
                },
            );
        }
        for i in 0..self.pruners {
            Self::views(
                state,
                state.pruners[i].lists(),
                true,
                &mut |view, mut next| {
                    if next.pruners[i].step(&mut next.world, i, view, rules, self.timed) {
                        self.give(Actor::Pruner(i), view, next, each);
                    }
                },
            );
        }
        if let Some(tries) = self.forgetter {
            Self::views(
                state,
                state.forgetter.lists(),
                false,
                &mut |view, mut next| {
                    if next.forgetter.step(&mut next.world, view, rules, tries) {
                        self.give(Actor::Forgetter, view, next, each);
                    }
                },
            );
        }
        if self.reader {
            for snapshot in 0..if state.reader.opens() { SNAPSHOTS } else { 1 } {
                let mut next = *state;
                if next.reader.step(&next.world, View::NOW, snapshot, rules) {
                    self.give(Actor::Reader(snapshot), View::NOW, next, each);
                }
            }
        }
        if self.timed {
            let mut next = *state;
            next.world.tick();
            next.writers.iter_mut().for_each(Writer::tick);
            self.give(Actor::Time, View::NOW, next, each);
        }
    }

    /// The same with each state that a listing may show.
    fn views(state: &State, lists: bool, pruner: bool, each: &mut dyn FnMut(View, State)) {
        each(View::NOW, *state);
        if lists && state.behind > 0 {
            for ago in 1..=super::world::STALEST {
                let behind = state.behind - 1;
                each(View::Ago(ago), State { behind, ..*state });
            }
        }
        if lists && pruner && state.empty > 0 {
            let empty = state.empty - 1;
            each(View::Empty, State { empty, ..*state });
        }
    }

    fn give(&self, actor: Actor, view: View, mut next: State, each: &mut dyn FnMut(Step, State)) {
        next.world.settle(self.timed);
        each(Step { actor, view }, next);
    }

    /// What a pruning leaves that runs alone, with no fault, after everybody else died.
    pub(crate) fn quiet(&self, world: &World, rules: Rules) -> Option<World> {
        let mut world = *world;
        let mut pruner = Pruner::default();
        while pruner.step(&mut world, QUIET, View::NOW, rules, false) {
            world.settle(self.timed);
        }
        pruner.done().then_some(world)
    }
}

/// What one pruning keeps of those before it: nothing but its own.
pub(crate) const LAST_GENERATION: usize = QUIET;

impl State {
    /// What an actor is about to do.
    pub(crate) fn deed(&self, actor: Actor) -> String {
        match actor {
            Actor::Writer(i) => format!("{:?}", self.writers[i].at),
            Actor::Pruner(i) => format!("{:?}", self.pruners[i].at),
            Actor::Forgetter => format!("{:?}", self.forgetter.at),
            Actor::Reader(_) => format!("{:?}", self.reader.at),
            Actor::Time => "passes".to_owned(),
        }
    }

    /// Whether somebody was told that this archive is there.
    pub(crate) fn acknowledged(&self, snapshot: usize) -> bool {
        let Some(writer) = snapshot.checked_sub(FIRST_WRITTEN) else {
            return true;
        };
        self.writers[writer].at == super::writer::At::Acknowledged
    }

    /// Whether it is to be there: nobody began to forget it, or somebody was told that it is taken back.
    pub(crate) fn wanted(&self, snapshot: usize) -> bool {
        let at = self.forgetter.at;
        self.acknowledged(snapshot)
            && (snapshot != FORGOTTEN
                || matches!(at, forgetter::At::Forget | forgetter::At::Acknowledged))
    }
}
