//! Goes through a tree beside a new walk, to tell what has not changed since.

use std::sync::Arc;

use super::reader::{TreeReader, entries, handed_out};
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

/// A node that is at hand, or can be read again.
#[derive(Debug)]
struct Held<N> {
    id: Option<ChunkId>,
    node: Option<Arc<N>>,
}

impl<N> Held<N> {
    fn let_go(&mut self) {
        if self.id.is_some() {
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
        directory.descend(None, node, &witness, None);
        directory
    }

    fn descend(
        &mut self,
        id: Option<ChunkId>,
        node: Arc<DirectoryNode>,
        witness: &Place,
        next: Option<Vec<u8>>,
    ) {
        let witness = match witness {
            Place::Nowhere => Held {
                id: None,
                node: None,
            },
            Place::Inline(body) => Held {
                id: None,
                node: witness::decode(body).ok().map(Arc::new),
            },
            Place::Node(id) => Held {
                id: Some(*id),
                node: self.reader.witness_node(id).ok(),
            },
        };
        let node = Some(node);
        self.frames.push(Frame {
            place: Held { id, node },
            witness,
            at: 0,
            next,
        });
    }

    /// The innermost node, read again if it was let go.
    fn innermost(&mut self) -> Result<Option<(&mut Frame, Arc<DirectoryNode>)>> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(None);
        };
        let node = match (&frame.place.node, &frame.place.id) {
            (Some(node), _) => Arc::clone(node),
            (None, Some(id)) => self.reader.directory_node(id)?,
            (None, None) => unreachable!("a node without an identity is never let go"),
        };
        frame.place.node = Some(Arc::clone(&node));
        if frame.witness.node.is_none()
            && let Some(id) = &frame.witness.id
        {
            frame.witness.node = self.reader.witness_node(id).ok();
            if frame.witness.node.is_none() {
                frame.witness.id = None;
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
            self.descend(Some(children[number].1), child, &below, next);
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
            let id = match &directory.place {
                Place::Node(id) => Some(*id),
                Place::Inline(_) | Place::Nowhere => None,
            };
            entered.descend(id, node, &found.below, None);
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
