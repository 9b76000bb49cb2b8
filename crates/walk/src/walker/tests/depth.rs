//! Deep and wide trees.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, unlinkat};
use snapkeep_api::tree::ProblemKind;

use super::super::Moment;
use crate::testing::{Nothing, request, walk, walk_with};

/// Makes folders within folders, deeper than one path can say, and removes them again.
struct Deep(OwnedFd, usize);

fn open(folder: impl AsFd) -> OwnedFd {
    openat(
        folder,
        "d",
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )
    .unwrap()
}

impl Deep {
    fn make(root: &Path, depth: usize) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut last = openat(CWD, root, flags, Mode::empty()).unwrap();
        let top = last.try_clone().unwrap();
        for _ in 0..depth {
            mkdirat(&last, "d", Mode::RWXU).unwrap();
            last = open(&last);
        }
        Self(top, depth)
    }

    /// The folder so far down.
    fn at(&self, depth: usize) -> OwnedFd {
        let top = self.0.try_clone().unwrap();
        (0..depth).fold(top, |folder, _| open(&folder))
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        // A removal by path would fail, and one by recursion take a descriptor a level.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut folder = self.0.try_clone().unwrap();
        while let Ok(below) = openat(&folder, "d", flags, Mode::empty()) {
            folder = below;
        }
        for _ in 0..self.1 {
            let Ok(above) = openat(&folder, "..", flags, Mode::empty()) else {
                return;
            };
            if unlinkat(&above, "d", AtFlags::REMOVEDIR).is_err() {
                return;
            }
            folder = above;
        }
    }
}

#[test]
fn a_tree_of_thousands_of_levels_is_told_with_few_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let deep = Deep::make(folder.path(), 5000);
    let at = deep.at(2500);
    let name = "file";
    drop(openat(&at, name, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
    let mut most = 0;
    let tree = walk_with(&request(folder.path()), &mut Nothing, |moment, _| {
        if moment == Moment::Listed {
            most = most.max(std::fs::read_dir("/proc/self/fd").unwrap().count());
        }
    });
    let tree = tree.unwrap();
    assert_eq!(tree.order.len(), 5002);
    assert!(tree.problems.is_empty(), "{:?}", tree.problems);
    assert!(tree.has(&format!("{}/file", "/d".repeat(2500))));
    unlinkat(&at, name, AtFlags::empty()).unwrap();
    assert!(most < 200, "{most} descriptors");
}

#[test]
fn a_folder_that_is_moved_meanwhile_is_a_problem_and_never_in_the_wrong_place() {
    let folder = tempfile::tempdir().unwrap();
    let deep = Deep::make(folder.path(), 100);
    for depth in 0..100 {
        let at = deep.at(depth);
        drop(openat(&at, "z", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let other = File::open(elsewhere.path()).unwrap();
    let bottom = "d/".repeat(100);
    let tree = walk_with(&request(folder.path()), &mut Nothing, |moment, path| {
        // The folders from the 20th on are moved out of the tree while the walk is at the bottom.
        if moment == Moment::Listed && path == bottom.trim_end_matches('/').as_bytes() {
            renameat(deep.at(19), "d", &other, "d").unwrap();
        }
    });
    let tree = tree.unwrap();
    let at = |depth: usize| "/d".repeat(depth);
    // What was moved as a whole is found by going up.
    assert!(tree.has(&format!("{}/z", at(60))));
    assert!(tree.has(&format!("{}/z", at(20))));
    // Above it, the way from the root leads there.
    assert!(tree.has(&format!("{}/z", at(19))), "{:?}", tree.problems);
    assert!(tree.has("/z"));
    renameat(&other, "d", deep.at(19), "d").unwrap();
    for depth in 0..100 {
        unlinkat(deep.at(depth), "z", AtFlags::empty()).unwrap();
    }
}

#[test]
fn a_folder_that_cannot_be_found_again_is_left_out_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let deep = Deep::make(folder.path(), 100);
    for depth in 0..100 {
        let at = deep.at(depth);
        drop(openat(&at, "z", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let other = File::open(elsewhere.path()).unwrap();
    let bottom = "d/".repeat(100);
    let tree = walk_with(&request(folder.path()), &mut Nothing, |moment, path| {
        if moment == Moment::Listed && path == bottom.trim_end_matches('/').as_bytes() {
            // The lower part goes to one place and what is above it to another.
            renameat(deep.at(20), "d", &other, "low").unwrap();
            renameat(deep.at(9), "d", &other, "high").unwrap();
        }
    });
    let tree = tree.unwrap();
    let at = |depth: usize| "/d".repeat(depth);
    assert!(tree.has(&format!("{}/z", at(21))));
    assert!(tree.has(&format!("{}/z", at(9))));
    for depth in 10..=20 {
        assert!(!tree.has(&format!("{}/z", at(depth))), "{depth}");
        let (kind, why) = tree.problem(&at(depth));
        assert!(
            kind == ProblemKind::LeftOut && why.contains("moved"),
            "{why}"
        );
    }
    let high = openat(&other, "high", OFlags::RDONLY, Mode::empty()).unwrap();
    let last = (0..10).fold(high, |folder, _| open(&folder));
    renameat(&other, "low", &last, "d").unwrap();
    renameat(&other, "high", deep.at(9), "d").unwrap();
    for depth in 0..100 {
        unlinkat(deep.at(depth), "z", AtFlags::empty()).unwrap();
    }
}

#[test]
fn a_folder_of_many_names_is_told_whole() {
    // In memory, since making them takes longest.
    let folder = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    for number in 0..200_000 {
        std::fs::hard_link(
            folder.path().join("0"),
            folder.path().join(number.to_string()),
        )
        .or_else(|_| File::create(folder.path().join(number.to_string())).map(drop))
        .unwrap();
    }
    let tree = walk(&request(folder.path()));
    assert_eq!(tree.order.len(), 200_001);
    assert!(tree.order.is_sorted());
}
