//! The order in which the entries of a tree are told.

use std::cmp::Ordering;

use snapkeep_api::tree::TreePath;

/// Compares by that order: a folder comes before what is in it, and names go by their bytes.
pub(crate) fn compare(a: &TreePath, b: &TreePath) -> Ordering {
    // A slash ends a name, so it comes before every byte that goes on with one.
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.as_bytes()
        .iter()
        .map(rank)
        .cmp(b.as_bytes().iter().map(rank))
}

/// Whether the path is the folder's, or below it.
pub(crate) fn is_within(path: &TreePath, folder: &TreePath) -> bool {
    let (path, folder) = (path.as_bytes(), folder.as_bytes());
    folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    #[test]
    fn a_folders_entries_come_before_a_longer_name() {
        let told = ["", "a", "a/b", "a/b/c", "a!", "a!/b", "b"].map(path);
        assert!(told.is_sorted_by(|a, b| compare(a, b) == Ordering::Less));
    }

    #[test]
    fn a_longer_name_is_not_within_a_folder() {
        assert!(is_within(&path("a/b"), &path("a")) && is_within(&path("a"), &path("a")));
        assert!(is_within(&path("a"), &path("")) && !is_within(&path("ab"), &path("a")));
        assert!(!is_within(&path("a"), &path("a/b")));
    }
}
