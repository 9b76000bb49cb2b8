//! Random trees that change in random ways: each archive of a chain of backups is the tree as it
//! was, whatever was taken from the archives before it.

use snapkeep_api::UnixTime;
use snapkeep_api::memory::tree::{MemoryTree, Mishap};
use snapkeep_api::tree::EntryKind;

use super::{Host, METADATA, noise};
use crate::ChangeDetection;

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    /// Few names, so that they meet, of which many are neighbours.
    fn name(&mut self) -> String {
        let names = ["a", "a-", "a.b", "b", "ab", "z", "etc", "e", "\u{e4}", "0"];
        let name = names[self.below(names.len())];
        format!("{name}{}", self.below(3))
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(4);
        let names: Vec<_> = (0..depth).map(|_| self.name()).collect();
        names.join("/")
    }

    fn content(&mut self) -> Vec<u8> {
        let length = [0, 1, 100, 5000, 140_000, 900_000][self.below(6)];
        let length = length + self.below(50);
        match self.below(4) {
            0 => vec![0; length],
            _ => noise(length, self.below(1000) as u64),
        }
    }
}

/// Whether a new entry can be there: all above it are folders or absent.
fn has_room(tree: &MemoryTree, path: &str) -> bool {
    let above = path.char_indices().filter(|(_, c)| *c == '/');
    let mut above = above.map(|(at, _)| &path[..at]);
    above.all(|folder| {
        tree.get(folder)
            .is_none_or(|node| node.entry.kind.is_directory())
    })
}

/// Does something to the tree.
fn change(tree: &mut MemoryTree, dice: &mut Dice) {
    let path = dice.path();
    let there = tree.get(&path).map(|node| node.entry.kind.clone());
    match (there, dice.below(10)) {
        (Some(_), 0) => tree.remove(&path),
        (Some(EntryKind::File { .. }), 1..5) => {
            let content = dice.content();
            tree.write(&path, &content);
        }
        (Some(EntryKind::File { .. }), 5) => {
            tree.node(&path).witness = None;
        }
        (Some(_), 6) => {
            let node = tree.node(&path);
            node.entry.attributes.permissions ^= 0o111;
            if let Some(witness) = &mut node.witness {
                witness.ctime.nanos += 1;
            }
        }
        _ if !has_room(tree, &path) => {}
        (_, 7) => {
            tree.directory(&path);
        }
        (_, 8) => {
            tree.symlink(&path, path.as_bytes());
        }
        (_, 9) => {
            let (offset, data) = (dice.below(1 << 20) as u64, dice.content());
            let size = offset + data.len() as u64 + dice.below(1 << 20) as u64;
            tree.sparse(&path, size, &[(offset, &data)]);
        }
        _ => {
            let content = dice.content();
            tree.file(&path, &content);
        }
    }
}

/// Takes away what befell the last walk, and has something befall the next.
fn mishaps(tree: &mut MemoryTree, dice: &mut Dice) -> Vec<String> {
    let mut paths = Vec::new();
    for _ in 0..dice.below(6) {
        let path = dice.path();
        let Some(node) = tree.get(&path) else {
            continue;
        };
        let file = matches!(node.entry.kind, EntryKind::File { .. });
        let half = node.size() / 2;
        let mishap = match dice.below(5) {
            0 => Mishap::Vanishes,
            1 => Mishap::LeftOut,
            2 if file => Mishap::Lost(half),
            3 if file && half > 0 => Mishap::Shrinks(half),
            4 if file => Mishap::Changes,
            _ => Mishap::VanishesUnseen,
        };
        let node = tree.node(&path);
        node.mishap = Some(mishap);
        if file {
            // It is read, so that it befalls it.
            node.witness = None;
        }
        paths.push(path);
    }
    paths
}

#[test]
fn every_archive_of_a_chain_is_the_tree_as_it_was() {
    for seed in 1..=8u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut host = Host::new(METADATA);
        let mut tree = MemoryTree::new();
        let mut archives = Vec::new();
        for round in 0..6 {
            // The times of what changes are before the backup, but after the last changes.
            tree.set_time(UnixTime(1_600_000_000 + round * 1000));
            for _ in 0..100 {
                change(&mut tree, &mut dice);
            }
            let audit = [0, 0, 500, 1000][dice.below(4)];
            host.detection = match dice.below(8) {
                0 => ChangeDetection::Data,
                _ => ChangeDetection::Metadata { audit },
            };
            let befallen = mishaps(&mut tree, &mut dice);
            let ahead = [0, 1, 5, 100_000][dice.below(4)];
            let mut source = tree.source().ahead(ahead);
            let (archive, stats) = host.back_up(&mut source).unwrap();
            assert_eq!(
                stats.read,
                source.bytes_read(),
                "seed {seed}, round {round}"
            );
            archives.push((archive, tree.archived()));
            for path in befallen {
                // What was in one that vanished is there as it was.
                if tree.get(&path).is_some() {
                    tree.node(&path).mishap = None;
                }
            }
        }
        for (archive, tree) in &archives {
            host.expect(archive, tree);
        }
    }
}
