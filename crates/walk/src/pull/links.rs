//! Which entries hard links may lead to.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use snapkeep_api::tree::TreePath;

use crate::limits;
use crate::stream::Fault;

/// The paths that have several names, as keyed hashes: a path that was not told is taken for one of
/// them once in 2^64 times the number of them, and nobody can look for such a path.
#[derive(Debug, Default)]
pub(super) struct Links {
    keys: HashSet<u64>,
    hasher: RandomState,
}

impl Links {
    pub(super) fn key(&self, path: &TreePath) -> u64 {
        self.hasher.hash_one(path)
    }

    pub(super) fn add(&mut self, key: u64) -> Result<(), Fault> {
        if self.keys.len() == limits::LINKED_MAX {
            return Err(Fault("too many entries have several names"));
        }
        self.keys.insert(key);
        Ok(())
    }

    pub(super) fn has(&self, path: &TreePath) -> bool {
        self.keys.contains(&self.key(path))
    }
}
