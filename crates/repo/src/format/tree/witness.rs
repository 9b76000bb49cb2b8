//! Witness nodes: for each item of a directory node, in the same order, what tells that it has
//! not changed.
//!
//! On level 0 an item is a byte that is 1 if there is a witness, then inode 8 and ctime 8 and 4;
//! then, as of a directory, where its witness node lies: 0 nowhere; 1, length 4 and the node; 2
//! and its identity. Above, an item is only that place, which is never 1.

use super::entry::{put_place, take_place};
use super::{Role, SHORT, end, open};
use crate::limits;
use crate::tree::{Place, Timestamp, Witness};

/// An entry has more bytes than this, and an item above level 0 too.
const ENTRY_MIN: usize = 30;

/// No directory node has more items.
const ITEMS_MAX: usize = limits::TREE_NODE_MAX / ENTRY_MIN;

/// A decoded witness node.
#[derive(Debug)]
pub(crate) struct WitnessNode {
    pub(crate) level: u8,
    /// What is known of each item, and where the witness node of what is below it lies.
    pub(crate) items: Vec<(Option<Witness>, Place)>,
}

/// Adds an item of level 0.
pub(crate) fn encode(witness: Option<&Witness>, below: &Place, out: &mut Vec<u8>) {
    match witness {
        None => out.push(0),
        Some(witness) => {
            out.push(1);
            out.extend_from_slice(&witness.inode.to_le_bytes());
            out.extend_from_slice(&witness.ctime.seconds.to_le_bytes());
            out.extend_from_slice(&witness.ctime.nanos.to_le_bytes());
        }
    }
    put_place(below, out);
}

pub(crate) fn decode(body: &[u8]) -> Result<WitnessNode, &'static str> {
    let (level, count, mut bytes) = open(Role::Witness, body)?;
    // In memory an item is far larger than its two bytes.
    if count > ITEMS_MAX {
        return Err("has more items than a directory node can have");
    }
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let witness = match (level, if level == 0 { bytes.u8() } else { Some(0) }) {
            (_, Some(0)) => None,
            (0, Some(1)) => Some(Witness {
                inode: bytes.u64().ok_or(SHORT)?,
                ctime: Timestamp {
                    seconds: bytes.array().map(i64::from_le_bytes).ok_or(SHORT)?,
                    nanos: bytes.u32().ok_or(SHORT)?,
                },
            }),
            (_, None) => return Err(SHORT),
            _ => return Err("has a witness of an unknown kind"),
        };
        let below = take_place(&mut bytes)?;
        if level > 0 && matches!(below, Place::Inline(_)) {
            return Err("has a node where there can be none");
        }
        items.push((witness, below));
    }
    end(bytes)?;
    Ok(WitnessNode { level, items })
}

#[cfg(test)]
mod tests {
    use super::super::header;
    use super::*;

    #[test]
    fn more_items_than_a_directory_node_can_have_are_refused() {
        let of = |count: usize| {
            let items = vec![0; 2 * count];
            decode(&[&header(Role::Witness, 0, count)[..], &items].concat())
        };
        assert_eq!(of(ITEMS_MAX).map(|node| node.items.len()), Ok(ITEMS_MAX));
        let many = of(limits::TREE_NODE_MAX / 2 - super::super::HEADER);
        assert!(many.is_err_and(|why| why.contains("more items")));
    }
}
