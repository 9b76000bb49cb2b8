//! All orders of the operations of some actors in which one is interrupted a bounded number of
//! times, and the same with one of them killed, or without a reply, at each operation.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use snapkeep_repo::{FileName, MemoryStorage, Result, Storage};

use super::scene::{Deed, Said, Scene};
use super::turns::{End, Fault, Gate, Rests, Turns};

/// A choice: who was given the turn, among whom, and how often somebody was interrupted before.
struct Choice {
    given: usize,
    among: Vec<usize>,
    interruptions: usize,
}

/// An order that was gone through, and what came of it.
struct Played {
    choices: Vec<Choice>,
    storage: Arc<MemoryStorage>,
    said: Vec<Result<Said>>,
    /// How many operations each actor had.
    operations: Vec<u64>,
}

impl Played {
    /// What is stored, and what the actors were told.
    fn came_to(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let hash = &mut |name: &FileName, length| {
            let bytes = self.storage.read(name, 0..length)?;
            hasher
                .update(name.as_str().as_bytes())
                .update(&length.to_le_bytes());
            hasher.update(&bytes);
            Ok(())
        };
        for folder in [
            "attributes",
            "heads",
            "index",
            "packs",
            "prune",
            "snapshots",
            "tables",
        ] {
            let folder = folder.parse().expect("a folder's name");
            (self.storage.list(&folder, hash)).expect("memory does not fail");
        }
        hasher.update(format!("{:?}", self.said).as_bytes());
        hasher.finalize()
    }
}

/// Plays the actors: as this order says as far as it goes, then without interruption.
fn play(scene: &Scene, order: &[usize], fault: Option<(usize, Fault)>) -> Played {
    let storage = Arc::new(scene.start.fork());
    let turns = Turns::new(scene.deeds.len());
    let mut choices: Vec<Choice> = Vec::new();
    let gate = |actor: usize| {
        Arc::new(Gate {
            inner: Arc::clone(&storage),
            turns: Arc::clone(&turns),
            actor,
            fault: fault.and_then(|(who, fault)| (who == actor).then_some(fault)),
            count: Mutex::new(0),
            far: scene.far,
        })
    };
    let gates: Vec<_> = (0..scene.deeds.len()).map(gate).collect();
    let said = std::thread::scope(|scope| {
        let start = |(actor, deed): (usize, &Deed)| {
            let (storage, deed, turns) = (Arc::clone(&gates[actor]), *deed, &turns);
            scope.spawn(move || {
                let _end = End(turns, actor);
                let clock = Arc::new(Rests(Arc::clone(turns), actor));
                scene.act(
                    &(storage as Arc<dyn Storage>),
                    actor as u64,
                    deed,
                    Some(clock),
                )
            })
        };
        let threads: Vec<_> = scene.deeds.iter().enumerate().map(start).collect();
        loop {
            let among = turns.waiting();
            let last = choices.last();
            let before = last.map_or(0, |choice: &Choice| choice.interruptions);
            let runs = last
                .map(|choice| choice.given)
                .filter(|i| among.contains(i));
            // Of two threads of an actor either may be the first, each time.
            let wanted = order.get(choices.len()).copied();
            let wanted = wanted.filter(|i| !scene.far || among.contains(i));
            let Some(given) = wanted.or(runs).or(among.first().copied()) else {
                break;
            };
            let interruptions = before + usize::from(runs.is_some_and(|runs| runs != given));
            turns.give(given);
            choices.push(Choice {
                given,
                among,
                interruptions,
            });
        }
        let said = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        said.map(|said| said.expect("no actor panics")).collect()
    });
    let operations = gates
        .iter()
        .map(|gate| *gate.count.lock().expect("not poisoned"));
    Played {
        choices,
        storage: Arc::clone(&storage),
        said,
        operations: operations.collect(),
    }
}

/// Goes through all orders with at most so many interruptions; how many there were.
pub(crate) fn orders(scene: &Scene, most: usize, fault: Option<(usize, Fault)>) -> usize {
    let mut tried = 0;
    // Most orders come to the same.
    let mut judged = HashSet::new();
    let mut left = vec![Vec::new()];
    while let Some(order) = left.pop() {
        let played = play(scene, &order, fault);
        tried += 1;
        if judged.insert(played.came_to())
            && let Err(loss) = scene.judge(&played.storage, &played.said)
        {
            let order: Vec<_> = played.choices.iter().map(|choice| choice.given).collect();
            let said = &played.said;
            panic!(
                "{}: {loss}\norder {order:?}, fault {fault:?}, said {said:?}",
                scene.name
            );
        }
        for at in order.len()..played.choices.len() {
            let (before, last) = match at.checked_sub(1) {
                None => (0, None),
                Some(i) => (
                    played.choices[i].interruptions,
                    Some(played.choices[i].given),
                ),
            };
            let choice = &played.choices[at];
            for other in choice.among.iter().filter(|other| **other != choice.given) {
                let interrupts = last.is_some_and(|last| choice.among.contains(&last));
                if before + usize::from(interrupts) <= most {
                    let given = played.choices[..at].iter().map(|choice| choice.given);
                    left.push(given.chain([*other]).collect());
                }
            }
        }
    }
    tried
}

/// The same with each actor killed, and left without a reply, at each of its operations.
pub(crate) fn faults(scene: &Scene, most: usize) -> usize {
    let operations = play(scene, &[], None).operations;
    let mut tried = 0;
    for (actor, count) in operations.into_iter().enumerate() {
        for number in 0..count {
            for fault in [Fault::Killed(number), Fault::Lost(number)] {
                tried += orders(scene, most, Some((actor, fault)));
            }
        }
    }
    tried
}
