//! Which part of a tree is meant.

use snapkeep_api::tree::TreePath;
use snapkeep_api::{Error, ErrorKind, Result};

use crate::limits::SELECTED_MAX;
use crate::order::{compare, is_within};

/// A part of a tree: entries with all that is below them, and the folders above them.
#[derive(Clone, Debug, Default)]
pub struct Selection(Option<Vec<TreePath>>);

/// What a selection says of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Selected {
    /// It is meant.
    Whole,
    /// Something below it is meant.
    Above,
    /// It is not meant.
    Not,
}

impl Selection {
    /// The whole tree.
    pub fn all() -> Self {
        Self(None)
    }

    /// The entries at these paths, with all that is below; `Invalid` if there are none, or too many.
    pub fn of(mut paths: Vec<TreePath>) -> Result<Self> {
        if paths.is_empty() || paths.len() > SELECTED_MAX {
            let what = format!(
                "1 to {SELECTED_MAX} paths can be selected, not {}",
                paths.len()
            );
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        paths.sort_by(compare);
        // What follows a folder in this order is within it, up to the first that is not.
        paths.dedup_by(|later, earlier| is_within(later, earlier));
        let all = paths.first().is_some_and(TreePath::is_root);
        Ok(Self((!all).then_some(paths)))
    }

    pub(crate) fn is_all(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn says(&self, path: &TreePath) -> Selected {
        let Some(paths) = &self.0 else {
            return Selected::Whole;
        };
        let after = paths.partition_point(|selected| compare(selected, path).is_le());
        if after > 0 && is_within(path, &paths[after - 1]) {
            Selected::Whole
        } else if paths.get(after).is_some_and(|next| is_within(next, path)) {
            Selected::Above
        } else {
            Selected::Not
        }
    }

    /// The names in this folder, which is above something selected, on the way to all of that,
    /// after this name.
    pub(crate) fn next_name(&self, folder: &TreePath, after: Option<&[u8]>) -> Option<Vec<u8>> {
        let paths = self.0.as_ref()?;
        let first = paths.partition_point(|selected| compare(selected, folder).is_le());
        let depth = folder.names().count();
        let below = paths[first..]
            .iter()
            .take_while(|path| is_within(path, folder));
        let mut names = below.filter_map(|path| path.names().nth(depth));
        names
            .find(|name| after.is_none_or(|after| *name > after))
            .map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    #[test]
    fn what_is_selected_is_whole_and_what_leads_there_is_above() {
        let selection = Selection::of(["b/c", "a", "a/x", "b/cd/e"].map(path).to_vec()).unwrap();
        for (text, says) in [
            ("", Selected::Above),
            ("a", Selected::Whole),
            ("a/y/z", Selected::Whole),
            ("ab", Selected::Not),
            ("b", Selected::Above),
            ("b/c", Selected::Whole),
            ("b/cd", Selected::Above),
            ("b/cd/e/f", Selected::Whole),
            ("b/cd/f", Selected::Not),
            ("c", Selected::Not),
        ] {
            assert_eq!(selection.says(&path(text)), says, "{text}");
        }
        let next = |after: Option<&[u8]>| selection.next_name(&path("b"), after);
        assert_eq!(next(None), Some(b"c".to_vec()));
        assert_eq!(next(Some(b"c")), Some(b"cd".to_vec()));
        assert_eq!(next(Some(b"cd")), None);
    }

    #[test]
    fn the_root_selects_all_and_nothing_is_refused() {
        assert!(Selection::of(vec![path("a"), path("")]).unwrap().is_all());
        assert!(Selection::of(vec![]).is_err());
    }
}
