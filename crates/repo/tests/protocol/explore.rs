//! All states that can be reached, breadth first, so that what is found is found by the shortest way.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

use super::properties::{garbage, robbed, violation};
use super::rules::Rules;
use super::universe::{State, Step, Universe};
use super::world::View;

#[derive(Debug, Default)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) transitions: usize,
    pub(crate) found: Option<Violation>,
}

#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) what: &'static str,
    pub(crate) trace: String,
    pub(crate) steps: usize,
}

/// A state is known by 64 bits of hash: with ten million of them, one is taken for another with a
/// chance of one in a hundred thousand. The usual hash takes most of the time.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    /// Two states never mix to one here unless they did before.
    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u64(u64::try_from(discriminant).unwrap_or(u64::MAX));
    }

    fn write_usize(&mut self, length: usize) {
        self.write_u64(length as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn print(value: &impl Hash) -> u64 {
    let mut hasher = Mixer::default();
    value.hash(&mut hasher);
    hasher.finish()
}

struct Search<'u> {
    universe: &'u Universe,
    rules: Rules,
    known: HashSet<u64>,
    quiet: HashSet<u64>,
    /// By which step each state was first reached from which.
    ways: Vec<(u32, Option<Step>)>,
}

/// Goes through all states, or until a property is violated.
pub(crate) fn explore(universe: &Universe, rules: Rules) -> Explored {
    let mut search = Search {
        universe,
        rules,
        known: HashSet::new(),
        quiet: HashSet::new(),
        ways: vec![(0, None)],
    };
    let start = universe.start();
    search.known.insert(print(&start));
    let mut explored = Explored::default();
    let mut level = vec![(start, 0)];
    while !level.is_empty() {
        let mut next_level = Vec::new();
        for (state, number) in &level {
            let mut wrong = search.check(state).map(|what| (what, None));
            universe.steps(state, rules, &mut |step, next| {
                explored.transitions += 1;
                if wrong.is_some() {
                    return;
                }
                wrong = robbed(state, &next, rules).map(|what| (what, Some(step)));
                if search.known.insert(print(&next)) {
                    let place = u32::try_from(search.ways.len()).expect("fewer states");
                    search.ways.push((*number, Some(step)));
                    next_level.push((next, place));
                }
            });
            if let Some((what, last)) = wrong {
                explored.states = search.ways.len();
                explored.found = Some(search.trace(what, *number, last));
                return explored;
            }
        }
        level = next_level;
    }
    explored.states = search.ways.len();
    explored
}

impl Search<'_> {
    fn check(&mut self, state: &State) -> Option<&'static str> {
        let wrong = violation(self.universe, state, self.rules);
        if wrong.is_none() && self.quiet.insert(print(&state.world)) {
            return garbage(self.universe.quiet(&state.world, self.rules), self.rules);
        }
        wrong
    }

    fn trace(&self, what: &'static str, mut number: u32, last: Option<Step>) -> Violation {
        let mut steps: Vec<Step> = last.into_iter().collect();
        while let (before, Some(step)) = self.ways[number as usize] {
            steps.push(step);
            number = before;
        }
        steps.reverse();
        let mut trace = String::new();
        let mut state = self.universe.start();
        for step in &steps {
            let mut after = None;
            self.universe.steps(&state, self.rules, &mut |other, next| {
                if other.actor == step.actor && other.view == step.view {
                    after = Some(next);
                }
            });
            let deed = state.deed(step.actor);
            state = after.expect("the way was gone before");
            let view = match step.view {
                View::NOW => "",
                View::Ago(_) => " (behind)",
                View::Empty => " (empty by error)",
            };
            let _infallible = writeln!(trace, "  {:?}: {deed}{view}", step.actor);
        }
        let steps = steps.len();
        Violation { what, trace, steps }
    }
}
