//! Trees as an unprivileged container's root user sees them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use snapkeep_api::tree::{EntryKind, ProblemKind};

use crate::Test;
use crate::tools::{command, is_root, walk};

pub(crate) const ALL: &[Test] = &[
    ("owners_are_those_of_the_container", owners),
    ("what_the_container_may_not_read_is_named", unreadable),
    ("an_owner_that_the_container_lacks_is_named", foreign),
    (
        "attributes_with_owners_in_them_are_those_of_the_container",
        inside_attributes,
    ),
    (
        "what_could_not_be_told_whole_has_no_witness",
        attributes_lost,
    ),
    ("a_privileged_containers_walker_stays_root", privileged),
];

/// A file of this owner.
fn file(path: &Path, content: &str, owner: u32, mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
}

/// The root folder of a container.
fn container() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(100_000), Some(100_000)).unwrap();
    folder
}

fn owners() {
    if !is_root("owners_are_those_of_the_container") {
        return;
    }
    let folder = container();
    file(&folder.path().join("user"), "secret", 101_000, 0o600);
    file(&folder.path().join("nobody"), "", 165_534, 0o000);
    symlink("user", folder.path().join("link")).unwrap();
    chown_link(&folder.path().join("link"), 100_033);
    let tree = walk(&command(folder.path()));
    let owner = |path: &str| {
        let attributes = &tree.entry(path).attributes;
        (attributes.uid, attributes.gid)
    };
    assert_eq!(owner("/"), (0, 0));
    assert_eq!(owner("/user"), (1000, 1000));
    assert_eq!(tree.entries["/user"].1, b"secret");
    assert_eq!(owner("/nobody"), (65_534, 65_534));
    assert_eq!(owner("/link"), (33, 33));
    assert!(tree.problems.is_empty(), "{:?}", tree.problems);
}

fn chown_link(path: &Path, owner: u32) {
    std::os::unix::fs::lchown(path, Some(owner), Some(owner)).unwrap();
}

fn unreadable() {
    if !is_root("what_the_container_may_not_read_is_named") {
        return;
    }
    let folder = container();
    let root = folder.path();
    file(&root.join("hosts"), "secret", 0, 0o600);
    file(&root.join("mine"), "mine", 100_000, 0o600);
    for name in ["lost+found", "closed", "deep/lost+found"] {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::write(root.join(name).join("inside"), "").unwrap();
        fs::set_permissions(root.join(name), Permissions::from_mode(0o700)).unwrap();
    }
    let tree = walk(&command(root));
    assert_eq!(tree.entries["/mine"].1, b"mine");
    assert!(!tree.entries.contains_key("/hosts"));
    for path in ["/hosts", "/closed", "/deep/lost+found"] {
        let (kind, why) = tree.problem(path).unwrap();
        assert_eq!(kind, ProblemKind::LeftOut, "{path}");
        assert!(why.contains("ermission denied"), "{why}");
    }
    // Its folder is there, and what is in it is not.
    assert_eq!(tree.entry("/closed").kind, EntryKind::Directory);
    assert!(!tree.entries.contains_key("/closed/inside"));
    // Only at the top it belongs to the file system.
    assert!(!tree.entries.contains_key("/lost+found"));
    assert_eq!(tree.problem("/lost+found"), None);
}

fn foreign() {
    if !is_root("an_owner_that_the_container_lacks_is_named") {
        return;
    }
    let folder = container();
    file(&folder.path().join("hosts"), "readable", 0, 0o644);
    file(&folder.path().join("mine"), "", 100_000, 0o644);
    file(&folder.path().join("nobodys"), "", 165_534, 0o644);
    let tree = walk(&command(folder.path()));
    assert_eq!(tree.entries["/hosts"].1, b"readable");
    let (kind, why) = tree.problem("/hosts").unwrap();
    assert_eq!(kind, ProblemKind::Warning);
    assert!(why.contains("none of the container's"), "{why}");
    assert_eq!(tree.problems.len(), 1, "{:?}", tree.problems);
    // Without a nobody of its own, all is clear, also of groups.
    let mut small = command(folder.path());
    small.id_map = Some("u:0:100000:65536,g:0:100000:1000".parse().unwrap());
    let tree = walk(&small);
    assert!(tree.problem("/hosts").is_some());
    assert!(tree.problem("/nobodys").unwrap().1.contains("group"));
}

fn inside_attributes() {
    if !is_root("attributes_with_owners_in_them_are_those_of_the_container") {
        return;
    }
    let folder = container();
    let path = folder.path().join("file");
    file(&path, "", 100_000, 0o755);
    // user::rwx user:101000:r-- group::r-x mask::r-x other::r-x
    let acl = |user: u32| {
        let mut bytes = vec![2, 0, 0, 0];
        let entries = [
            (1, 7, u32::MAX),
            (2, 4, user),
            (4, 5, u32::MAX),
            (16, 5, u32::MAX),
            (32, 5, u32::MAX),
        ];
        for (tag, rights, id) in entries {
            bytes.extend(u16::to_le_bytes(tag));
            bytes.extend(u16::to_le_bytes(rights));
            bytes.extend(id.to_le_bytes());
        }
        bytes
    };
    // Revision 3: some capability, of the container whose root this is.
    let capability = |revision: u32, root: Option<u32>| {
        let mut bytes = (revision << 24 | 1).to_le_bytes().to_vec();
        for word in [0x400_u32, 0, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(root.iter().flat_map(|root| root.to_le_bytes()));
        bytes
    };
    let flags = XattrFlags::empty();
    let set = lsetxattr(&path, "system.posix_acl_access", &acl(101_000), flags).and_then(|()| {
        lsetxattr(
            &path,
            "security.capability",
            &capability(3, Some(100_000)),
            flags,
        )
    });
    if let Err(errno) = set {
        assert!(
            std::env::var_os("CI").is_none(),
            "no ACL or capability can be set: {errno}"
        );
        eprintln!("SKIP: attributes_with_owners_in_them_are_those_of_the_container: needs ACLs");
        return;
    }
    let tree = walk(&command(folder.path()));
    let xattrs = &tree.entry("/file").attributes.xattrs;
    assert_eq!(xattrs[0].name, b"security.capability");
    assert_eq!(xattrs[0].value, capability(2, None));
    assert_eq!(xattrs[1].name, b"system.posix_acl_access");
    assert_eq!(xattrs[1].value, acl(1000));
    assert!(tree.problems.is_empty(), "{:?}", tree.problems);
}

fn attributes_lost() {
    const TEST: &str = "what_could_not_be_told_whole_has_no_witness";
    if !is_root(TEST) {
        return;
    }
    let folder = container();
    let root = folder.path();
    // Capabilities of another container's root user: this one may list them, but not read them.
    let mut capability = (3_u32 << 24 | 1).to_le_bytes().to_vec();
    for word in [0x400_u32, 0, 0, 0, 5] {
        capability.extend(word.to_le_bytes());
    }
    fs::create_dir(root.join("folder")).unwrap();
    chown(root.join("folder"), Some(100_000), Some(100_000)).unwrap();
    file(&root.join("file"), "", 100_000, 0o755);
    fs::hard_link(root.join("file"), root.join("link")).unwrap();
    let mode = Mode::from_raw_mode(0o644);
    mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    chown(root.join("fifo"), Some(100_000), Some(100_000)).unwrap();
    file(&root.join("good"), "", 100_000, 0o644);
    file(&root.join("hosts"), "", 0, 0o644);
    for name in ["folder", "file", "fifo"] {
        let path = root.join(name);
        let name = "security.capability";
        lsetxattr(&path, name, &capability, XattrFlags::empty()).unwrap();
    }
    let tree = walk(&command(root));
    if !tree.witnessed.contains("/good") {
        eprintln!("SKIP: {TEST}: needs ext4, XFS or Btrfs");
        return;
    }
    for path in ["/folder", "/file", "/fifo"] {
        let (kind, why) = tree.problem(path).unwrap();
        assert_eq!(kind, ProblemKind::Warning);
        assert!(why.contains("attribute security.capability"), "{why}");
    }
    let witnessed: Vec<_> = tree.witnessed.iter().map(String::as_str).collect();
    assert_eq!(witnessed, ["/", "/good"]);
}

fn privileged() {
    if !is_root("a_privileged_containers_walker_stays_root") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    file(&folder.path().join("file"), "content", 1000, 0o600);
    let mut command = command(folder.path());
    command.id_map = None;
    let tree = walk(&command);
    assert_eq!(tree.entry("/file").attributes.uid, 1000);
    assert_eq!(tree.entries["/file"].1, b"content");
}
