//! Trees of several file systems. This process has a mount namespace of its own, so nothing is left.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command as Tool;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use snapkeep_api::tree::{EntryKind, ProblemKind};

use crate::Test;
use crate::tools::{Tree, command, is_root, patient, request};

pub(crate) const ALL: &[Test] = &[
    (
        "a_mount_point_that_is_no_source_is_an_empty_folder",
        no_source,
    ),
    ("a_mount_point_that_is_a_source_is_walked", a_source),
    (
        "a_source_within_a_mount_that_is_none_is_walked_and_the_mount_not",
        within,
    ),
    (
        "a_link_on_the_way_to_a_source_is_not_followed",
        link_on_the_way,
    ),
    (
        "a_file_with_something_mounted_over_it_is_named",
        mounted_file,
    ),
    (
        "a_part_of_the_same_file_system_mounted_again_is_not_walked_twice",
        same_again,
    ),
    ("a_subvolume_is_a_folder_like_others", subvolume),
];

/// A mount namespace of its own for all that follows. The process must have one thread.
pub(crate) fn unshare() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .unwrap();
}

fn tmpfs(at: &Path) {
    fs::create_dir_all(at).unwrap();
    mount("none", at, "tmpfs", MountFlags::empty(), c"mode=0751").unwrap();
    fs::write(at.join("inside"), "inside").unwrap();
}

/// What a privileged container's walker tells of some sources.
fn walk(folder: &Path, sources: &[&str]) -> Tree {
    let mut command = command(folder);
    command.id_map = None;
    let mut request = request();
    request.sources = sources
        .iter()
        .map(|source| source.as_bytes().to_vec())
        .collect();
    let walker = command.spawn().unwrap();
    let mut pull = snapkeep_walk::Pull::of(walker, &request, patient()).unwrap();
    Tree::pull(&mut pull).unwrap_or_else(|error| panic!("{}", error.chain()))
}

fn told(tree: &Tree) -> Vec<&str> {
    tree.entries.keys().map(String::as_str).collect()
}

fn no_source() {
    if !is_root("a_mount_point_that_is_no_source_is_an_empty_folder") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    tmpfs(&folder.path().join("proc"));
    fs::create_dir(folder.path().join("z")).unwrap();
    let tree = walk(folder.path(), &["./"]);
    assert_eq!(told(&tree), ["/", "/proc", "/z"]);
    assert_eq!(tree.entry("/proc").attributes.permissions, 0o751);
    assert!(tree.problems.is_empty(), "{:?}", tree.problems);
}

fn a_source() {
    if !is_root("a_mount_point_that_is_a_source_is_walked") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    tmpfs(&folder.path().join("mnt/point"));
    fs::create_dir(folder.path().join("mnt/point/lower")).unwrap();
    let tree = walk(folder.path(), &["./", "./mnt/point"]);
    let right = [
        "/",
        "/mnt",
        "/mnt/point",
        "/mnt/point/inside",
        "/mnt/point/lower",
    ];
    assert_eq!(told(&tree), right);
    assert_eq!(tree.entries["/mnt/point/inside"].1, b"inside");
    // Each as its file system deserves.
    assert!(!tree.witnessed.contains("/mnt/point"));
    assert!(!tree.witnessed.contains("/mnt/point/inside"));
    assert_eq!(
        tree.witnessed.contains("/mnt"),
        tree.witnessed.contains("/")
    );
    // Alone, only the way to it is told.
    fs::write(folder.path().join("mnt/other"), "").unwrap();
    assert_eq!(told(&walk(folder.path(), &["./mnt/point"])), right);
}

fn within() {
    if !is_root("a_source_within_a_mount_that_is_none_is_walked_and_the_mount_not") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    tmpfs(&folder.path().join("mnt"));
    tmpfs(&folder.path().join("mnt/point"));
    let tree = walk(folder.path(), &["./", "mnt/point"]);
    assert_eq!(
        told(&tree),
        ["/", "/mnt", "/mnt/point", "/mnt/point/inside"]
    );
}

fn link_on_the_way() {
    if !is_root("a_link_on_the_way_to_a_source_is_not_followed") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    symlink("/etc", folder.path().join("mnt")).unwrap();
    for sources in [&["mnt/ssl"][..], &["./", "mnt/ssl"]] {
        let tree = walk(folder.path(), sources);
        assert_eq!(told(&tree), ["/", "/mnt"]);
        assert!(matches!(tree.entry("/mnt").kind, EntryKind::Symlink { .. }));
        let (kind, why) = tree.problem("/").unwrap();
        assert_eq!(kind, ProblemKind::LeftOut);
        assert!(why.contains("/mnt/ssl"), "{why}");
    }
}

fn mounted_file() {
    if !is_root("a_file_with_something_mounted_over_it_is_named") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "below").unwrap();
    mount_bind("/etc/passwd", &path).unwrap();
    let tree = walk(folder.path(), &["./"]);
    assert_eq!(told(&tree), ["/"]);
    assert_eq!(tree.problem("/file").unwrap().0, ProblemKind::Warning);
}

fn same_again() {
    if !is_root("a_part_of_the_same_file_system_mounted_again_is_not_walked_twice") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("a/file"), "").unwrap();
    // Its device is the same; only the mount is another.
    mount_bind(folder.path().join("a"), folder.path().join("b")).unwrap();
    let tree = walk(folder.path(), &["./"]);
    assert_eq!(told(&tree), ["/", "/a", "/a/file", "/b"]);
}

fn subvolume() {
    const TEST: &str = "a_subvolume_is_a_folder_like_others";
    if !is_root(TEST) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let top = folder.path().join("top");
    fs::create_dir(&top).unwrap();
    File::create(&image).unwrap().set_len(128 << 20).unwrap();
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        let output = Tool::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    let volume = top.join("volume");
    let made = run("mkfs.btrfs", &["-q".as_ref(), image.as_ref()])
        && run(
            "mount",
            &["-o".as_ref(), "loop".as_ref(), image.as_ref(), top.as_ref()],
        )
        && run(
            "btrfs",
            &[
                "-q".as_ref(),
                "subvolume".as_ref(),
                "create".as_ref(),
                volume.as_ref(),
            ],
        );
    if !made {
        eprintln!("SKIP: {TEST}: needs Btrfs and loop devices");
        return;
    }
    fs::write(volume.join("file"), "content").unwrap();
    let tree = walk(&top, &["./"]);
    assert_eq!(tree.entries["/volume/file"].1, b"content");
    // The device is another in it, but the times tell as much.
    assert!(tree.witnessed.contains("/volume/file"));
    assert!(run("umount", &[top.as_ref()]));
}
