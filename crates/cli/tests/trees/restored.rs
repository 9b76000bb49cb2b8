//! Whole trees restored.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::Lab;
use crate::support::shape::check;
use crate::support::{are_here, has_rights, json, ran};

/// With a hook, which is dropped, and a bridge, which is named.
const CONFIG: &str = "lxc.uts.name = web
lxc.idmap = u 0 100000 65536
lxc.idmap = g 0 100000 65536
lxc.hook.pre-start = /bin/false
lxc.net.0.type = veth
lxc.net.0.link = lxcbr0
";

#[test]
fn what_is_told_of_a_new_container_is_what_the_document_names() {
    let test = "what_is_told_of_a_new_container_is_what_the_document_names";
    if !has_rights(test) || !are_here(test, &["mknod"]) {
        return;
    }
    let lab = Lab::new(
        "mkdir tree lxc; echo content > tree/file; mknod tree/disk b 7 0; chown -R 100000:100000 tree",
    );
    fs::write(lab.path("web.conf"), CONFIG).unwrap();
    let backup = [
        "backup",
        "container",
        "--guest",
        "web",
        "--directory",
        "tree",
    ];
    let more = ["--idmap", "0:100000:65536", "--guest-config", "web.conf"];
    let archive = json(lab.folder(), &[&backup[..], &more].concat());
    let restore = [
        "restore",
        "container",
        "web",
        "--lxc",
        "copy",
        "--lxc-path",
        "lxc",
    ];
    // A device is left out.
    let done = ran(lab.folder(), &[&restore[..], &["--json"]].concat(), 7);
    let told = serde_json::from_slice(&done.stdout).unwrap();
    check("`restore container --lxc`", &told);
    assert_eq!(told["archive"], archive["archive"]);
    assert_eq!(told["container"], "copy");
    assert_eq!(told["named"][0]["path"], "/disk", "{told}");
    for (list, word) in [("dropped", "lxc.hook.pre-start"), ("links", "lxcbr0")] {
        let lines = told[list].as_array().unwrap();
        assert_eq!(lines.len(), 1, "{told}");
        assert!(lines[0].as_str().unwrap().contains(word), "{told}");
    }
    let file = lab.path("lxc/copy/rootfs/file");
    assert_eq!(fs::read(&file).unwrap(), b"content\n");
    assert_eq!(fs::metadata(&file).unwrap().uid(), 100_000);
}

#[test]
fn a_tar_archive_without_sockets_and_flags_is_a_good_end_with_warnings() {
    let test = "a_tar_archive_without_sockets_and_flags_is_a_good_end_with_warnings";
    if !has_rights(test) || !are_here(test, &["chattr"]) {
        return;
    }
    let lab = Lab::new("mkdir tree; echo content > tree/file; chattr +A tree/file");
    let _socket = std::os::unix::net::UnixListener::bind(lab.path("tree/socket")).unwrap();
    lab.back_up("web", "tree");
    let restore = ["restore", "container", "web", "--tar", "tar", "--json"];
    let done = ran(lab.folder(), &restore, 0);
    let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (&told["sockets"], &told["flags_lost"]),
        (&1.into(), &1.into())
    );
    let said = String::from_utf8(done.stderr).unwrap();
    for warning in [
        "warning: /socket is left out",
        "warning: 1 entries have inode flags",
    ] {
        assert!(said.contains(warning), "{said}");
    }
}
