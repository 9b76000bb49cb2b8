//! Where something is in the mounted file system, and the number that follows from that.

use std::fmt;
use std::sync::Arc;

use snapkeep_api::Result;
use snapkeep_api::tree::{Name, TreePath};

use crate::limits::SHOWN_NAMES_MAX;

/// The number of the root, which FUSE defines.
pub(crate) const ROOT: u64 = 1;

/// A path. Paths of one folder share what is above them.
#[derive(Debug)]
pub(crate) struct Location {
    above: Option<(Arc<Self>, Name)>,
    /// A digest of the path: equal only for equal paths.
    pub(crate) key: u128,
}

impl Location {
    pub(crate) fn root() -> Arc<Self> {
        Arc::new(Self {
            above: None,
            key: 0,
        })
    }

    pub(crate) fn join(self: &Arc<Self>, name: &Name) -> Arc<Self> {
        Arc::new(Self {
            key: digest(self.key, name.as_bytes()),
            above: Some((Arc::clone(self), name.clone())),
        })
    }

    /// The location of a tree's entry, from that of the tree's root.
    pub(crate) fn join_path(self: &Arc<Self>, path: &TreePath) -> Result<Arc<Self>> {
        let mut location = Arc::clone(self);
        for name in path.names() {
            location = location.join(&Name::new(name)?);
        }
        Ok(location)
    }

    /// The entry's path below a location that is above it.
    pub(crate) fn below(&self, top: &Self) -> Result<TreePath> {
        let mut names = Vec::new();
        let mut next = self;
        while let Some((above, name)) = &next.above {
            if next.key == top.key {
                break;
            }
            names.push(name.as_bytes());
            next = above;
        }
        names.reverse();
        TreePath::new(names.join(&b'/'))
    }

    /// The inode number, unless another location has it already; never 0, and 1 for the root only.
    pub(crate) fn number(&self) -> u64 {
        number(self.key, 0)
    }

    /// The inode number of the folder it is in; the root is in itself.
    pub(crate) fn parent_number(&self) -> u64 {
        self.above
            .as_ref()
            .map_or(ROOT, |(above, _)| above.number())
    }

    /// What stands for an entry that cannot be read, so that its folder can be listed.
    pub(crate) fn broken_key(&self) -> u128 {
        digest(self.key, b"")
    }
}

/// The `attempt`-th number of a key.
pub(crate) fn number(key: u128, attempt: u64) -> u64 {
    if key == 0 {
        return ROOT;
    }
    let half = |part: u128| u64::try_from(part & u128::from(u64::MAX)).unwrap_or(u64::MAX);
    let (low, high) = (half(key), half(key >> 64));
    let number = low.wrapping_add(attempt.wrapping_mul(high | 1));
    if number <= ROOT {
        u64::MAX - number
    } else {
        number
    }
}

fn digest(above: u128, name: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&above.to_le_bytes()).update(name);
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    // Zero is the root's.
    u128::from_le_bytes(key).max(1)
}

impl Drop for Location {
    /// One after the other: the deepest tree has more folders than a thread's stack has room for.
    fn drop(&mut self) {
        let mut next = self.above.take();
        while let Some((above, _)) = next {
            next = Arc::into_inner(above).and_then(|mut last| last.above.take());
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Vec::new();
        let mut next = self;
        while let Some((above, name)) = &next.above {
            if names.len() == SHOWN_NAMES_MAX {
                f.write_str("/...")?;
                break;
            }
            names.push(name);
            next = above;
        }
        if names.is_empty() {
            f.write_str("/")?;
        }
        names.iter().rev().try_for_each(|name| write!(f, "/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_path_has_the_same_number_each_time_and_no_other_has_it() {
        let number = |path: &str| {
            let path = TreePath::new(path).unwrap();
            Location::root().join_path(&path).unwrap().number()
        };
        assert_eq!(number(""), ROOT);
        // Written down: they must not change from one version to the next.
        assert_eq!(number("etc/passwd"), number("etc/passwd"));
        let all = ["", "a", "b", "a/b", "ab", "b/a"].map(number);
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
    }

    #[test]
    fn a_path_below_a_tree_is_found_again_and_shown() {
        let tree = Location::root().join(&name("100")).join(&name("tree"));
        let path = TreePath::new(&b"a/b\n"[..]).unwrap();
        let location = tree.join_path(&path).unwrap();
        assert_eq!(location.below(&tree).unwrap(), path);
        assert_eq!(tree.below(&tree).unwrap(), TreePath::root());
        assert_eq!(location.to_string(), "/100/tree/a/b\\n");
        assert_eq!(location.parent_number(), tree.join(&name("a")).number());
        assert_eq!(Location::root().to_string(), "/");
    }

    #[test]
    fn the_deepest_path_is_let_go_of_on_a_small_stack() {
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        let end = thread.spawn(|| {
            let mut location = Location::root();
            for _ in 0..100_000 {
                location = location.join(&name("x"));
            }
            assert!(location.to_string().len() < 200);
        });
        end.unwrap().join().unwrap();
    }
}
