//! What of a container's files is read, what is left out, and what is told of that.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::namespace::IDMAP;
use crate::support::{Disk, are_here, has_rights, init, json, ran, sh, text, wait_until_settled};

const BACKUP: &[&str] = &[
    "backup",
    "container",
    "--guest",
    "web",
    "--directory",
    "tree",
    "--idmap",
    IDMAP,
];

/// A folder `tree` of a container's files, and a repository.
struct Tree(Disk);

impl Tree {
    fn new(test: &str, tools: &[&str], make: &str) -> Option<Self> {
        if !are_here(test, tools) || !has_rights(test) {
            return None;
        }
        let tree = Self(Disk::new());
        fs::create_dir(tree.path("tree")).unwrap();
        sh(tree.0.path(), make);
        sh(tree.0.path(), "chown -hR 100000:100000 tree");
        init(tree.0.path());
        wait_until_settled();
        Some(tree)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Backs up to this exit code; what was told as JSON, and on standard error.
    #[track_caller]
    fn backup(&self, more: &[&str], code: i32) -> (Value, String) {
        let done = ran(self.0.path(), &[BACKUP, more, &["--json"]].concat(), code);
        let told = serde_json::from_slice(&done.stdout).unwrap();
        (told, String::from_utf8(done.stderr).unwrap())
    }

    fn listed(&self) -> Vec<String> {
        let listed = text(self.0.path(), &["ls", "-R", "web"]);
        listed.lines().map(str::to_owned).collect()
    }
}

#[test]
fn what_the_container_may_not_read_is_named_and_counted() {
    let test = "what_the_container_may_not_read_is_named_and_counted";
    let Some(tree) = Tree::new(test, &[], "mkdir tree/etc; echo good > tree/etc/own") else {
        return;
    };
    sh(
        &tree.path("tree/etc"),
        "echo secret > hosts; chmod 600 hosts; echo open > open",
    );
    for _ in 0..2 {
        let (told, said) = tree.backup(&[], 7);
        assert_eq!(told["left_out"], 1, "{told}");
        assert!(said.contains("/etc/hosts is left out"), "{said}");
        assert!(said.contains("/etc/open is kept, but: its owner"), "{said}");
        assert_eq!(tree.listed(), ["/etc", "/etc/open", "/etc/own"]);
        let shown = json(tree.0.path(), &["show", "web"]);
        assert_eq!(shown["left_out"], 1, "{shown}");
        let shown = text(tree.0.path(), &["show", "web"]);
        assert!(shown.contains("(1 left out)"), "{shown}");
    }
    let folder = tree.0.path();
    for (args, whole) in [
        (&["restore", "container", "web", "--to", "to"][..], true),
        (&["restore", "container", "web", "--tar", "tar"], true),
        (&["extract", "web", "etc/own", "--to", "some"], true),
        (&["cat", "web", "etc/own"], false),
    ] {
        let restored = ran(folder, args, 0);
        let said = String::from_utf8(restored.stderr).unwrap();
        let partial = said.contains("is partial: 1 entry could not be read");
        assert_eq!(partial, whole, "{args:?}: {said}");
    }
    let again = ["restore", "container", "web", "--to", "again"];
    assert_eq!(json(folder, &again)["left_out"], 1);
    let kept = |more: &[&str]| {
        let forget = ["forget", "--guest", "web", "--keep-last", "1", "--dry-run"];
        let told = json(tree.0.path(), &[&forget[..], more].concat());
        let archives = told["archives"].as_array().unwrap().iter();
        archives
            .map(|archive| (archive["left_out"] == 1, archive["kept"] == true))
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&[]), [(true, true), (true, true)]);
    let counting = kept(&["--count-partial"]);
    assert_eq!(counting, [(true, false), (true, true)]);
    sh(&tree.path("tree/etc"), "chown 165535:165535 hosts open");
    let (told, _) = tree.backup(&[], 0);
    assert_eq!(told["left_out"], 0, "{told}");
    assert_eq!(json(tree.0.path(), &["show", "web"])["left_out"], 0);
    let (old, whole) = ((true, false), (false, true));
    assert_eq!(kept(&[]), [old, old, whole]);
    assert_eq!(
        text(tree.0.path(), &["cat", "web", "etc/hosts"]),
        "secret\n"
    );
    // A partial one does not push the whole one out.
    sh(&tree.path("tree/etc"), "chown 0:0 hosts");
    tree.backup(&[], 7);
    assert_eq!(kept(&[]), [old, old, whole, (true, true)]);
    let forget = ["forget", "--guest", "web", "--keep-last", "1"];
    let told = text(tree.0.path(), &forget);
    let last = told.lines().nth(3).unwrap();
    assert!(
        last.ends_with("kept: last (partial: 1 left out; counts for nothing)"),
        "{told}"
    );
}

#[test]
fn what_is_excluded_is_not_in_the_archive() {
    let make = "cd tree; mkdir -p tmp var/tmp var/run srv/cache home; chmod 1777 tmp
        touch tmp/.x var/tmp/y var/run/a.pid var/run/b srv/cache/1 srv/cache/keep srv/a.swp a.swp home/log
        printf '/cache/*\\n!/cache/keep\\n*.swp\\n' > srv/.pxarexclude";
    let Some(tree) = Tree::new("what_is_excluded_is_not_in_the_archive", &[], make) else {
        return;
    };
    let kept = [
        "/a.swp",
        "/home",
        "/home/log",
        "/srv",
        "/srv/.pxarexclude",
        "/srv/cache",
        "/srv/cache/keep",
        "/tmp",
        "/var",
        "/var/run",
        "/var/run/b",
        "/var/tmp",
    ];
    tree.backup(&[], 0);
    assert_eq!(tree.listed(), kept);
    tree.backup(&["--exclude", "*.swp", "--exclude", "/home/log"], 0);
    let fewer: Vec<_> = (kept.into_iter())
        .filter(|path| !["/a.swp", "/home/log"].contains(path))
        .collect();
    assert_eq!(tree.listed(), fewer);
    tree.backup(&["--no-default-excludes"], 0);
    let mut more = [&kept[..], &["/tmp/.x", "/var/run/a.pid", "/var/tmp/y"]].concat();
    more.sort_unstable();
    assert_eq!(tree.listed(), more);
    let wrong = [BACKUP, &["--exclude", "[z"]].concat();
    ran(tree.0.path(), &wrong, 2);
}

#[test]
fn another_file_system_is_read_if_it_is_named() {
    let make = "mkdir -p tree/mnt/point; echo root > tree/here
        mount -t tmpfs -o size=1M,mode=755 snapkeep-test tree/mnt/point; echo inside > tree/mnt/point/inside";
    let test = "another_file_system_is_read_if_it_is_named";
    let Some(tree) = Tree::new(test, &["mount"], make) else {
        return;
    };
    tree.backup(&[], 0);
    assert_eq!(tree.listed(), ["/here", "/mnt", "/mnt/point"]);
    tree.backup(&["--source", "/", "--source", "/mnt/point"], 0);
    let all = ["/here", "/mnt", "/mnt/point", "/mnt/point/inside"];
    assert_eq!(tree.listed(), all);
    tree.backup(&["--source", "mnt/point"], 0);
    assert_eq!(tree.listed(), all[1..]);
    let (told, said) = tree.backup(&["--source", "/", "--source", "/gone"], 7);
    assert_eq!(told["left_out"], 1, "{told}");
    assert!(said.contains("the source /gone is not there"), "{said}");
}

#[test]
fn an_audit_tells_what_changed_without_its_times_and_nothing_else() {
    // What is written into the image while it is not mounted changes no time.
    let make = "truncate -s 16M image; mkfs.ext4 -q image; mount -o loop image tree
        seq 1000 > tree/same; echo first-content > tree/lied";
    let test = "an_audit_tells_what_changed_without_its_times_and_nothing_else";
    let Some(tree) = Tree::new(test, &["mkfs.ext4", "mount", "python3"], make) else {
        return;
    };
    tree.backup(&[], 0);
    let (told, said) = tree.backup(&["--audit", "100"], 0);
    assert_eq!(told["left_out"], 0, "{told}");
    assert!(!said.contains("warning: /"), "{said}");
    let change = "umount tree; python3 -c '
data = open(\"image\", \"rb\").read()
assert data.count(b\"first-content\") == 1
open(\"image\", \"r+b\").write(data.replace(b\"first-content\", b\"other-content\"))'
        mount -o loop image tree; grep -q other-content tree/lied";
    sh(tree.0.path(), change);
    let (told, _) = tree.backup(&[], 0);
    assert_eq!(told["read_bytes"], 0, "{told}");
    let cat = || text(tree.0.path(), &["cat", "web", "/lied"]);
    assert_eq!(cat(), "first-content\n");
    let (_, said) = tree.backup(&["--audit", "100"], 0);
    assert!(said.contains("/lied"), "{said}");
    assert!(!said.contains("/same"), "{said}");
    assert_eq!(cat(), "other-content\n");
    // Change detection by data reads all the same.
    let everything = json(
        tree.0.path(),
        &[BACKUP, &["--change-detection", "data"]].concat(),
    );
    let (read, size) = (&everything["read_bytes"], &everything["size_bytes"]);
    assert_eq!(read, size, "{everything}");
}
