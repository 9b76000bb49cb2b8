//! Somebody who forgets an archive and wants it back.

use super::rules::{Rule, Rules};
use super::world::{FORGOTTEN, View, World, has, members};

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum At {
    #[default]
    Forget,
    TakeBack,
    Look,
    LookForSnapshot,
    Failed,
    Acknowledged,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Forgetter {
    pub(crate) at: At,
    tries: u8,
}

impl Forgetter {
    pub(crate) fn lists(self) -> bool {
        self.at == At::Look
    }

    /// Whether somebody was told that the archive is back.
    pub(crate) fn taken_back(self) -> bool {
        self.at == At::Acknowledged
    }

    pub(crate) fn tried(self) -> bool {
        self.tries > 0
    }

    /// One operation of the storage. False if it has ended.
    pub(crate) fn step(&mut self, world: &mut World, view: View, rules: Rules, tries: u8) -> bool {
        self.at = match self.at {
            At::Forget => {
                world.forgotten.put();
                if tries == 0 { At::Failed } else { At::TakeBack }
            }
            At::TakeBack if !world.snapshots[FORGOTTEN].file.exists() => At::Failed,
            At::TakeBack => {
                let already = world.taken_back.exists() || !world.forgotten.exists();
                if already && !rules.hold(Rule::TakingBackTwiceLooksAgain) {
                    At::Acknowledged
                } else {
                    world.taken_back.put();
                    At::Look
                }
            }
            At::Look => {
                let (generations, marks) = world.list_prune(view);
                let doomed = members(marks.into())
                    .any(|i| !has(generations, i) || has(world.generations[i].names, FORGOTTEN));
                if !doomed || !rules.hold(Rule::TakingBackLooksAgain) {
                    At::LookForSnapshot
                } else if self.tries + 1 < tries {
                    self.tries += 1;
                    At::TakeBack
                } else {
                    At::Failed
                }
            }
            // Markers may have come and gone.
            At::LookForSnapshot if world.snapshots[FORGOTTEN].file.exists() => At::Acknowledged,
            At::LookForSnapshot => At::Failed,
            At::Failed | At::Acknowledged => return false,
        };
        true
    }
}
