//! Goes through a tree beside a new walk, to tell what has not changed since.

use std::sync::Arc;

use super::reader::{TreeReader, entries, handed_out};
use super::{NodeKind, Place, TreeDirectory, TreeNode, Witness};
use crate::format::id::ChunkId;
use crate::format::pack::Class;
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
/// one node of each level. Witnesses that cannot be read are none: nothing is believed then.
#[derive(Debug)]
pub struct WitnessedDirectory {
    reader: Arc<TreeReader>,
    /// From the highest level to the lowest that was reached.
    nodes: Vec<Frame>,
    depth: usize,
    origin: ChunkId,
}

#[derive(Debug)]
struct Frame {
    node: Arc<DirectoryNode>,
    witness: Option<WitnessNode>,
    /// The first item that was not passed.
    at: usize,
    /// The first name behind this node.
    next: Option<Vec<u8>>,
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
            nodes: Vec::new(),
            depth: 0,
            origin,
        };
        directory.descend(node, &witness, None);
        directory
    }

    fn new(reader: Arc<TreeReader>, directory: &TreeDirectory, witness: &Place) -> Result<Self> {
        let first = reader.first_node(directory)?;
        let mut entered = Self {
            reader,
            nodes: Vec::new(),
            depth: directory.depth + 1,
            origin: directory.origin,
        };
        if let Some(node) = first {
            entered.descend(node, witness, None);
        }
        Ok(entered)
    }

    fn descend(&mut self, node: Arc<DirectoryNode>, witness: &Place, next: Option<Vec<u8>>) {
        let witness = self.witnesses(witness);
        // Those of another node say nothing about this one.
        let witness = witness.filter(|w| w.level == node.level && w.items.len() == node.len());
        self.nodes.push(Frame {
            node,
            witness,
            at: 0,
            next,
        });
    }

    fn witnesses(&self, place: &Place) -> Option<WitnessNode> {
        match place {
            Place::Nowhere => None,
            Place::Inline(body) => witness::decode(body).ok(),
            Place::Node(id) => {
                let repository = &self.reader.repository;
                let body = repository.read_chunk(Class::Metadata, id).ok()?;
                witness::decode(&body).ok()
            }
        }
    }

    /// The entry of this name. One that is not behind the name asked for last is not found.
    pub fn seek(&mut self, name: &[u8]) -> Result<Option<Witnessed>> {
        while let Some(frame) = self.nodes.last_mut() {
            if frame.next.as_ref().is_some_and(|next| name >= &next[..]) {
                self.nodes.pop();
                continue;
            }
            let node = Arc::clone(&frame.node);
            let Items::Children(children) = &node.items else {
                break;
            };
            let number = children.partition_point(|(first, _)| &first[..] <= name);
            // Below a child that was passed there is nothing more.
            let Some(number) = number.checked_sub(1).filter(|n| *n >= frame.at) else {
                return Ok(None);
            };
            frame.at = number + 1;
            let below = below(frame.witness.as_ref(), number);
            let next = (children.get(number + 1)).map(|(next, _)| next.clone());
            let next = next.or_else(|| frame.next.clone());
            let child = self.reader.child(&node, number, next.as_deref())?;
            self.descend(child, &below, next);
        }
        let Some(frame) = self.nodes.last_mut() else {
            return Ok(None);
        };
        let entries = entries(&frame.node);
        let ahead = &entries[frame.at..];
        // The next entry is nearly always the one that is asked for.
        frame.at += if ahead.first().is_some_and(|entry| &entry.name[..] >= name) {
            0
        } else {
            ahead.partition_point(|entry| &entry.name[..] < name)
        };
        let Some(entry) = entries.get(frame.at).filter(|entry| entry.name == name) else {
            return Ok(None);
        };
        let (witness, below) = (frame.witness.as_ref())
            .and_then(|w| w.items.get(frame.at).cloned())
            .unwrap_or((None, Place::Nowhere));
        frame.at += 1;
        Ok(Some(Witnessed {
            node: handed_out(entry, self.depth, self.origin),
            witness,
            below,
        }))
    }

    /// A directory that was found here; an error of kind `Invalid` if it is none.
    pub fn enter(&self, found: &Witnessed) -> Result<Self> {
        let NodeKind::Directory(directory) = &found.node.kind else {
            let what = "what is no directory cannot be entered";
            return Err(Error::new(ErrorKind::Invalid, what));
        };
        Self::new(Arc::clone(&self.reader), directory, &found.below)
    }
}

fn below(witness: Option<&WitnessNode>, number: usize) -> Place {
    let item = witness.and_then(|witness| witness.items.get(number));
    item.map_or(Place::Nowhere, |(_, below)| below.clone())
}
