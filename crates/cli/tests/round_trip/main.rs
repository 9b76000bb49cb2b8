//! A container's files with every type and attribute, backed up and restored by the program in every
//! way, and compared by the usual tools.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking and tells what it skips"
)]

mod facts;
mod guarded;
mod plant;
#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use facts::{ALL, MOUNT, TAR, TAR_IN_NAMESPACE, TAR_OF_TAR, Wanted, assert_same};
use plant::{TOOLS, plant};
use support::namespace::{FIRST, IDMAP, Namespace};
use support::{Disk, Running, are_here, has_rights, init, json, output, program, sh, shell};

/// What Proxmox VE extracts a container's tar archive with.
const TAR_FLAGS: &str = "-p --sparse --numeric-owner --acls --xattrs --xattrs-include='user.*' \
    --xattrs-include=security.capability --warning=no-file-ignored --warning=no-xattr-write";
/// Where it leaves devices out.
const IN_NAMESPACE: &str = "--skip-old-files --anchored --exclude='./dev/*' --exclude=./etc/zero";

/// Whose view of a folder it is.
#[derive(Clone, Copy)]
enum View<'a> {
    Host,
    Container(&'a Namespace),
}

impl View<'_> {
    fn facts(self, folder: &Path, wanted: Wanted) -> Vec<(&'static str, Vec<u8>)> {
        let told = facts::lines(wanted).into_iter().map(|(what, line)| {
            let said = match self {
                Self::Host => output(&mut shell(folder, &line)),
                Self::Container(namespace) => namespace.sh(folder, &line),
            };
            (what, said)
        });
        told.collect()
    }
}

/// Fails unless two folders are the same, each in somebody's view.
#[track_caller]
fn same(a: (View<'_>, &Path), b: (View<'_>, &Path), wanted: Wanted) {
    let others = b.0.facts(b.1, wanted);
    for ((what, a), (_, b)) in a.0.facts(a.1, wanted).iter().zip(&others) {
        assert!(*what == "devices" || !a.is_empty(), "{what}");
        assert_same(what, a, b);
    }
}

/// Fails if `rsync` would change anything. It would read all of the vast file.
#[track_caller]
fn rsync_finds_nothing(folder: &Path, more: &str) {
    let line =
        format!("rsync -n -aHAX --checksum --delete -i --exclude=/etc/vast {more} source/ target/");
    assert_eq!(sh(folder, &line), "");
}

/// A container's files, and an archive of them.
struct BackedUp {
    namespace: Namespace,
    disk: Disk,
}

impl BackedUp {
    fn new(test: &str) -> Option<Self> {
        if !are_here(test, TOOLS) || !has_rights(test) {
            return None;
        }
        let new = Self {
            namespace: Namespace::new(),
            disk: Disk::new(),
        };
        let source = new.path("source");
        fs::create_dir(&source).unwrap();
        plant(&new.namespace, &source);
        init(new.disk.path());
        let backup = [
            "backup",
            "container",
            "--guest",
            "web",
            "--directory",
            "source",
        ];
        let done = new.json(&[&backup[..], &["--idmap", IDMAP]].concat());
        assert_eq!(done["left_out"], 0, "{done}");
        fs::create_dir(new.path("target")).unwrap();
        Some(new)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        json(self.disk.path(), args)
    }

    fn container(&self) -> View<'_> {
        View::Container(&self.namespace)
    }

    /// Compares what was restored with the source, which the container sees so.
    #[track_caller]
    fn same(&self, view: View<'_>, target: &str, wanted: Wanted) {
        let source = self.path("source");
        let target = self.path(target);
        same((self.container(), &source), (view, &target), wanted);
    }
}

#[test]
fn a_folder_restored_with_its_id_map_is_the_container() {
    let Some(web) = BackedUp::new("a_folder_restored_with_its_id_map_is_the_container") else {
        return;
    };
    let restore = ["restore", "container", "web", "--to", "target"];
    let done = web.json(&[&restore[..], &["--idmap", IDMAP, "--allow-devices"]].concat());
    assert_eq!(done["problems"], 0, "{done}");
    let (source, target) = (web.path("source"), web.path("target"));
    same((View::Host, &source), (View::Host, &target), ALL);
    rsync_finds_nothing(web.disk.path(), "");
}

#[test]
fn a_tar_archive_extracted_by_tar_is_the_container() {
    let Some(web) = BackedUp::new("a_tar_archive_extracted_by_tar_is_the_container") else {
        return;
    };
    let done = web.json(&["restore", "container", "web", "--tar", "web.tar"]);
    assert_eq!(done["sockets"], 1, "{done}");
    sh(
        &web.path("target"),
        &format!("tar -x {TAR_FLAGS} -f ../web.tar"),
    );
    web.same(View::Host, "target", TAR);

    // The stream is the file.
    let mut stream = program(
        web.disk.path(),
        &["restore", "container", "web", "--tar", "-"],
    );
    let out = File::create(web.path("streamed.tar")).unwrap();
    let status = stream.stdout(out).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    sh(web.disk.path(), "cmp web.tar streamed.tar");
}

#[test]
fn a_tar_archive_extracted_in_a_user_namespace_is_the_container() {
    let Some(web) = BackedUp::new("a_tar_archive_extracted_in_a_user_namespace_is_the_container")
    else {
        return;
    };
    web.json(&["restore", "container", "web", "--tar", "web.tar"]);
    let target = web.path("target");
    std::os::unix::fs::lchown(&target, Some(FIRST), Some(FIRST)).unwrap();
    let line = format!("tar -x {TAR_FLAGS} {IN_NAMESPACE} -f -");
    let mut tar = web.namespace.shell(&target, &line);
    output(tar.stdin(File::open(web.path("web.tar")).unwrap()));
    web.same(web.container(), "target", TAR_IN_NAMESPACE);
    // Proxmox VE leaves the folder itself as it is.
    let own = "touch -r source target; chmod --reference=source target";
    sh(web.disk.path(), own);
    rsync_finds_nothing(
        web.disk.path(),
        "--exclude=/etc/socket --exclude=/dev/* --exclude=/etc/zero",
    );
}

#[test]
fn what_a_mount_shows_is_the_container() {
    let test = "what_a_mount_shows_is_the_container";
    let Some(web) = BackedUp::new(test) else {
        return;
    };
    if !Path::new("/dev/fuse").exists() {
        support::skip(test, "/dev/fuse");
        return;
    }
    fs::create_dir(web.path("mnt")).unwrap();
    let mount = program(web.disk.path(), &["mount", "mnt"]);
    let mounted = Running::start(mount, "mounted the repository at mnt");
    let list = web.json(&["list"]);
    let archive = list["archives"][0]["archive"].as_str().unwrap();
    let inside = web.path("mnt").join(archive);
    let tree = inside.join("tree");
    same(
        (web.container(), &web.path("source")),
        (View::Host, &tree),
        MOUNT,
    );

    let pack = format!("tar -c {TAR_FLAGS} -C tree -f - . | tar -x {TAR_FLAGS} -C ");
    let line = format!("{pack} {}", web.path("target").display());
    sh(&inside, &line);
    web.same(View::Host, "target", TAR_OF_TAR);

    // The tree as a tar archive is the one that the program writes.
    web.json(&["restore", "container", "web", "--tar", "web.tar"]);
    let line = format!("cmp tree.tar {}", web.path("web.tar").display());
    sh(&inside, &line);
    sh(web.disk.path(), "umount mnt");
    assert_eq!(mounted.ended(), Some(0));
}
