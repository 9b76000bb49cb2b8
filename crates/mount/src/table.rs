//! What the kernel knows: inodes by their numbers, for as long as it counts on them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snapkeep_api::{Error, ErrorKind, Result};

use crate::inode::Inode;
use crate::limits::NUMBERS_TRIED;
use crate::location::{ROOT, number};

/// The table. It grows and shrinks with the kernel's own memory of the file system: each answer
/// that names an inode counts one, and the kernel gives the count back when it forgets. (It never
/// gives back that of an answer to somebody who was killed while waiting for it: such an inode
/// stays until the end of the mount.)
pub(crate) struct Table {
    root: Arc<Inode>,
    slots: Mutex<HashMap<u64, Slot>>,
}

struct Slot {
    inode: Arc<Inode>,
    lookups: u64,
}

impl Table {
    pub(crate) fn new(root: Inode) -> Self {
        Self {
            root: Arc::new(root),
            slots: Mutex::default(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<u64, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, number: u64) -> Option<Arc<Inode>> {
        if number == ROOT {
            return Some(Arc::clone(&self.root));
        }
        self.slots()
            .get(&number)
            .map(|slot| Arc::clone(&slot.inode))
    }

    /// Counts another lookup of the inode with this key, if it is known.
    pub(crate) fn again(&self, key: u128) -> Option<(u64, Arc<Inode>)> {
        again(&mut self.slots(), key)
    }

    /// Counts a lookup of an inode; what is known already under its key stays.
    pub(crate) fn enter(&self, inode: Inode) -> Result<(u64, Arc<Inode>)> {
        let mut slots = self.slots();
        if let Some(known) = again(&mut slots, inode.key) {
            return Ok(known);
        }
        let mut numbers = (0..NUMBERS_TRIED).map(|attempt| number(inode.key, attempt));
        let Some(number) = numbers.find(|number| !slots.contains_key(number)) else {
            let what = "no inode number is left for it";
            return Err(Error::new(ErrorKind::Target, what));
        };
        let inode = Arc::new(inode);
        let slot = Slot {
            inode: Arc::clone(&inode),
            lookups: 1,
        };
        slots.insert(number, slot);
        Ok((number, inode))
    }

    /// Takes lookups back.
    pub(crate) fn forget(&self, number: u64, lookups: u64) {
        let mut slots = self.slots();
        let Entry::Occupied(mut slot) = slots.entry(number) else {
            return;
        };
        let left = slot.get().lookups.saturating_sub(lookups);
        slot.get_mut().lookups = left;
        if left == 0 {
            let gone = slot.remove();
            // What it holds may take its time to go.
            drop(slots);
            drop(gone);
        }
    }
}

fn again(slots: &mut HashMap<u64, Slot>, key: u128) -> Option<(u64, Arc<Inode>)> {
    for attempt in 0..NUMBERS_TRIED {
        let number = number(key, attempt);
        if let Some(slot) = slots.get_mut(&number).filter(|slot| slot.inode.key == key) {
            slot.lookups += 1;
            return Some((number, Arc::clone(&slot.inode)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use snapkeep_api::tree::Name;

    use super::*;
    use crate::location::Location;
    use crate::node::{FixedFolder, Node};

    fn folder(name: &str) -> Inode {
        let location = Location::root().join(&Name::new(name.as_bytes()).unwrap());
        let node = Node::Folder(Arc::new(FixedFolder::default()));
        Inode::of_node(location, node).unwrap().0
    }

    #[test]
    fn an_inode_is_known_until_all_its_lookups_are_taken_back() {
        let table = Table::new(folder("root"));
        let (number, _) = table.enter(folder("a")).unwrap();
        assert_eq!(table.enter(folder("a")).unwrap().0, number);
        let key = folder("a").key;
        assert_eq!(table.again(key).unwrap().0, number);
        table.forget(number, 2);
        assert!(table.get(number).is_some());
        table.forget(number, 1);
        assert!(table.get(number).is_none() && table.again(key).is_none());
        table.forget(number, 1);
        table.forget(ROOT, 5);
        assert!(table.get(ROOT).is_some());
    }

    #[test]
    fn two_locations_whose_numbers_are_equal_are_kept_apart() {
        let table = Table::new(folder("root"));
        let mut other = folder("b");
        let first = folder("a");
        // The lower half of the key is the number.
        other.key = (first.key & u128::from(u64::MAX)) | (7 << 64);
        let (other_key, first_key) = (other.key, first.key);
        let (one, _) = table.enter(first).unwrap();
        let (two, _) = table.enter(other).unwrap();
        assert_ne!(one, two);
        assert_eq!(table.again(first_key).unwrap().0, one);
        assert_eq!(table.again(other_key).unwrap().0, two);
    }
}
