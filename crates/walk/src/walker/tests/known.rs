//! What an earlier archive makes needless.

use std::collections::BTreeMap;
use std::fs;

use snapkeep_api::Result;
use snapkeep_api::tree::{
    EntryKind, Found, FoundKind, Judgement, KnownTree, Name, TreePath, Witness,
};

use super::super::Moment;
use crate::testing::{Nothing, Tree, request, skip, walk, walk_with};

/// Knows all that another walk told.
struct Known {
    witnesses: BTreeMap<Vec<u8>, Witness>,
    asked: Vec<String>,
}

impl Known {
    fn of(tree: &Tree) -> Self {
        let witnesses = tree.all.iter().filter_map(|(path, node)| {
            let name = path.rsplit('/').next()?.as_bytes().to_vec();
            Some((name, node.told.witness?))
        });
        Self {
            witnesses: witnesses.collect(),
            asked: Vec::new(),
        }
    }
}

impl KnownTree for Known {
    fn judge(&mut self, name: &Name, found: &Found) -> Result<Judgement> {
        let kind = if found.kind == FoundKind::Directory {
            "d"
        } else {
            "f"
        };
        self.asked.push(format!("{kind} {name}"));
        let is_known = self.witnesses.get(name.as_bytes()) == Some(&found.witness);
        Ok(if is_known {
            Judgement::Known
        } else {
            Judgement::Read
        })
    }
}

#[test]
fn what_is_known_is_neither_opened_nor_told_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("d1/d2")).unwrap();
    for name in ["d1/d2/a", "d1/b", "d1/linked", "changed", "zz"] {
        fs::write(root.join(name), name).unwrap();
    }
    fs::hard_link(root.join("d1/linked"), root.join("linked2")).unwrap();
    let first = walk(&request(root));
    let mut known = Known::of(&first);
    if known.witnesses.is_empty() {
        skip(
            "what_is_known_is_neither_opened_nor_told_again",
            "ext4, XFS or Btrfs",
        );
        return;
    }
    fs::write(root.join("changed"), "something longer").unwrap();
    let mut opened = Vec::new();
    let tree = walk_with(&request(root), &mut known, |moment, path| {
        if moment == Moment::Open {
            opened.push(String::from_utf8_lossy(path).into_owned());
        }
    });
    let tree = tree.unwrap();
    assert_eq!(opened, ["changed"]);
    let asked = [
        "f changed",
        "d d1",
        "f b",
        "d d2",
        "f a",
        "f linked",
        "f zz",
    ];
    assert_eq!(known.asked, asked);
    assert_eq!(tree.order, first.order);
    for path in ["/d1", "/d1/d2", "/d1/d2/a", "/d1/b", "/d1/linked", "/zz"] {
        let told = &tree.node(path).told;
        assert_eq!(
            (told.judged, &told.entry),
            (Judgement::Known, &None),
            "{path}"
        );
        assert_eq!(told.witness, first.node(path).told.witness);
    }
    let to = TreePath::new("d1/linked").unwrap();
    assert_eq!(*tree.kind("/linked2"), EntryKind::HardLink { to });
    assert_eq!(tree.node("/changed").content, b"something longer");
}

#[test]
fn many_entries_are_asked_about_in_several_questions() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3000 {
        fs::write(folder.path().join(format!("{number:04}")), "x").unwrap();
    }
    let first = walk(&request(folder.path()));
    let mut known = Known::of(&first);
    let tree = walk_with(&request(folder.path()), &mut known, |_, _| {}).unwrap();
    assert_eq!(tree.order, first.order);
    let is_known = |path: &&String| tree.node(path).told.judged == Judgement::Known;
    assert_eq!(
        tree.order.iter().filter(is_known).count(),
        known.asked.len()
    );
}

#[test]
fn nothing_is_believed_where_a_file_changes_without_its_times() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        skip(
            "nothing_is_believed_where_a_file_changes_without_its_times",
            "/dev/shm",
        );
        return;
    };
    fs::write(folder.path().join("a"), "a").unwrap();
    let mut known = Known {
        witnesses: BTreeMap::new(),
        asked: Vec::new(),
    };
    let tree = walk_with(&request(folder.path()), &mut known, |_, _| {}).unwrap();
    assert!(known.asked.is_empty());
    assert_eq!(tree.node("/a").told.witness, None);
    assert_eq!(tree.node("/").told.witness, None);
}

#[test]
fn nothing_is_asked_if_nothing_can_be_known() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let mut request = request(folder.path());
    request.ask = false;
    let mut known = Known {
        witnesses: BTreeMap::new(),
        asked: Vec::new(),
    };
    walk_with(&request, &mut known, |_, _| {}).unwrap();
    assert!(known.asked.is_empty());
    assert!(
        walk_with(&request, &mut Nothing, |_, _| {})
            .unwrap()
            .has("/a")
    );
}
