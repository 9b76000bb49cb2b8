//! A restore or verification: reads one snapshot's chunks where an index, read earlier, says.

use super::rules::{Rule, Rules};
use super::world::{Chunks, FORGOTTEN, Packs, View, World, members};

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum At {
    #[default]
    ListPacks,
    /// It picks a snapshot that is listed, whatever it needs.
    Open,
    Read,
    ReadIndexAgain,
    LookForSnapshot,
    Damage,
    Done,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Reader {
    pub(crate) at: At,
    packs: Packs,
    pub(crate) snapshot: u8,
    left: Chunks,
}

impl Reader {
    pub(crate) fn opens(self) -> bool {
        self.at == At::Open
    }

    /// One operation of the storage; it opens this snapshot if it opens one. False if it has ended,
    /// or that one is not listed.
    pub(crate) fn step(
        &mut self,
        world: &World,
        view: View,
        snapshot: usize,
        rules: Rules,
    ) -> bool {
        let target = usize::from(self.snapshot);
        self.at = match self.at {
            At::ListPacks => {
                self.packs = world.list_packs(view);
                At::Open
            }
            At::Open => {
                if !listed(world, snapshot, rules) {
                    return false;
                }
                self.snapshot = u8::try_from(snapshot).unwrap_or(0);
                self.left = world.snapshots[snapshot].needs;
                At::Read
            }
            At::Read => {
                let chunk = self.left & self.left.wrapping_neg();
                let copy = members(self.packs).find(|i| world.packs[*i].chunks & chunk != 0);
                match copy {
                    Some(pack) if world.packs[pack].file.exists() => self.left &= !chunk,
                    // Elsewhere, if anywhere.
                    Some(pack) => self.packs &= !(1 << pack),
                    None if !rules.hold(Rule::ReadersReadTheIndexAgain) => {
                        self.at = At::LookForSnapshot;
                        return true;
                    }
                    None => {
                        self.at = At::ReadIndexAgain;
                        return true;
                    }
                }
                if self.left == 0 { At::Done } else { At::Read }
            }
            At::ReadIndexAgain => {
                self.packs = world.list_packs(view);
                let chunk = self.left & self.left.wrapping_neg();
                if world.chunks(self.packs) & chunk != 0 {
                    At::Read
                } else {
                    At::LookForSnapshot
                }
            }
            At::LookForSnapshot => {
                let (_, marks) = world.list_prune(View::NOW);
                let gone = !world.snapshots[target].file.exists()
                    || target == FORGOTTEN && world.list_forgotten(View::NOW)
                    || rules.late(world, target, marks);
                if gone { At::Done } else { At::Damage }
            }
            At::Damage | At::Done => return false,
        };
        if self.at == At::Done {
            *self = Self {
                at: At::Done,
                ..Self::default()
            };
        }
        true
    }
}

/// Whether whoever lists snapshots sees this one.
pub(crate) fn listed(world: &World, snapshot: usize, rules: Rules) -> bool {
    let (_, marks) = world.list_prune(View::NOW);
    let there = world.list_packs(View::NOW);
    let hidden = rules.hold(Rule::LateSnapshotsAreNotListed)
        && rules.late(world, snapshot, marks)
        && !world.whole(snapshot, there);
    let forgotten = snapshot == FORGOTTEN && world.list_forgotten(View::NOW);
    world.snapshots[snapshot].file.exists() && !forgotten && !hidden
}
