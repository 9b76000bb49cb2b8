//! Goes through a tree beside a new walk, to tell what has not changed since.

use std::sync::Arc;

use super::reader::{TreeReader, entries, handed_out, inline_node};
use super::{NodeKind, Place, TreeNode, Witness};
use crate::format::id::ChunkId;
use crate::format::tree::entry::{DirectoryNode, Items};
use crate::format::tree::witness::{self, WitnessNode};
use crate::{Error, ErrorKind, Result};

/// An entry with what tells that it has not changed.
#[derive(Clone, Debug)]
pub struct Witnessed {
    /// The entry.
    pub node: TreeNode,
    /// What was seen of it; `None` if that is not known or could not be read.
    pub witness: Option<Witness>,
    below: Place,
}

/// A directory of a tree, whose entries are asked for in ascending order of their names. It holds
/// one node of each level, and none while one of its directories is gone through. Witnesses that
/// cannot be read are none: nothing is believed then.
#[derive(Debug)]
pub struct WitnessedDirectory {
    reader: Arc<TreeReader>,
    /// From the highest level to the lowest that was reached.
    frames: Vec<Frame>,
    depth: usize,
    origin: ChunkId,
}

#[derive(Debug)]
struct Frame {
    place: Held<DirectoryNode>,
    witness: Held<WitnessNode>,
    /// The first item that was not passed.
    at: usize,
    /// The first name behind this node.
    next: Option<Vec<u8>>,
}

/// A node that is at hand, or can be read again from where it lies. One in an entry is decoded
/// again: as it is stored it takes a small part of the room.
#[derive(Debug)]
struct Held<N> {
    place: Place,
    node: Option<Arc<N>>,
}

impl<N> Held<N> {
    fn let_go(&mut self) {
        if self.place != Place::Nowhere {
            self.node = None;
        }
    }
}

impl WitnessedDirectory {
    /// What holds the root alone: [`seek`](Self::seek) the empty name and [`enter`](Self::enter).
    pub fn root(reader: Arc<TreeReader>) -> Self {
        let root = reader.root().clone();
        let witness = reader.record.witness.map_or(Place::Nowhere, Place::Node);
        let origin = reader.record.root;
        let node = Arc::new(DirectoryNode {
            level: 0,
            items: Items::Entries(vec![root]),
        });
        let mut directory = Self {
            reader,
            frames: Vec::new(),
            depth: 0,
            origin,
        };
        directory.descend(Place::Nowhere, node, witness, None);
        directory
    }

    fn descend(
        &mut self,
        place: Place,
        node: Arc<DirectoryNode>,
        witness: Place,
        next: Option<Vec<u8>>,
    ) {
        let node = Some(node);
        self.frames.push(Frame {
            place: Held { place, node },
            // Read when it is needed.
            witness: Held {
                place: witness,
                node: None,
            },
            at: 0,
            next,
        });
    }

    /// The innermost node, read again if it was let go.
    fn innermost(&mut self) -> Result<Option<(&mut Frame, Arc<DirectoryNode>)>> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(None);
        };
        let node = match (&frame.place.node, &frame.place.place) {
            (Some(node), _) => Arc::clone(node),
            (None, Place::Node(id)) => self.reader.directory_node(id)?,
            (None, Place::Inline(body)) => inline_node(body, &self.origin)?,
            (None, Place::Nowhere) => unreachable!("a node that lies nowhere is never let go"),
        };
        frame.place.node = Some(Arc::clone(&node));
        if frame.witness.node.is_none() {
            frame.witness.node = match &frame.witness.place {
                Place::Nowhere => None,
                Place::Inline(body) => witness::decode(body).ok().map(Arc::new),
                Place::Node(id) => self.reader.witness_node(id).ok(),
            };
            if frame.witness.node.is_none() {
                frame.witness.place = Place::Nowhere;
            }
        }
        Ok(Some((frame, node)))
    }

    /// The entry of this name. One that is not behind the name asked for last is not found.
    pub fn seek(&mut self, name: &[u8]) -> Result<Option<Witnessed>> {
        loop {
            let behind = |frame: &Frame| frame.next.as_ref().is_some_and(|next| name >= &next[..]);
            if self.frames.last().is_some_and(behind) {
                self.frames.pop();
                continue;
            }
            let Some((frame, node)) = self.innermost()? else {
                return Ok(None);
            };
            let Items::Children(children) = &node.items else {
                break;
            };
            let number = children.partition_point(|(first, _)| &first[..] <= name);
            // Below a child that was passed there is nothing more.
            let Some(number) = number.checked_sub(1).filter(|n| *n >= frame.at) else {
                return Ok(None);
            };
            frame.at = number + 1;
            let (_, below) = known(frame, &node, number);
            let next = (children.get(number + 1)).map(|(next, _)| next.clone());
            let next = next.or_else(|| frame.next.clone());
            let child = self.reader.child(&node, number, next.as_deref())?;
            self.descend(Place::Node(children[number].1), child, below, next);
        }
        let (depth, origin) = (self.depth, self.origin);
        let Some((frame, node)) = self.innermost()? else {
            return Ok(None);
        };
        let entries = entries(&node);
        let ahead = &entries[frame.at..];
        // The next entry is nearly always the one that is asked for.
        if ahead.first().is_some_and(|entry| &entry.name[..] < name) {
            frame.at += ahead.partition_point(|entry| &entry.name[..] < name);
        }
        let Some(entry) = entries.get(frame.at).filter(|entry| entry.name == name) else {
            return Ok(None);
        };
        let (witness, below) = known(frame, &node, frame.at);
        frame.at += 1;
        Ok(Some(Witnessed {
            node: handed_out(entry, depth, origin),
            witness,
            below,
        }))
    }

    /// A directory that was found here; an error of kind `Invalid` if it is none.
    pub fn enter(&mut self, found: &Witnessed) -> Result<Self> {
        let NodeKind::Directory(directory) = &found.node.kind else {
            let what = "what is no directory cannot be entered";
            return Err(Error::new(ErrorKind::Invalid, what));
        };
        for frame in &mut self.frames {
            frame.place.let_go();
            frame.witness.let_go();
        }
        let mut entered = Self {
            reader: Arc::clone(&self.reader),
            frames: Vec::new(),
            depth: directory.depth + 1,
            origin: directory.origin,
        };
        if let Some(node) = self.reader.first_node(directory)? {
            entered.descend(directory.place.clone(), node, found.below.clone(), None);
        }
        Ok(entered)
    }
}

/// What is known of an item of a node: nothing, if the witnesses are those of another node.
fn known(frame: &Frame, node: &DirectoryNode, number: usize) -> (Option<Witness>, Place) {
    let witness = frame.witness.node.as_deref();
    (witness.filter(|w| w.level == node.level && w.items.len() == node.len()))
        .and_then(|witness| witness.items.get(number).cloned())
        .unwrap_or((None, Place::Nowhere))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Attributes, write_tree};
    use crate::{MemoryStorage, Protect, Repository, SystemRandom, Writer, limits};

    #[test]
    fn directories_that_are_gone_through_hold_no_decoded_node() {
        let (storage, random) = (Arc::new(MemoryStorage::new()), Arc::new(SystemRandom));
        let size = limits::CHUNK_DEFAULT;
        let repository = Repository::init(storage, random, &Protect::Open, size);
        let repository = Arc::new(repository.expect("a repository"));
        let writer = Writer::new(Arc::clone(&repository)).expect("a writer");
        let seen = Witness {
            inode: 7,
            ctime: crate::tree::Timestamp::default(),
        };
        let record = write_tree(&writer, 1, &|_| {}, |tree| {
            let plain = Attributes::default();
            tree.enter(b"", &plain, None)?;
            tree.enter(b"a", &plain, Some(seen))?;
            tree.enter(b"b", &plain, Some(seen))?;
            tree.leave()?;
            tree.enter(b"c", &plain, Some(seen))?;
            tree.leave()?;
            tree.leave()?;
            tree.leave()
        });
        let record: crate::tree::TreeRecord = record.map_err(|e: Error| e).expect("a tree");
        writer.flush().expect("it can be read");
        let reader = TreeReader::open(repository, &record).expect("it opens");
        let mut root = WitnessedDirectory::root(Arc::new(reader));
        let found = root.seek(b"").expect("it is read").expect("the root");
        let mut top = root.enter(&found).expect("it is entered");
        let found = top.seek(b"a").expect("it is read").expect("a");
        let mut a = top.enter(&found).expect("it is entered");
        let found = a.seek(b"b").expect("it is read").expect("b");
        assert!(matches!(a.frames[0].place.place, Place::Inline(_)));
        a.enter(&found).expect("it is entered");
        for directory in [&top, &a] {
            for Frame { place, witness, .. } in &directory.frames {
                assert!(place.node.is_none() && witness.node.is_none());
            }
        }
        // Each goes on where it was.
        let found = a.seek(b"c").expect("it is read").expect("c");
        assert_eq!(found.witness, Some(seen));
    }
}
