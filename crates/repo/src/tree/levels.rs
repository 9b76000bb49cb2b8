//! Makes nodes from items that come in order: level 0 holds them, each level above names the
//! nodes below. What is held is one node for each level.

use super::queue::Sink;
use super::{Place, cut};
use crate::format::id::ChunkId;
use crate::format::pack::Class;
use crate::format::tree::entry::put_place;
use crate::format::tree::{HEADER, Role, header};
use crate::{Error, ErrorKind, Result, limits};

/// An item: its bytes begin with its key.
pub(crate) struct Item<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) key: usize,
    /// What decides whether a node ends here.
    pub(crate) number: u64,
    /// The item of the witness node, and whether it says anything.
    pub(crate) witness: (&'a [u8], bool),
}

#[derive(Default)]
struct Level {
    items: Vec<u8>,
    count: usize,
    /// The first item's key.
    first: Vec<u8>,
    witnesses: Vec<u8>,
    /// Whether any of the witnesses says anything.
    believed: bool,
    /// The node that the last item names, above level 0.
    last: Option<(ChunkId, Place)>,
}

/// What became of the items.
pub(crate) enum Finished {
    /// There were none.
    Nothing,
    /// One node that was not stored, and its witness node.
    Small(Vec<u8>, Option<Vec<u8>>),
    /// A node that was stored, and its witness node.
    Stored(ChunkId, Place),
}

/// The nodes that are being made.
pub(crate) struct Levels {
    role: Role,
    levels: Vec<Level>,
}

impl Levels {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            levels: Vec::new(),
        }
    }

    /// Adds an item behind the last.
    pub(crate) fn push(&mut self, sink: &mut Sink<'_>, item: &Item<'_>) -> Result<()> {
        self.push_at(sink, 0, item, None)
    }

    fn push_at(
        &mut self,
        sink: &mut Sink<'_>,
        number: usize,
        item: &Item<'_>,
        node: Option<(ChunkId, Place)>,
    ) -> Result<()> {
        if self.levels.len() == number {
            if number >= usize::from(limits::TREE_LEVELS_MAX) {
                let what = "a directory or file is too large: its nodes have too many levels";
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            self.levels.push(Level::default());
        }
        let length = HEADER + self.levels[number].items.len() + item.bytes.len();
        if self.levels[number].count > 0 && length > limits::TREE_NODE_TARGET {
            self.flush(sink, number)?;
        }
        sink.held -= self.cuttable(number);
        let level = &mut self.levels[number];
        if level.count == 0 {
            level.first.clear();
            level.first.extend_from_slice(&item.bytes[..item.key]);
        }
        level.items.extend_from_slice(item.bytes);
        level.count += 1;
        level.witnesses.extend_from_slice(item.witness.0);
        level.believed |= item.witness.1;
        level.last = node;
        let length = HEADER + level.items.len();
        sink.held += self.cuttable(number);
        if cut::ends_node(length, item.number, item.bytes.len()) {
            self.flush(sink, number)?;
        }
        Ok(())
    }

    /// The bodies of a level's node and witness node, which is empty then.
    fn take(&mut self, sink: &mut Sink<'_>, number: usize) -> (Vec<u8>, Option<Vec<u8>>) {
        sink.held -= self.cuttable(number);
        let level = &mut self.levels[number];
        let height = u8::try_from(number).expect("levels are few");
        // Its room is not kept: there may be thousands of directories that are not finished.
        let items = std::mem::take(&mut level.items);
        let node = [&header(self.role, height, level.count)[..], &items].concat();
        let witness = level.believed.then(|| {
            let head = header(Role::Witness, height, level.count);
            [&head[..], &level.witnesses].concat()
        });
        level.witnesses = Vec::new();
        level.believed = false;
        level.count = 0;
        (node, witness)
    }

    /// Stores a level's node and witness node.
    fn store(&mut self, sink: &mut Sink<'_>, number: usize) -> Result<(ChunkId, Place)> {
        let (node, witness) = self.take(sink, number);
        let id = sink.put(Class::Metadata, node)?;
        let witness = match witness {
            None => Place::Nowhere,
            Some(body) => Place::Node(sink.put(Class::Metadata, body)?),
        };
        Ok((id, witness))
    }

    fn flush(&mut self, sink: &mut Sink<'_>, number: usize) -> Result<()> {
        let mut bytes = self.levels[number].first.clone();
        let key = bytes.len();
        let (id, witness) = self.store(sink, number)?;
        bytes.extend_from_slice(&id.0);
        let mut witness_item = Vec::new();
        put_place(&witness, &mut witness_item);
        let item = Item {
            bytes: &bytes,
            key,
            number: number_of(&id),
            witness: (&witness_item, witness != Place::Nowhere),
        };
        self.push_at(sink, number + 1, &item, Some((id, witness)))
    }

    /// The bytes of a level that [`cut`](Self::cut) would store. A file is finished before a
    /// directory is cut, so what it holds never counts.
    fn cuttable(&self, number: usize) -> usize {
        let level = &self.levels[number];
        let bytes = level.items.len() + level.witnesses.len();
        let counts = self.role == Role::Directory && bytes > limits::HELD_EACH;
        if counts { bytes } else { 0 }
    }

    /// Stores what each level holds, although its node might have become longer. What is small
    /// stays: nodes of few items, made again and again, would need too many levels.
    pub(crate) fn cut(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        // What is stored of one level may make the one above large enough.
        let mut number = 0;
        while number < self.levels.len() {
            if self.cuttable(number) > 0 {
                self.flush(sink, number)?;
            }
            number += 1;
        }
        Ok(())
    }

    /// Stores what is left. A single node is not stored if it has at most so many bytes.
    pub(crate) fn finish(mut self, sink: &mut Sink<'_>, small: usize) -> Result<Finished> {
        let Some(lowest) = self.levels.first() else {
            return Ok(Finished::Nothing);
        };
        if self.levels.len() == 1 && HEADER + lowest.items.len() <= small {
            let (node, witness) = self.take(sink, 0);
            return Ok(Finished::Small(node, witness));
        }
        let mut number = 0;
        loop {
            let is_top = number + 1 == self.levels.len();
            let level = &mut self.levels[number];
            if is_top {
                // A node that would only name another is left out; it is too small to count.
                let only = level.last.take().filter(|_| level.count == 1);
                let (id, witness) = only.map_or_else(|| self.store(sink, number), Ok)?;
                return Ok(Finished::Stored(id, witness));
            }
            if level.count > 0 {
                self.flush(sink, number)?;
            }
            number += 1;
        }
    }
}

/// The number that an identity has where it decides about a cut.
pub(crate) fn number_of(id: &ChunkId) -> u64 {
    let (first, _) = id.0.split_first_chunk().expect("an identity has 32 bytes");
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tree::queue::Queue;
    use crate::tree::writer::TreeCounts;
    use crate::{MemoryStorage, Protect, Repository, SystemRandom, Writer};

    /// Runs this with a place for chunks.
    fn with_sink(work: impl FnOnce(&mut Sink<'_>)) {
        let (storage, random) = (Arc::new(MemoryStorage::new()), Arc::new(SystemRandom));
        let size = limits::CHUNK_DEFAULT;
        let repository = Repository::init(storage, random, &Protect::Open, size);
        let writer = Writer::new(Arc::new(repository.expect("a repository"))).expect("a writer");
        let queue = Queue::default();
        std::thread::scope(|scope| {
            let closer = queue.closer();
            scope.spawn(|| queue.work(&mut writer.worker(), &|_| {}));
            work(&mut Sink {
                writer: &writer,
                queue: &queue,
                counts: TreeCounts::default(),
                held: 0,
            });
            drop(closer);
        });
    }

    /// Adds an item of so many bytes, behind which no node ends by itself.
    fn push(levels: &mut Levels, sink: &mut Sink<'_>, length: usize) {
        let item = Item {
            bytes: &vec![7; length],
            key: 256.min(length),
            number: u64::MAX,
            witness: (&[0, 0], false),
        };
        levels.push(sink, &item).expect("it is added");
    }

    fn bytes(level: &Level) -> usize {
        level.items.len() + level.witnesses.len()
    }

    #[test]
    fn after_a_cut_no_level_holds_much_and_nothing_counts() {
        with_sink(|sink| {
            let mut levels = Levels::new(Role::Directory);
            for _ in 0..50 {
                // Two items are too much for one node.
                push(&mut levels, sink, 100 << 10);
            }
            assert!(bytes(&levels.levels[1]) > 10_000);
            assert!(sink.held > 110_000);
            levels.cut(sink).expect("a cut");
            let most = levels.levels.iter().map(bytes).max();
            assert!(most <= Some(limits::HELD_EACH), "{most:?}");
            assert_eq!(sink.held, 0);
            levels.finish(sink, 0).expect("the end");
            assert_eq!(sink.held, 0);
        });
    }

    #[test]
    fn cuts_again_and_again_do_not_make_levels_of_few_items() {
        with_sink(|sink| {
            let mut levels = Levels::new(Role::Directory);
            for _ in 0..1000 {
                push(&mut levels, sink, 300);
                levels.cut(sink).expect("a cut");
            }
            assert!(levels.levels.len() <= 5, "{}", levels.levels.len());
        });
    }

    #[test]
    fn a_node_that_is_stored_leaves_no_room_behind() {
        with_sink(|sink| {
            let mut levels = Levels::new(Role::Directory);
            push(&mut levels, sink, 1 << 20);
            levels.cut(sink).expect("a cut");
            let room = |level: &Level| level.items.capacity() + level.witnesses.capacity();
            assert_eq!(room(&levels.levels[0]), 0);
        });
    }

    #[test]
    fn extents_do_not_count_so_that_a_file_may_be_forgotten() {
        with_sink(|sink| {
            let mut levels = Levels::new(Role::Extents);
            for _ in 0..1000 {
                push(&mut levels, sink, 48);
            }
            assert_eq!(sink.held, 0);
        });
    }
}
