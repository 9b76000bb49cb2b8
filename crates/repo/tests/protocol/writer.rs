//! A backup: opens, stores what it does not find, commits, looks again.

use super::rules::{Rule, Rules};
use super::world::{Chunks, FIRST_PACKS, FIRST_WRITTEN, Generations, View, World};

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum At {
    #[default]
    ListPrune,
    ListPacks,
    PutPack,
    PutIndex,
    PutSnapshot,
    LookAgain,
    Prove,
    Failed,
    Acknowledged,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Writer {
    pub(crate) at: At,
    /// Epochs since it began, two at most.
    pub(crate) age: u8,
    /// Generations that it had read when it opened; later those that its second look showed.
    seen: Generations,
    store: Chunks,
}

impl Writer {
    pub(crate) fn lists(self) -> bool {
        matches!(
            self.at,
            At::ListPrune | At::ListPacks | At::LookAgain | At::Prove
        )
    }

    pub(crate) fn ended(self) -> bool {
        matches!(self.at, At::Failed | At::Acknowledged)
    }

    /// One operation of the storage. False if it has ended.
    pub(crate) fn step(
        &mut self,
        world: &mut World,
        number: usize,
        view: View,
        rules: Rules,
    ) -> bool {
        let (pack, snapshot) = (FIRST_PACKS + number, FIRST_WRITTEN + number);
        self.at = match self.at {
            At::ListPrune => {
                let (generations, marks) = world.list_prune(view);
                self.seen = generations | marks;
                At::ListPacks
            }
            At::ListPacks => {
                let mut packs = world.list_packs(view);
                if rules.hold(Rule::WritersTreatCondemnedPacksAsAbsent) {
                    packs &= !world.condemned(self.seen);
                }
                self.store = world.snapshots[snapshot].needs & !world.chunks(packs);
                if self.store == 0 {
                    At::PutSnapshot
                } else {
                    At::PutPack
                }
            }
            At::PutPack => {
                world.put_pack(pack, self.store);
                self.store = 0;
                At::PutIndex
            }
            At::PutIndex => {
                world.put_index(pack);
                At::PutSnapshot
            }
            At::PutSnapshot => {
                world.snapshots[snapshot].seen = self.seen;
                world.snapshots[snapshot].file.put();
                At::LookAgain
            }
            At::LookAgain => {
                let (generations, marks) = world.list_prune(view);
                self.seen = 0;
                if !rules.hold(Rule::WriterLooksAgain) || !rules.late(world, snapshot, marks) {
                    At::Acknowledged
                } else if marks & !generations != 0 {
                    // What that one condemned is not known any more.
                    At::Failed
                } else {
                    self.seen = generations;
                    At::Prove
                }
            }
            At::Prove => {
                let homes = world.list_packs(view) & !world.condemned(self.seen);
                self.seen = 0;
                if world.whole(snapshot, homes) {
                    At::Acknowledged
                } else {
                    At::Failed
                }
            }
            At::Failed | At::Acknowledged => return false,
        };
        true
    }

    pub(crate) fn tick(&mut self) {
        if self.at != At::ListPrune && !self.ended() {
            self.age = (self.age + 1).min(2);
        }
    }
}
