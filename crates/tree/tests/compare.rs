//! Two trees compared.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use snapkeep_api::Cancel;
use snapkeep_api::tree::{DeviceNumber, EntryKind, TreeReader, Xattr};
use snapkeep_tree::{Changes, Difference, Selection, compare};
use support::memory::{MemoryTree, attributes, path};

fn differences(old: &MemoryTree, new: &MemoryTree, selection: &Selection) -> Vec<String> {
    let mut told = Vec::new();
    compare((old, new), selection, &Cancel::new(), &mut |difference| {
        told.push(match difference {
            Difference::Added(path, _) => format!("+ {path}"),
            Difference::Removed(path, _) => format!("- {path}"),
            Difference::Changed(path, changes) => format!("~ {path}{}", words(changes)),
        });
        ControlFlow::Continue(())
    })
    .unwrap();
    told
}

fn words(changes: Changes) -> String {
    [
        (changes.kind, " kind"),
        (changes.content, " content"),
        (changes.owner, " owner"),
        (changes.permissions, " permissions"),
        (changes.mtime, " mtime"),
        (changes.xattrs, " xattrs"),
        (changes.flags, " flags"),
        (changes.target, " target"),
        (changes.device, " device"),
        (changes.links, " links"),
    ]
    .iter()
    .filter_map(|(is, word)| is.then_some(*word))
    .collect()
}

fn tree() -> MemoryTree {
    let mut tree = MemoryTree::new(attributes(0o755));
    for folder in ["a", "b", "b/deep", "c"] {
        tree.directory(folder);
    }
    for file in ["a/one", "a/two", "a!", "b/deep/three", "c/four"] {
        tree.file(file, file.as_bytes());
    }
    let target = b"one".to_vec();
    tree.put("a/link", attributes(0o777), EntryKind::Symlink { target });
    let null = DeviceNumber { major: 1, minor: 3 };
    tree.put("c/null", attributes(0o666), EntryKind::CharDevice(null));
    tree.link("c/one", "a/one");
    tree
}

fn both_ways(old: &mut MemoryTree, new: &mut MemoryTree, wanted: &[&str]) {
    for identities in [true, false] {
        old.identities = identities;
        new.identities = identities;
        let told = differences(old, new, &Selection::all());
        assert_eq!(told, wanted, "identities: {identities}");
    }
}

#[test]
fn equal_trees_have_no_differences() {
    both_ways(&mut tree(), &mut tree(), &[]);
}

#[test]
fn what_was_added_and_removed_is_told_in_order() {
    let (mut old, mut new) = (tree(), tree());
    old.directory("a/gone");
    old.file("a/gone/inner", b"");
    new.file("a#", b"");
    new.directory("z");
    new.file("z/new", b"");
    both_ways(
        &mut old,
        &mut new,
        &["- /a/gone", "- /a/gone/inner", "+ /a#", "+ /z", "+ /z/new"],
    );
}

#[test]
fn each_change_is_told_as_what_it_is() {
    let (mut old, mut new) = (tree(), tree());
    let number = |tree: &MemoryTree, at: &str| tree.number(&path(at));
    let at = number(&new, "a");
    new.entry(at).attributes.mtime.nanos = 1;
    let at = number(&new, "a/link");
    new.entry(at).kind = EntryKind::Symlink {
        target: b"two".to_vec(),
    };
    let at = number(&new, "a/one");
    new.write(at, 0, b"A/ONE");
    new.entry(at).attributes.gid = 5;
    let at = number(&new, "a/two");
    new.entry(at).attributes.permissions = 0o4755;
    new.entry(at).attributes.flags = 0x10;
    new.entry(at).attributes.xattrs = vec![Xattr {
        name: b"user.x".to_vec(),
        value: vec![],
    }];
    let at = number(&new, "a!");
    new.entry(at).kind = EntryKind::Fifo;
    let at = number(&new, "c/null");
    new.entry(at).kind = EntryKind::CharDevice(DeviceNumber { major: 1, minor: 5 });
    let wanted = [
        "~ /a mtime",
        "~ /a/link target",
        "~ /a/one content owner",
        "~ /a/two permissions xattrs flags",
        "~ /a! kind",
        "~ /c/null device",
    ];
    both_ways(&mut old, &mut new, &wanted);
}

#[test]
fn holes_are_the_zeroes_that_they_read_as() {
    let (mut old, mut new) = (tree(), tree());
    for tree in [&mut old, &mut new] {
        let size = 5_000_000;
        for at in ["a/zeroes", "a/data"] {
            tree.put(at, attributes(0o600), EntryKind::File { size, links: 1 });
        }
    }
    let at = new.number(&path("a/zeroes"));
    new.write(at, 1000, &vec![0; 3_000_000]);
    let at = new.number(&path("a/data"));
    new.write(at, 4_999_999, &[1]);
    let told = differences(&old, &new, &Selection::all());
    assert_eq!(told, ["~ /a/data content"]);
}

#[test]
fn another_first_name_is_told_and_what_it_names_is_compared() {
    let (mut old, mut new) = (tree(), MemoryTree::new(attributes(0o755)));
    for folder in ["a", "b", "b/deep", "c"] {
        new.directory(folder);
    }
    for file in ["a/two", "a!", "b/deep/three", "c/four"] {
        new.file(file, file.as_bytes());
    }
    let target = b"one".to_vec();
    new.put("a/link", attributes(0o777), EntryKind::Symlink { target });
    let null = DeviceNumber { major: 1, minor: 3 };
    new.put("c/null", attributes(0o666), EntryKind::CharDevice(null));
    // The first name is gone; what was the second has the content now.
    new.file("c/one", b"a/one");
    both_ways(&mut old, &mut new, &["- /a/one", "~ /c/one links"]);
    let at = new.number(&path("c/one"));
    new.write(at, 0, b"other");
    both_ways(&mut old, &mut new, &["- /a/one", "~ /c/one content links"]);
}

#[test]
fn what_has_the_same_identity_is_not_looked_at() {
    let (mut old, mut new) = (tree(), tree());
    new.file("c/new", b"");
    both_ways(&mut old, &mut new, &["+ /c/new"]);
    let count = |tree: &MemoryTree| tree.lists.load(Ordering::Relaxed);
    old.identities = true;
    new.identities = true;
    let before = count(&old);
    assert_eq!(differences(&old, &new, &Selection::all()), ["+ /c/new"]);
    // The root and `c`, each until nothing more is told.
    assert_eq!(count(&old) - before, 4);
    assert_eq!(differences(&old, &old, &Selection::all()), [""; 0]);
}

#[test]
fn a_selection_need_not_be_in_both() {
    let (mut old, new) = (tree(), tree());
    old.file("b/gone", b"");
    old.file("c/unselected", b"");
    let selection = Selection::of(["b/gone", "nowhere", "a"].map(path).to_vec()).unwrap();
    assert_eq!(differences(&old, &new, &selection), ["- /b/gone"]);
}

#[test]
fn nothing_is_read_once_the_listener_breaks_off() {
    let (mut old, mut new) = (tree(), tree());
    old.file("a/gone", b"");
    new.file("b/deep/new", b"");
    new.broken_folder = Some(new.number(&path("c")));
    let hear = |most: usize| {
        let mut told = 0;
        let trees = (&old as &dyn TreeReader, &new as &dyn TreeReader);
        let ended = compare(trees, &Selection::all(), &Cancel::new(), &mut |_| {
            told += 1;
            if told == most {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        (told, ended.is_ok())
    };
    assert_eq!(hear(1), (1, true));
    assert_eq!(hear(2), (2, true));
    assert_eq!(hear(3), (2, false));
}
