//! Extraction where the machine does not play along: full and read-only targets, users without
//! rights, file systems that cannot keep what there is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use snapkeep_api::tree::{DeviceNumber, EntryKind, Xattr};
use snapkeep_api::{Cancel, Error, ErrorKind};
use snapkeep_tree::{ExtractOptions, ExtractReport, ProblemKind, Progress, extract};
use support::memory::{MemoryTree, attributes};
use support::tools::{has_rights, sh};

fn run(tree: &MemoryTree, target: &Path) -> Result<ExtractReport, Error> {
    let options = ExtractOptions::default();
    extract(tree, target, &options, &Progress::default(), &Cancel::new())
}

/// A file system in memory that is gone with the test.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        sh(
            folder.path(),
            &format!("mount -t tmpfs -o {options} snapkeep-test \"$PWD\""),
        );
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg(self.path()).status().ok();
    }
}

#[test]
fn a_full_target_ends_it_and_names_the_file() {
    if !has_rights("a_full_target_ends_it_and_names_the_file") {
        return;
    }
    let mut tree = MemoryTree::new(attributes(0o755));
    tree.file("fits", &vec![1; 100_000]);
    tree.file("large", &vec![1; 5_000_000]);
    let mount = Mount::new("size=1m");
    let error = run(&tree, mount.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    let said = error.to_string();
    assert!(
        said.contains("/large cannot be restored") && said.contains("No space"),
        "{said}"
    );
    assert!(
        !mount.path().join("large").exists(),
        "half a file is not left"
    );
}

#[test]
fn a_target_without_inodes_ends_it_while_others_wait() {
    if !has_rights("a_target_without_inodes_ends_it_while_others_wait") {
        return;
    }
    let mut tree = MemoryTree::new(attributes(0o755));
    for number in 0..2000 {
        tree.file(&format!("{number:04}"), b"x");
    }
    let mount = Mount::new("nr_inodes=500");
    let error = run(&tree, mount.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    assert!(error.to_string().contains("/0"), "{error}");
}

#[test]
fn a_read_only_target_is_refused() {
    if !has_rights("a_read_only_target_is_refused") {
        return;
    }
    let mut tree = MemoryTree::new(attributes(0o755));
    tree.file("file", b"x");
    let mount = Mount::new("ro");
    let error = run(&tree, mount.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    let error = run(&tree, &mount.path().join("new")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    assert!(error.to_string().contains("cannot be made"), "{error}");
}

#[test]
fn what_a_file_system_cannot_keep_is_named() {
    if !has_rights("what_a_file_system_cannot_keep_is_named") {
        return;
    }
    let mut tree = MemoryTree::new(attributes(0o755));
    let file = tree.file("flagged", b"x");
    // Compression: tmpfs knows inode flags, but not this one.
    tree.entry(file).attributes.flags = 0x4;
    let file = tree.file("noted", b"x");
    let note = Xattr {
        name: b"nonsense.note".to_vec(),
        value: b"x".to_vec(),
    };
    tree.entry(file).attributes.xattrs = vec![note];
    let mount = Mount::new("size=10m");
    let report = run(&tree, mount.path()).unwrap();
    let mut named: Vec<_> = report
        .named
        .iter()
        .map(|p| (p.path.to_string(), p.kind))
        .collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    let wanted = [
        ("/flagged".to_owned(), ProblemKind::Flags),
        ("/noted".to_owned(), ProblemKind::Xattr),
    ];
    assert_eq!(named, wanted, "{report:?}");
    assert_eq!(report.problems, 2);
}

/// Where the test that runs without rights is told its target.
const TARGET: &str = "SNAPKEEP_TEST_TARGET";

#[test]
fn without_rights_what_cannot_be_set_is_named_and_all_else_is_restored() {
    let mut tree = MemoryTree::new(attributes(0o755));
    tree.directory("etc");
    let file = tree.file("etc/shadow", b"secret");
    tree.entry(file).attributes.permissions = 0o4640;
    tree.entry(file).attributes.gid = 42;
    let trusted = Xattr {
        name: b"trusted.x".to_vec(),
        value: b"1".to_vec(),
    };
    tree.entry(file).attributes.xattrs = vec![trusted];
    let null = DeviceNumber { major: 1, minor: 3 };
    tree.put("null", attributes(0o666), EntryKind::CharDevice(null));
    tree.link("null2", "null");
    tree.put("sub", attributes(0o000), EntryKind::Directory);
    tree.file("sub/inner", b"inner");
    let Ok(target) = env::var(TARGET) else {
        // It is run once more, by itself, as nobody.
        if has_rights("without_rights_what_cannot_be_set_is_named_and_all_else_is_restored") {
            let temp = tempfile::tempdir().unwrap();
            fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o777)).unwrap();
            let program = temp.path().join("test");
            fs::copy(env::current_exe().unwrap(), &program).unwrap();
            let mut again = Command::new(&program);
            again.args(["--exact", "--nocapture"]);
            again.arg("without_rights_what_cannot_be_set_is_named_and_all_else_is_restored");
            again.env(TARGET, temp.path().join("target")).env("CI", "");
            let output = again.uid(65_534).gid(65_534).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            assert!(temp.path().join("target/etc/shadow").exists(), "{said}");
        }
        return;
    };
    let target = Path::new(&target);
    let report = run(&tree, target).unwrap();
    let mut kinds = BTreeMap::<String, Vec<ProblemKind>>::new();
    for problem in &report.named {
        kinds
            .entry(problem.path.to_string())
            .or_default()
            .push(problem.kind);
    }
    assert_eq!(
        kinds["/etc/shadow"],
        [ProblemKind::Owner, ProblemKind::Xattr]
    );
    assert_eq!(kinds["/null"], [ProblemKind::NotMade]);
    assert_eq!(kinds["/null2"], [ProblemKind::NotMade]);
    assert_eq!(kinds["/sub"], [ProblemKind::Owner]);
    // The new folder is its maker's, and closed.
    assert!(report.closed_target && !kinds.contains_key("/"));
    let shadow = fs::metadata(target.join("etc/shadow")).unwrap();
    assert_eq!(
        shadow.mode() & 0o7777,
        0o640,
        "it is not set-user-ID for somebody else"
    );
    assert_eq!(fs::metadata(target.join("sub")).unwrap().mode() & 0o777, 0);
    fs::set_permissions(target.join("sub"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fs::read(target.join("sub/inner")).unwrap(), b"inner");
}
